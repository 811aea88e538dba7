//! The compiled filter against a plain reading of the rules.
//!
//! In: profiles, made at random and written by hand. Out: for every architecture, the calls and arguments at which
//! the program's answer differs from what the rules say (none).
//! Must never: share code with the compiler but for the number tables.

use super::arch::Name;
use super::compile_for;
use super::program::op;
use crate::oci::spec::seccomp::Action;
use crate::oci::spec::seccomp::Arch;
use crate::oci::spec::seccomp::Arg;
use crate::oci::spec::seccomp::Operator;
use crate::oci::spec::seccomp::Rule;
use crate::oci::spec::seccomp::Seccomp;
use crate::sys::seccomp::Instruction;

/// `struct seccomp_data` as a machine of the architecture fills it.
struct Call {
    arch: u32,
    number: u32,
    args: [u64; 6],
    little_endian: bool,
}

impl Call {
    /// The word at a byte offset; the instruction pointer is filled with what no rule may see.
    fn word(&self, offset: u32) -> u32 {
        assert_eq!(offset % 4, 0, "unaligned load at {offset}");
        match offset {
            0 => self.number,
            4 => self.arch,
            8 | 12 => 0xdead_beef,
            16..64 => {
                let arg = self.args[(offset as usize - 16) / 8];
                let first = offset.is_multiple_of(8);
                if first == self.little_endian { arg as u32 } else { (arg >> 32) as u32 }
            }
            _ => panic!("load at {offset}, outside seccomp_data"),
        }
    }
}

/// Runs classic BPF as the kernel does, with the checks of its verifier: forward jumps inside the program.
fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let mut accumulator = 0u32;
    let mut at = 0;
    for steps in 1..=program.len() {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        match code {
            op::LOAD => accumulator = call.word(k),
            op::AND => accumulator &= k,
            op::JUMP => at += k as usize,
            op::RETURN => return (k, steps),
            op::JUMP_EQUAL => at += usize::from(if accumulator == k { jt } else { jf }),
            op::JUMP_GREATER => at += usize::from(if accumulator > k { jt } else { jf }),
            op::JUMP_GREATER_OR_EQUAL => at += usize::from(if accumulator >= k { jt } else { jf }),
            other => panic!("operation {other:#x}"),
        }
    }
    panic!("no return");
}

fn action_value(action: Action, errno: Option<u32>) -> u32 {
    match action {
        Action::Kill | Action::KillThread => 0,
        Action::KillProcess => 0x8000_0000,
        Action::Trap => 0x0003_0000,
        Action::Errno => 0x0005_0000 + errno.unwrap_or(1),
        Action::Trace => 0x7ff0_0000 + errno.unwrap_or(1),
        Action::Allow => 0x7fff_0000,
        Action::Log => 0x7ffc_0000,
        Action::Notify => 0x7fc0_0000,
    }
}

/// What the rules say of a call of `arch`, one of the filter's architectures.
fn expected(profile: &Seccomp, arch: Arch, number: u32, args: &[u64; 6]) -> u32 {
    let default = action_value(profile.default_action, profile.default_errno_ret);
    let numbers = |name: &str| Name::find(name).and_then(|name| arch.number(name));
    let all_names = || profile.syscalls.iter().flat_map(|rule| &rule.names);
    let denies = !matches!(profile.default_action, Action::Allow | Action::Log | Action::Trace);
    if let (true, Some(highest)) = (denies, all_names().filter_map(|name| numbers(name)).max()) {
        let is_private = arch == Arch::Arm && number >= 0x0f_0001;
        if (number > highest && !is_private) || (number == 0 && matches!(arch, Arch::S390 | Arch::S390x)) {
            return 0x0005_0000 + 38;
        }
    }
    let mask = if matches!(
        arch,
        Arch::X86
            | Arch::X32
            | Arch::Arm
            | Arch::Mips
            | Arch::Mipsel
            | Arch::Mips64N32
            | Arch::Mipsel64N32
            | Arch::Ppc
            | Arch::S390
            | Arch::Parisc
            | Arch::M68k
            | Arch::Sh
            | Arch::Sheb
    ) {
        0xffff_ffff
    } else {
        u64::MAX
    };
    let holds = |arg: &Arg| {
        let (seen, value) = (args[arg.index as usize] & mask, arg.value & mask);
        match arg.op {
            Operator::NotEqual => seen != value,
            Operator::Less => seen < value,
            Operator::LessOrEqual => seen <= value,
            Operator::Equal => seen == value,
            Operator::GreaterOrEqual => seen >= value,
            Operator::Greater => seen > value,
            Operator::MaskedEqual => seen & value == arg.value_two & value,
        }
    };
    let mut conditional = None;
    for rule in &profile.syscalls {
        let value = action_value(rule.action, rule.errno_ret);
        if value == default {
            continue;
        }
        for name in &rule.names {
            if numbers(name) == Some(number) || arch.private_number(name) == Some(number) {
                if rule.args.is_empty() {
                    return value; // even behind conditional rules that match
                }
                let twice = (0..6).any(|index| rule.args.iter().filter(|arg| arg.index == index).count() > 1);
                let matched = if twice { rule.args.iter().any(holds) } else { rule.args.iter().all(holds) };
                if matched && conditional.is_none() {
                    conditional = Some(value);
                }
            }
            if let Some(true) = door(arch, name, number, args)
                && conditional.is_none()
            {
                conditional = Some(value);
            }
        }
    }
    conditional.unwrap_or(default)
}

