//! Rules by name -> one verdict for every call number of an ABI.
//!
//! In: the `seccomp` section, an ABI. Out: `Span`s that cover all 2^32 numbers in order, with the verdict of each.
//! Must never: know of instructions.
//!
//! Where rules overlap, what runc does (through libseccomp) holds: a rule whose verdict is the default one is dropped;
//! the first rule without conditions decides for its call whatever else is said of it; else conditional rules are
//! tried in order. One rule with two conditions on the same argument stands for two rules.

use super::arch::ARM_PRIVATE;
use super::arch::Abi;
use super::arch::Name;
use super::arch::X32_BIT;
use spec::seccomp::Action;
use spec::seccomp::Arch;
use spec::seccomp::Arg;
use spec::seccomp::Operator;
use spec::seccomp::Rule;
use spec::seccomp::Seccomp;

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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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

/// Calls that programs make most; their spans come early in the search. In byte order.
const FREQUENT: [&str; 24] = [
    "brk",
    "clock_gettime",
    "close",
    "epoll_pwait",
    "epoll_wait",
    "fstat",
    "futex",
    "lseek",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "openat",
    "poll",
    "ppoll",
    "pread64",
    "read",
    "recvfrom",
    "recvmsg",
    "rt_sigprocmask",
    "sendmsg",
    "sendto",
    "write",
    "writev",
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

/// What is said of one call.
#[derive(Default)]
struct Said {
    /// The first rule without conditions.
    always: Option<u32>,
    conditional: Vec<(Vec<Arg>, u32)>,
    frequent: bool,
}

/// One name of one rule, looked up once for all architectures.
struct Mention<'a> {
    rule: &'a Rule,
    value: u32,
    text: &'a str,
    name: Option<Name>,
    frequent: bool,
    /// The multiplexing call and what it gets, see `door_of`.
    door: Option<(Name, Arg)>,
}

/// A profile with its names looked up.
pub struct Mentions<'a> {
    default: u32,
    all: Vec<Mention<'a>>,
}

