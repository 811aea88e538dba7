//! Rules by name -> one verdict for every call number of an ABI.
//!
//! In: the `seccomp` section, an ABI. Out: `Span`s that cover all 2^32 numbers in order, with the verdict of each.
//! Must never: know of instructions.
//!
//! Where rules overlap, what runc does (through libseccomp) holds: a rule whose verdict is the default one is dropped;
//! the first rule without conditions decides for its call whatever else is said of it; else conditional rules are
//! tried in order. One rule with two conditions on the same argument stands for two rules.

use std::collections::BTreeMap;

use super::arch::ARM_PRIVATE;
use super::arch::Name;
use super::arch::X32_BIT;
use crate::oci::spec::seccomp::Action;
use crate::oci::spec::seccomp::Arch;
use crate::oci::spec::seccomp::Arg;
use crate::oci::spec::seccomp::Operator;
use crate::oci::spec::seccomp::Seccomp;

/// The values of SECCOMP_RET_* (linux/seccomp.h).
pub mod ret {
    #![allow(missing_docs)] // the kernel's names
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0;
    pub const TRAP: u32 = 0x0003_0000;
    pub const ERRNO: u32 = 0x0005_0000;
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
}

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// What is returned for a call: always the same, or by its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The filter's return value.
    Return(u32),
    /// The first rule that matches, else `otherwise`.
    Rules {
        /// Conditions that all hold, and the return value then.
        rules: Vec<(Vec<Arg>, u32)>,
        /// The return value when none matches.
        otherwise: u32,
    },
}

/// The verdict from `start` up to the next span's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// First call number.
    pub start: u32,
    /// What holds there.
    pub verdict: Verdict,
    /// How often such calls are made, roughly: 1 for a span without frequent calls.
    pub weight: u32,
}

/// All numbers of one `seccomp_data.arch`.
#[derive(Debug)]
pub struct Section {
    /// One ABI that has this value; it says how words lie.
    pub arch: Arch,
    /// The spans, the first at 0.
    pub spans: Vec<Span>,
    /// Whether arguments of calls with `X32_BIT` are narrow although `arch` is wide.
    pub x32: bool,
}

/// Calls that programs make most; their spans come early in the search.
const FREQUENT: [&str; 24] = [
    "read",
    "write",
    "futex",
    "close",
    "openat",
    "mmap",
    "munmap",
    "mprotect",
    "brk",
    "fstat",
    "newfstatat",
    "lseek",
    "pread64",
    "epoll_wait",
    "epoll_pwait",
    "poll",
    "ppoll",
    "sendto",
    "recvfrom",
    "recvmsg",
    "sendmsg",
    "writev",
    "rt_sigprocmask",
    "clock_gettime",
];
const FREQUENT_WEIGHT: u32 = 8;

/// The filter's return value for an action.
pub fn return_value(action: Action, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(EPERM) & 0xffff;
    match action {
        Action::Kill | Action::KillThread => ret::KILL_THREAD,
        Action::KillProcess => ret::KILL_PROCESS,
        Action::Trap => ret::TRAP,
        Action::Errno => ret::ERRNO | data,
        Action::Trace => ret::TRACE | data,
        Action::Allow => ret::ALLOW,
        Action::Log => ret::LOG,
        Action::Notify => ret::USER_NOTIF,
    }
}

/// What is said of one call, in the order of the rules.
#[derive(Default)]
struct Said {
    /// The first rule without conditions.
    always: Option<u32>,
    conditional: Vec<(Vec<Arg>, u32)>,
    frequent: bool,
}