/// Whether `number` is socketcall or ipc, and its first argument selects the call `name`.
fn door(arch: Arch, name: &str, number: u32, args: &[u64; 6]) -> Option<bool> {
    let is = |door: &str| Name::find(door).and_then(|name| arch.number(name)) == Some(number);
    let selects = |calls: &[(&str, u64)], mask: u64| {
        calls.iter().find(|(call, _)| *call == name).map(|(_, selector)| args[0] & mask == *selector)
    };
    if is("socketcall") {
        return selects(&[("socket", 1), ("connect", 3), ("sendto", 11), ("sendmmsg", 20)], 0xffff_ffff);
    }
    if is("ipc") {
        return selects(&[("semop", 1), ("shmat", 21), ("shmctl", 24)], 0xffff);
    }
    None
}

/// xorshift: the same profiles on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Values at which comparisons of halves go wrong.
    fn value(&mut self) -> u64 {
        let half = [0, 1, 2, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];
        (self.pick(&half) << 32) | self.pick(&half)
    }
}

const ALL_ARCHES: [Arch; 23] = [
    Arch::X86,
    Arch::X86_64,
    Arch::X32,
    Arch::Arm,
    Arch::Aarch64,
    Arch::Mips,
    Arch::Mips64,
    Arch::Mips64N32,
    Arch::Mipsel,
    Arch::Mipsel64,
    Arch::Mipsel64N32,
    Arch::Ppc,
    Arch::Ppc64,
    Arch::Ppc64Le,
    Arch::S390,
    Arch::S390x,
    Arch::Parisc,
    Arch::Parisc64,
    Arch::Riscv64,
    Arch::Loongarch64,
    Arch::M68k,
    Arch::Sh,
    Arch::Sheb,
];

const OPERATORS: [Operator; 7] = [
    Operator::NotEqual,
    Operator::Less,
    Operator::LessOrEqual,
    Operator::Equal,
    Operator::GreaterOrEqual,
    Operator::Greater,
    Operator::MaskedEqual,
];

const ACTIONS: [(Action, Option<u32>); 10] = [
    (Action::Kill, None),
    (Action::KillProcess, None),
    (Action::KillThread, None),
    (Action::Trap, None),
    (Action::Errno, None),
    (Action::Errno, Some(38)),
    (Action::Errno, Some(0)),
    (Action::Trace, Some(0x1234)),
    (Action::Allow, None),
    (Action::Log, None),
];

const NAMES: [&str; 26] = [
    "read",
    "write",
    "open",
    "openat",
    "close",
    "socket",
    "connect",
    "sendto",
    "sendmmsg",
    "socketcall",
    "semop",
    "shmat",
    "shmctl",
    "ipc",
    "clone",
    "clone3",
    "personality",
    "mseal",
    "set_tls",
    "cacheflush",
    "ioctl",
    "execve",
    "exit",
    "no_such_call",
    "file_setattr",
    "arch_prctl",
];

