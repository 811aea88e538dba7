//! The compiled filter against a plain reading of the rules.
//!
//! In: profiles, made at random, by a fuzzer or written by hand. Out: a panic that names the call and the arguments at
//! which the program's answer differs from what the rules say, for every architecture.
//! Must never: share code with the compiler but for the number tables; be in the shipped program.

#[cfg(test)]
mod tests;

use super::arch::Abi;
use super::arch::Name;
use super::compile_for;
use super::program::op;
use crate::report::Error;
use spec::seccomp::Action;
use spec::seccomp::Arch;
use spec::seccomp::Arg;
use spec::seccomp::Operator;
use spec::seccomp::Rule;
use spec::seccomp::Seccomp;
use sys::seccomp::Instruction;

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

/// A profile with each rule's names looked up once.
struct Reading<'a> {
    profile: &'a Seccomp,
    names: Vec<Vec<(&'a str, Option<Name>)>>,
    socketcall: Option<Name>,
    ipc: Option<Name>,
}

impl<'a> Reading<'a> {
    fn new(profile: &'a Seccomp) -> Reading<'a> {
        let names =
            |rule: &'a Rule| rule.names.iter().map(|text| (text.as_str(), Name::find(text))).collect();
        Reading {
            profile,
            names: profile.syscalls.iter().map(names).collect(),
            socketcall: Name::find("socketcall"),
            ipc: Name::find("ipc"),
        }
    }
}

/// What the rules say of a call of `arch`, one of the filter's architectures.
fn expected(reading: &Reading<'_>, arch: Arch, number: u32, args: &[u64; 6]) -> u32 {
    let profile = reading.profile;
    let default = action_value(profile.default_action, profile.default_errno_ret);
    let numbers = |name: Option<Name>| name.and_then(|name| arch.number(name));
    let all_names = || reading.names.iter().flatten().map(|(_, name)| *name);
    let denies = !matches!(profile.default_action, Action::Allow | Action::Log | Action::Trace);
    if let (true, Some(highest)) = (denies, all_names().filter_map(numbers).max()) {
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
    for (rule, names) in profile.syscalls.iter().zip(&reading.names) {
        let value = action_value(rule.action, rule.errno_ret);
        if value == default {
            continue;
        }
        for (text, name) in names {
            if numbers(*name) == Some(number) || arch.private_number(text) == Some(number) {
                if rule.args.is_empty() {
                    return value; // even behind conditional rules that match
                }
                let twice = (0..6).any(|index| rule.args.iter().filter(|arg| arg.index == index).count() > 1);
                let matched = if twice { rule.args.iter().any(holds) } else { rule.args.iter().all(holds) };
                if matched && conditional.is_none() {
                    conditional = Some(value);
                }
            }
            if let Some(true) = door(reading, arch, text, number, args)
                && conditional.is_none()
            {
                conditional = Some(value);
            }
        }
    }
    conditional.unwrap_or(default)
}

/// Whether `number` is socketcall or ipc, and its first argument selects the call `name`.
fn door(reading: &Reading<'_>, arch: Arch, name: &str, number: u32, args: &[u64; 6]) -> Option<bool> {
    let is = |door: Option<Name>| door.and_then(|door| arch.number(door)) == Some(number);
    let selects = |calls: &[(&str, u64)], mask: u64| {
        calls.iter().find(|(call, _)| *call == name).map(|(_, selector)| args[0] & mask == *selector)
    };
    if is(reading.socketcall) {
        return selects(&SOCKET_CALLS, 0xffff_ffff);
    }
    if is(reading.ipc) {
        return selects(&IPC_CALLS, 0xffff);
    }
    None
}

/// linux/net.h, in the order of numbers.
const SOCKET_CALLS: [(&str, u64); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// linux/ipc.h, in the order of numbers.
const IPC_CALLS: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// Where choices come from: random numbers, or a fuzzer's bytes.
pub trait Choices {
    /// Any number.
    fn next(&mut self) -> u64;

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of them; there is at least one.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Values at which comparisons of halves go wrong.
    fn value(&mut self) -> u64 {
        let half = [0, 1, 2, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];
        (self.pick(&half) << 32) | self.pick(&half)
    }
}

/// xorshift: the same choices on every run.
pub struct Random(u64);

impl Random {
    /// 0 is a seed that gives nothing but 0, so it becomes another.
    pub fn new(seed: u64) -> Random {
        Random(seed.max(1))
    }
}

impl Choices for Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// All ABIs of the specification.
pub const ALL_ARCHES: [Arch; 23] = [
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

/// A profile of the names, actions and values at hand.
pub fn profile(random: &mut impl Choices) -> Seccomp {
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
fn numbers_of(profile: &Seccomp, arch: Arch, random: &mut impl Choices) -> Vec<u32> {
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
    let own = profile.syscalls.iter().flat_map(|rule| &rule.names).map(String::as_str);
    for name in NAMES.into_iter().chain(["mount"]).chain(own) {
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

/// How many calls of an architecture that is not covered are asked for.
const KILLED_NUMBERS_MAX: usize = 4;

/// Asks the compiled profile and the rules the same questions, of each architecture `numbers_max` calls; panics where they answer differently.
///
/// # Errors
/// What keeps the profile from being compiled.
pub fn compare(
    profile: &Seccomp,
    native: Arch,
    random: &mut impl Choices,
    numbers_max: usize,
) -> Result<(), Error> {
    let filter = compile_for(profile, native)?;
    let reading = Reading::new(profile);
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
        let mut numbers = numbers_of(profile, arch, random);
        // Where the architecture alone decides, a few will do.
        let asked = if kills { numbers_max.min(KILLED_NUMBERS_MAX) } else { numbers_max };
        while numbers.len() > asked {
            numbers.swap_remove(random.below(numbers.len()));
        }
        for number in numbers {
            for _ in 0..3 {
                let narrow = arch == Arch::X86 || arch == Arch::Arm;
                let mut args = [0; 6];
                args.fill_with(|| random.pick(&values) & if narrow { 0xffff_ffff } else { u64::MAX });
                let call = Call { arch: arch.audit(), number, args, little_endian: arch.is_little_endian() };
                let (got, _) = run(&filter.program, &call);
                let want = if kills { 0 } else { expected(&reading, arch, number, &args) };
                assert_eq!(
                    got, want,
                    "{got:#x}, not {want:#x}: {arch:?} {number} {args:x?} under {profile:?}"
                );
            }
        }
    }
    Ok(())
}