/// The sections for `architectures` (native first), those that share a `seccomp_data.arch` in one.
pub fn sections(seccomp: &Seccomp, architectures: &[Arch]) -> Vec<Section> {
    let default = return_value(seccomp.default_action, seccomp.default_errno_ret);
    let mut sections: Vec<Section> = Vec::new();
    for &arch in architectures {
        if matches!(arch, Arch::X32 | Arch::X86_64) {
            if sections.iter().any(|section| section.arch == Arch::X86_64) {
                continue;
            }
            let x86_64 = architectures.contains(&Arch::X86_64);
            let x32 = architectures.contains(&Arch::X32);
            let spans = merge(spans_of_x86_64(seccomp, default, x86_64, x32));
            sections.push(Section { arch: Arch::X86_64, spans, x32 });
        } else {
            let spans = merge(spans_of(seccomp, arch, default));
            sections.push(Section { arch, spans, x32: false });
        }
    }
    sections
}

/// The two ABIs behind one `seccomp_data.arch`: a bit of the number tells them apart.
fn spans_of_x86_64(seccomp: &Seccomp, default: u32, x86_64: bool, x32: bool) -> Vec<Span> {
    let foreign = Verdict::Return(ret::KILL_THREAD);
    let mut spans = Vec::new();
    let mut beyond = foreign.clone();
    if x86_64 {
        spans = spans_of(seccomp, Arch::X86_64, default);
        spans.retain(|span| span.start < X32_BIT);
        beyond = match spans.last() {
            Some(Span { verdict, .. }) if *verdict == Verdict::Return(ret::ERRNO | ENOSYS) => verdict.clone(),
            _ => beyond,
        };
    } else {
        spans.push(Span { start: 0, verdict: foreign.clone(), weight: 1 });
    }
    if x32 {
        spans.extend(spans_of(seccomp, Arch::X32, default).into_iter().filter(|span| span.start >= X32_BIT));
        return spans;
    }
    // Numbers with the bit are x32's. -1 isn't: a tracer sets it to skip a call, so it gets no harder verdict than
    // the default. Between 2^31 and 2^31 + 2^30 the bit is clear again.
    spans.push(Span { start: X32_BIT, verdict: foreign.clone(), weight: 1 });
    spans.push(Span { start: 0x8000_0000, verdict: beyond, weight: 1 });
    spans.push(Span { start: 0xc000_0000, verdict: foreign, weight: 1 });
    spans.push(Span { start: u32::MAX, verdict: Verdict::Return(default), weight: 1 });
    spans
}

/// Whether a default action keeps calls from being made, so that unknown calls need ENOSYS instead. A tracer is
/// expected to know new calls itself.
fn denies(default: u32) -> bool {
    !matches!(default & 0xffff_0000, ret::ALLOW | ret::LOG | ret::TRACE)
}

fn spans_of(seccomp: &Seccomp, arch: Arch, default: u32) -> Vec<Span> {
    let (said, highest) = collect(seccomp, arch, default);
    let base = if arch == Arch::X32 { X32_BIT } else { 0 };
    let mut spans = vec![Span { start: base, verdict: Verdict::Return(default), weight: 1 }];
    // A call's span ends where the next begins: put the default behind each.
    let mut next_free = base;
    for (number, said) in said {
        if number > next_free {
            spans.push(Span { start: next_free, verdict: Verdict::Return(default), weight: 1 });
        }
        let weight = if said.frequent { FREQUENT_WEIGHT } else { 1 };
        spans.push(Span { start: number, verdict: verdict(said, default), weight });
        next_free = number.saturating_add(1);
    }
    spans.push(Span { start: next_free, verdict: Verdict::Return(default), weight: 1 });
    if denies(default) {
        answer_unknown(&mut spans, arch, highest, default);
    }
    spans
}

fn verdict(said: Said, default: u32) -> Verdict {
    match said.always {
        Some(value) => Verdict::Return(value),
        None if said.conditional.is_empty() => Verdict::Return(default),
        None => Verdict::Rules { rules: said.conditional, otherwise: default },
    }
}