fn random_profile(random: &mut Random) -> Seccomp {
    let (default_action, default_errno_ret) = random.pick(&ACTIONS);
    let rules = random.below(25);
    let mut syscalls: Vec<Rule> = (0..rules)
        .map(|_| {
            let (action, errno_ret) = random.pick(&ACTIONS);
            let names = (0..1 + random.below(4)).map(|_| random.pick(&NAMES).to_string()).collect();
            let args = (0..[0, 0, 1, 1, 2, 3][random.below(6)])
                .map(|_| Arg {
                    index: random.below(6) as u32,
                    value: random.value(),
                    value_two: random.value(),
                    op: random.pick(&OPERATORS),
                })
                .collect();
            Rule { names, action, errno_ret, args }
        })
        .collect();
    if random.below(4) == 0 {
        syscalls.push(notify_rule());
    }
    let architectures = (0..random.below(5)).map(|_| random.pick(&ALL_ARCHES)).collect();
    Seccomp {
        default_action,
        default_errno_ret,
        architectures,
        flags: None,
        listener_path: "/run/listener".to_string(),
        listener_metadata: String::new(),
        syscalls,
    }
}

fn notify_rule() -> Rule {
    Rule { names: vec!["mount".to_string()], action: Action::Notify, errno_ret: None, args: Vec::new() }
}

/// Call numbers worth asking: those of the names, their neighbours, the ends of the ranges.
fn numbers_of(arch: Arch, random: &mut Random) -> Vec<u32> {
    let x32 = 0x4000_0000;
    let base = if arch == Arch::X32 { x32 } else { 0 };
    let mut numbers = vec![
        base,
        base + 1,
        base + 462,
        base + 463,
        base + 600,
        base + 5000,
        0x0f_0000,
        0x0f_0001,
        0x0f_0009,
    ];
    for name in NAMES.iter().chain(&["mount"]) {
        if let Some(number) = Name::find(name).and_then(|name| arch.number(name)) {
            numbers.extend([number.saturating_sub(1), number, number + 1]);
        }
        numbers.extend(arch.private_number(name));
    }
    numbers.push(base + random.below(7000) as u32);
    if !matches!(arch, Arch::X86_64 | Arch::X32) {
        numbers.extend([x32, 0x8000_0000, u32::MAX]);
    }
    // The bit makes it a call of the other ABI.
    numbers.retain(|number| !matches!(arch, Arch::X86_64 | Arch::X32) || number & x32 == base);
    numbers
}

fn compare(profile: &Seccomp, native: Arch, random: &mut Random) {
    let filter = compile_for(profile, native).unwrap_or_else(|error| panic!("{profile:?}: {error:?}"));
    let mut values: Vec<u64> = vec![0, u64::MAX];
    for arg in profile.syscalls.iter().flat_map(|rule| &rule.args) {
        values.extend([
            arg.value,
            arg.value.wrapping_add(1),
            arg.value.wrapping_sub(1),
            arg.value_two,
            arg.value ^ (1 << 40),
        ]);
    }
    for arch in ALL_ARCHES {
        let covered = arch == native || profile.architectures.contains(&arch);
        let shares_audit =
            |other: &Arch| matches!((arch, other), (Arch::X32, Arch::X86_64) | (Arch::X86_64, Arch::X32));
        let kills = !covered;
        if kills && (shares_audit(&native) || profile.architectures.iter().any(shares_audit)) {
            continue; // has its own test
        }
        for number in numbers_of(arch, random) {
            for _ in 0..3 {
                let narrow = arch == Arch::X86 || arch == Arch::Arm;
                let mut args = [0; 6];
                args.fill_with(|| random.pick(&values) & if narrow { 0xffff_ffff } else { u64::MAX });
                let call = Call { arch: arch.audit(), number, args, little_endian: arch.is_little_endian() };
                let (got, _) = run(&filter.program, &call);
                let want = if kills { 0 } else { expected(profile, arch, number, &args) };
                assert_eq!(
                    got, want,
                    "{got:#x}, not {want:#x}: {arch:?} {number} {args:x?} under {profile:?}"
                );
            }
        }
    }
}

#[test]
fn random_profiles_mean_what_their_rules_say() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..150 {
        let profile = random_profile(&mut random);
        let native = random.pick(&ALL_ARCHES);
        compare(&profile, native, &mut random);
    }
}