impl<'a> Mentions<'a> {
    /// Looks the names up.
    pub fn new(seccomp: &'a Seccomp) -> Mentions<'a> {
        let default = return_value(seccomp.default_action, seccomp.default_errno_ret);
        let mut all = Vec::new();
        for rule in &seccomp.syscalls {
            let value = return_value(rule.action, rule.errno_ret);
            all.extend(rule.names.iter().map(|text| Mention {
                rule,
                value,
                text,
                name: Name::find(text),
                frequent: FREQUENT.binary_search(&text.as_str()).is_ok(),
                door: door_of(text),
            }));
        }
        Mentions { default, all }
    }

    /// Names that no architecture has.
    pub fn unknown(&self) -> Vec<String> {
        let unknown = self
            .all
            .iter()
            .filter(|mention| mention.name.is_none() && Arch::Arm.private_number(mention.text).is_none());
        unknown.map(|mention| mention.text.to_string()).collect()
    }

    /// The sections for `architectures` (native first), those that share a `seccomp_data.arch` in one.
    pub fn sections(&self, architectures: &[Arch]) -> Vec<Section> {
        let mut sections: Vec<Section> = Vec::new();
        for &arch in architectures {
            if matches!(arch, Arch::X32 | Arch::X86_64) {
                if sections.iter().any(|section| section.arch == Arch::X86_64) {
                    continue;
                }
                let x86_64 = architectures.contains(&Arch::X86_64);
                let x32 = architectures.contains(&Arch::X32);
                let spans = merge(spans_of_x86_64(self, x86_64, x32));
                sections.push(Section { arch: Arch::X86_64, spans, x32 });
            } else {
                sections.push(Section { arch, spans: merge(spans_of(self, arch)), x32: false });
            }
        }
        sections
    }

    /// What the rules say of each call of an ABI, in the order of numbers, and the highest number of its table that
    /// they name, whatever the verdict.
    fn collect(&self, arch: Arch) -> (Vec<(u32, Said)>, Option<u32>) {
        // A number, the mention's place, and whether the call comes through its door.
        let mut found: Vec<(u32, usize, bool)> = Vec::with_capacity(self.all.len());
        let mut highest = None;
        for (at, mention) in self.all.iter().enumerate() {
            let number = mention.name.and_then(|name| arch.number(name));
            highest = highest.max(number);
            if mention.value == self.default {
                continue;
            }
            let direct = number.into_iter().chain(arch.private_number(mention.text));
            found.extend(direct.map(|number| (number, at, false)));
            let door = mention.door.and_then(|(door, _)| arch.number(door));
            found.extend(door.map(|number| (number, at, true)));
        }
        // By number, and within a call in the order of the rules.
        found.sort_unstable();
        let mut said: Vec<(u32, Said)> = Vec::with_capacity(found.len());
        for (number, at, through_door) in found {
            if said.last().is_none_or(|(last, _)| *last != number) {
                said.push((number, Said::default()));
            }
            let Some((_, entry)) = said.last_mut() else { continue };
            let mention = &self.all[at];
            match mention.door {
                Some((_, selector)) if through_door => entry.add(&[selector], mention.value),
                _ => {
                    entry.frequent |= mention.frequent;
                    entry.add(&mention.rule.args, mention.value);
                }
            }
        }
        (said, highest)
    }
}

/// The two ABIs behind one `seccomp_data.arch`: a bit of the number tells them apart.
fn spans_of_x86_64(mentions: &Mentions<'_>, x86_64: bool, x32: bool) -> Vec<Span> {
    let foreign = Verdict::Return(ret::KILL_THREAD);
    let mut spans = Vec::new();
    let mut beyond = foreign.clone();
    if x86_64 {
        spans = spans_of(mentions, Arch::X86_64);
        spans.retain(|span| span.start < X32_BIT);
        beyond = match spans.last() {
            Some(Span { verdict, .. }) if *verdict == Verdict::Return(ret::ERRNO | ENOSYS) => verdict.clone(),
            _ => beyond,
        };
    } else {
        spans.push(Span { start: 0, verdict: foreign.clone(), weight: 1 });
    }
    if x32 {
        spans.extend(spans_of(mentions, Arch::X32).into_iter().filter(|span| span.start >= X32_BIT));
        return spans;
    }
    // Numbers with the bit are x32's. -1 isn't: a tracer sets it to skip a call, so it gets no harder verdict than
    // the default. Between 2^31 and 2^31 + 2^30 the bit is clear again.
    spans.push(Span { start: X32_BIT, verdict: foreign.clone(), weight: 1 });
    spans.push(Span { start: 0x8000_0000, verdict: beyond, weight: 1 });
    spans.push(Span { start: 0xc000_0000, verdict: foreign, weight: 1 });
    spans.push(Span { start: u32::MAX, verdict: Verdict::Return(mentions.default), weight: 1 });
    spans
}

/// Whether a default action keeps calls from being made, so that unknown calls need ENOSYS instead. A tracer is
/// expected to know new calls itself.
fn denies(default: u32) -> bool {
    !matches!(default & 0xffff_0000, ret::ALLOW | ret::LOG | ret::TRACE)
}

fn spans_of(mentions: &Mentions<'_>, arch: Arch) -> Vec<Span> {
    let default = mentions.default;
    let (said, highest) = mentions.collect(arch);
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

/// A call that stands for many: its first argument selects which.
struct Door {
    name: &'static str,
    /// The part of the argument that selects.
    mask: u64,
}

const SOCKET: Door = Door { name: "socketcall", mask: 0xffff_ffff };
/// The kernel takes the argument's upper half for a version.
const IPC: Door = Door { name: "ipc", mask: 0xffff };

/// Calls behind a door and what selects them (linux/net.h, linux/ipc.h). In byte order.
#[rustfmt::skip]
const BEHIND_DOORS: [(&str, &Door, u64); 32] = [
    ("accept", &SOCKET, 5),
    ("accept4", &SOCKET, 18),
    ("bind", &SOCKET, 2),
    ("connect", &SOCKET, 3),
    ("getpeername", &SOCKET, 7),
    ("getsockname", &SOCKET, 6),
    ("getsockopt", &SOCKET, 15),
    ("listen", &SOCKET, 4),
    ("msgctl", &IPC, 14),
    ("msgget", &IPC, 13),
    ("msgrcv", &IPC, 12),
    ("msgsnd", &IPC, 11),
    ("recv", &SOCKET, 10),
    ("recvfrom", &SOCKET, 12),
    ("recvmmsg", &SOCKET, 19),
    ("recvmsg", &SOCKET, 17),
    ("semctl", &IPC, 3),
    ("semget", &IPC, 2),
    ("semop", &IPC, 1),
    ("semtimedop", &IPC, 4),
    ("send", &SOCKET, 9),
    ("sendmmsg", &SOCKET, 20),
    ("sendmsg", &SOCKET, 16),
    ("sendto", &SOCKET, 11),
    ("setsockopt", &SOCKET, 14),
    ("shmat", &IPC, 21),
    ("shmctl", &IPC, 24),
    ("shmdt", &IPC, 22),
    ("shmget", &IPC, 23),
    ("shutdown", &SOCKET, 13),
    ("socket", &SOCKET, 1),
    ("socketpair", &SOCKET, 8),
];

/// The second way to some calls on older ABIs, so that a rule on the call holds there too. The call's own arguments
/// lie in memory there, where no filter sees them: a rule's conditions on them are not asked.
fn door_of(call: &str) -> Option<(Name, Arg)> {
    let at = BEHIND_DOORS.binary_search_by(|(name, ..)| (*name).cmp(call)).ok()?;
    let (_, door, selector) = BEHIND_DOORS[at];
    let selects = Arg { index: 0, value: door.mask, value_two: selector, op: Operator::MaskedEqual };
    Some((Name::find(door.name)?, selects))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_calls_are_known_and_in_order() {
        assert!(FREQUENT.is_sorted());
        assert!(BEHIND_DOORS.is_sorted_by_key(|(name, ..)| name));
        for name in FREQUENT.into_iter().chain(BEHIND_DOORS.into_iter().map(|(name, ..)| name)) {
            assert!(Name::find(name).is_some(), "{name}");
        }
    }
}