/// Calls above the highest that the rules name are younger than the profile: a C library falls back on ENOSYS
/// but not on EPERM. s390 shows an unknown call as number 0, which nothing else uses.
fn answer_unknown(spans: &mut Vec<Span>, arch: Arch, highest: Option<u32>, default: u32) {
    let Some(highest) = highest else { return };
    let enosys = Verdict::Return(ret::ERRNO | ENOSYS);
    if matches!(arch, Arch::S390 | Arch::S390x)
        && let Some(at_one) = spans.iter().rposition(|span| span.start <= 1)
    {
        let behind = Span { start: 1, ..spans[at_one].clone() };
        spans.splice(..=at_one, [Span { start: 0, verdict: enosys.clone(), weight: 1 }, behind]);
    }
    let Some(first_unknown) = highest.checked_add(1) else { return };
    let mut private = Vec::new();
    if arch == Arch::Arm {
        private.push(Span { start: ARM_PRIVATE, verdict: Verdict::Return(default), weight: 1 });
        private.extend(spans.iter().filter(|span| span.start >= ARM_PRIVATE).cloned());
    }
    spans.retain(|span| span.start < first_unknown);
    spans.push(Span { start: first_unknown, verdict: enosys, weight: 1 });
    spans.extend(private);
}

/// What the rules say of each call of an ABI, and the highest number of its table that they name, whatever the verdict.
fn collect(seccomp: &Seccomp, arch: Arch, default: u32) -> (BTreeMap<u32, Said>, Option<u32>) {
    let mut said: BTreeMap<u32, Said> = BTreeMap::new();
    let mut highest = None;
    for rule in &seccomp.syscalls {
        let value = return_value(rule.action, rule.errno_ret);
        for name in &rule.names {
            let number = Name::find(name).and_then(|name| arch.number(name));
            highest = highest.max(number);
            if value == default {
                continue;
            }
            let frequent = FREQUENT.contains(&name.as_str());
            for number in number.into_iter().chain(arch.private_number(name)) {
                let entry = said.entry(number).or_default();
                entry.frequent |= frequent;
                entry.add(&rule.args, value);
            }
            if let Some((number, selector)) = multiplexed(arch, name) {
                said.entry(number).or_default().add(&[selector], value);
            }
        }
    }
    (said, highest)
}

impl Said {
    fn add(&mut self, args: &[Arg], value: u32) {
        if self.always.is_some() {
            return;
        }
        if args.is_empty() {
            self.always = Some(value);
            return;
        }
        let repeated = (1..args.len()).any(|at| args[..at].iter().any(|arg| arg.index == args[at].index));
        if repeated {
            self.conditional.extend(args.iter().map(|arg| (vec![*arg], value)));
        } else {
            self.conditional.push((args.to_vec(), value));
        }
    }
}

/// socketcall(2)'s first argument for each call, from 1.
const SOCKET_CALLS: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

/// ipc(2)'s first argument for each call.
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

/// The second way to some calls on older ABIs, so that a rule on the call holds there too. The call's own arguments
/// lie in memory there, where no filter sees them: a rule's conditions on them are not asked.
fn multiplexed(arch: Arch, name: &str) -> Option<(u32, Arg)> {
    let (door, selector, mask) = match SOCKET_CALLS.iter().position(|call| *call == name) {
        Some(place) => ("socketcall", place as u64 + 1, 0xffff_ffff),
        // The kernel takes the selector's upper half for a version.
        None => ("ipc", IPC_CALLS.iter().find(|(call, _)| *call == name)?.1, 0xffff),
    };
    let number = arch.number(Name::find(door)?)?;
    Some((number, Arg { index: 0, value: mask, value_two: selector, op: Operator::MaskedEqual }))
}

/// Joins neighbours with the same verdict, and drops spans that another of the same start replaces.
fn merge(spans: Vec<Span>) -> Vec<Span> {
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        if merged.last().is_some_and(|last| last.start == span.start) {
            merged.pop();
        }
        match merged.last_mut() {
            Some(last) if last.verdict == span.verdict => last.weight = last.weight.max(span.weight),
            _ => merged.push(span),
        }
    }
    merged
}