/// A profile of the size of docker's: nearly everything allowed by name, some calls by argument.
fn large_profile() -> Seccomp {
    let mut random = Random(7);
    let mut names: Vec<String> = Vec::new();
    for place in super::tables::NAME_ENDS.windows(2) {
        if random.below(8) != 0 {
            names.push(super::tables::NAMES[usize::from(place[0])..usize::from(place[1])].to_string());
        }
    }
    let conditional = |name: &str, op, value| Rule {
        names: vec![name.to_string()],
        action: Action::Allow,
        errno_ret: None,
        args: vec![Arg { index: 0, value, value_two: 0, op }],
    };
    let removed = ["personality", "clone", "socket"];
    names.retain(|name| !removed.contains(&name.as_str()));
    Seccomp {
        default_action: Action::Errno,
        default_errno_ret: Some(1),
        architectures: vec![Arch::X86_64, Arch::X86, Arch::X32],
        flags: None,
        listener_path: String::new(),
        listener_metadata: String::new(),
        syscalls: vec![
            Rule { names, action: Action::Allow, errno_ret: None, args: Vec::new() },
            conditional("personality", Operator::Equal, 0),
            conditional("personality", Operator::Equal, 8),
            conditional("personality", Operator::Equal, 0xffff_ffff),
            conditional("clone", Operator::MaskedEqual, 0x7e02_0000),
            conditional("socket", Operator::NotEqual, 40),
        ],
    }
}

#[test]
fn a_large_profile_means_what_it_says_and_is_searched_in_few_steps() {
    let profile = large_profile();
    compare(&profile, Arch::X86_64, &mut Random(3));
    let filter = compile_for(&profile, Arch::X86_64).unwrap();
    println!("{} instructions", filter.program.len());
    assert!(filter.program.len() < 1000, "{}", filter.program.len());
    let steps = |number: u32| {
        run(&filter.program, &Call { arch: Arch::X86_64.audit(), number, args: [0; 6], little_endian: true })
            .1
    };
    let most = (0..470).map(steps).max().unwrap();
    // Loads and the architecture take 4; a search among some 130 spans takes 8 when balanced.
    assert!(most <= 4 + 8 + 4, "{most}");
    assert!(steps(0) <= 10, "read: {}", steps(0));
}

/// With every architecture of the spec in one profile.
#[test]
fn all_architectures_fit_into_one_filter() {
    let mut profile = large_profile();
    profile.architectures = ALL_ARCHES.to_vec();
    compare(&profile, Arch::X86_64, &mut Random(5));
}

fn allow_list(names: &[&str], architectures: &[Arch]) -> Seccomp {
    Seccomp {
        default_action: Action::Errno,
        default_errno_ret: None,
        architectures: architectures.to_vec(),
        flags: None,
        listener_path: String::new(),
        listener_metadata: String::new(),
        syscalls: vec![Rule {
            names: names.iter().map(|name| name.to_string()).collect(),
            action: Action::Allow,
            errno_ret: None,
            args: Vec::new(),
        }],
    }
}

fn answer(profile: &Seccomp, audit: u32, number: u32) -> u32 {
    let filter = compile_for(profile, Arch::X86_64).unwrap();
    run(&filter.program, &Call { arch: audit, number, args: [0; 6], little_endian: true }).0
}

const ERRNO: u32 = 0x0005_0000;
const ALLOW: u32 = 0x7fff_0000;

/// x32 calls of a filter without x32 kill the thread, but -1 is a tracer's skipped call.
#[test]
fn x32_is_foreign_unless_it_is_asked_for() {
    let audit = Arch::X86_64.audit();
    let profile = allow_list(&["read", "openat"], &[Arch::X86_64]);
    assert_eq!(answer(&profile, audit, 0), ALLOW);
    assert_eq!(answer(&profile, audit, 1), ERRNO + 1);
    assert_eq!(answer(&profile, audit, 0x4000_0000), 0);
    assert_eq!(answer(&profile, audit, 0x8000_0000), ERRNO + 38);
    assert_eq!(answer(&profile, audit, 0xc000_0000), 0);
    assert_eq!(answer(&profile, audit, u32::MAX), ERRNO + 1);
    assert_eq!(answer(&profile, Arch::X86.audit(), 3), 0, "an architecture that isn't listed");
    let profile = allow_list(&["read", "openat"], &[Arch::X32]);
    assert_eq!(answer(&profile, audit, 0), ALLOW, "the native one is always in");
    assert_eq!(answer(&profile, audit, 0x4000_0000), ALLOW);
    assert_eq!(answer(&profile, audit, 0x4000_0001), ERRNO + 1);
    assert_eq!(answer(&profile, audit, 0x4000_0000 + 400), ERRNO + 38);
}

