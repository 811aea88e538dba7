//! The oracle's own profiles: at random, of docker's size, and written by hand.
//!
//! In: profiles. Out: verdicts on the compiler. Must never: be all there is; `runtime::fuzz` has a fuzzer ask too.

use super::*;

/// How many calls of an architecture a large profile is asked for: each costs a look at all its names.
const NUMBERS_MAX: usize = 60;

#[test]
fn random_profiles_mean_what_their_rules_say() {
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    for _ in 0..150 {
        let profile = profile(&mut random);
        let native = random.pick(&ALL_ARCHES);
        compare(&profile, native, &mut random, usize::MAX).unwrap();
    }
}

/// A profile of the size of docker's: nearly everything allowed by name, some calls by argument.
fn large_profile() -> Seccomp {
    let mut random = Random::new(7);
    let mut names: Vec<String> = Vec::new();
    for place in super::super::tables::NAME_ENDS.windows(2) {
        if random.below(8) != 0 {
            names.push(super::super::tables::NAMES[usize::from(place[0])..usize::from(place[1])].to_string());
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
    compare(&profile, Arch::X86_64, &mut Random::new(3), NUMBERS_MAX).unwrap();
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
    compare(&profile, Arch::X86_64, &mut Random::new(5), NUMBERS_MAX).unwrap();
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
    use spec::seccomp::Flag;
    let flags = |flags: Option<Vec<Flag>>, listens: bool| {
        let mut profile = allow_list(&["read"], &[]);
        profile.flags = flags;
        if listens {
            profile.listener_path = "/run/s".to_string();
            profile.syscalls.push(notify_rule());
        }
        let filter = compile_for(&profile, Arch::X86_64).unwrap();
        assert_eq!(filter.listener().is_some(), listens);
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