/// runc #2151: a call younger than the profile gets ENOSYS, one that the profile could know gets the default.
#[test]
fn calls_younger_than_the_profile_get_enosys() {
    let audit = Arch::X86_64.audit();
    let profile = allow_list(&["read", "openat", "clone3"], &[]);
    assert_eq!(answer(&profile, audit, 434), ERRNO + 1);
    assert_eq!(answer(&profile, audit, 435), ALLOW);
    assert_eq!(answer(&profile, audit, 436), ERRNO + 38);
    assert_eq!(answer(&profile, audit, 1000), ERRNO + 38);
    let mut permissive = profile;
    permissive.default_action = Action::Log;
    assert_eq!(answer(&permissive, audit, 1000), 0x7ffc_0000);
}

#[test]
fn what_the_spec_forbids_is_an_error_at_its_field() {
    let good = allow_list(&["read"], &[]);
    let message = |change: &dyn Fn(&mut Seccomp)| {
        let mut profile = good.clone();
        change(&mut profile);
        compile_for(&profile, Arch::X86_64).map(|_| String::new()).unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(message(&|_| ()), "");
    for (field, change) in [
        (
            "linux.seccomp.defaultAction",
            &(|profile: &mut Seccomp| profile.default_action = Action::Notify) as &dyn Fn(&mut Seccomp),
        ),
        ("linux.seccomp.defaultErrnoRet", &|profile| profile.default_errno_ret = Some(4096)),
        ("linux.seccomp.syscalls[0].errnoRet", &|profile| profile.syscalls[0].errno_ret = Some(1)),
        ("linux.seccomp.syscalls[0].names[1]", &|profile| profile.syscalls[0].names.push(String::new())),
        ("linux.seccomp.listenerPath", &|profile| profile.syscalls.push(notify_rule())),
        ("linux.seccomp.listenerMetadata", &|profile| profile.listener_metadata = "x".to_string()),
        ("linux.seccomp.syscalls[1].action", &|profile| {
            profile.listener_path = "/run/s".to_string();
            profile.syscalls.push(Rule { names: vec!["write".to_string()], ..notify_rule() });
        }),
        ("linux.seccomp.syscalls[0].args[0].index", &|profile| {
            profile.syscalls[0].args = vec![Arg { index: 6, value: 0, value_two: 0, op: Operator::Equal }];
        }),
    ] {
        let message = message(change);
        assert!(message.contains(field), "{field}: {message}");
    }
}

#[test]
fn flags_are_as_runc_sets_them() {
    use crate::oci::spec::seccomp::Flag;
    let flags = |flags: Option<Vec<Flag>>, listens: bool| {
        let mut profile = allow_list(&["read"], &[]);
        profile.flags = flags;
        if listens {
            profile.listener_path = "/run/s".to_string();
            profile.syscalls.push(notify_rule());
        }
        let filter = compile_for(&profile, Arch::X86_64).unwrap();
        assert_eq!(filter.has_listener(), listens);
        filter.flags()
    };
    assert_eq!(flags(None, false), 4);
    assert_eq!(flags(Some(vec![]), false), 0);
    assert_eq!(flags(Some(vec![Flag::Tsync, Flag::Log]), false), 2);
    assert_eq!(flags(Some(vec![Flag::WaitKillableRecv]), false), 0);
    assert_eq!(flags(Some(vec![Flag::WaitKillableRecv, Flag::SpecAllow]), true), 8 | 32 | 4);
}

#[test]
fn unknown_names_are_left_out() {
    let profile = allow_list(&["read", "no_such_call", "set_tls"], &[]);
    assert_eq!(compile_for(&profile, Arch::X86_64).unwrap().unknown_names(), ["no_such_call"]);
}
