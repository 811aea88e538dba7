//! Sections -> classic BPF.
//!
//! In: the verdict of every call number. Out: instructions that the kernel takes (linux/filter.h, seccomp(2)).
//! Must never: jump backwards, which classic BPF lacks; so the program is written from its end, and a jump's target
//! is there before the jump.
//!
//! The instructions stay within those that the kernel can follow when it works out which calls are always allowed
//! (seccomp_is_const_allow): such calls then cost nothing.

use std::collections::BTreeMap;

use super::arch::Abi;
use super::rules::Section;
use super::rules::Span;
use super::rules::Verdict;
use super::rules::ret;
use spec::seccomp::Arg;
use spec::seccomp::Operator;
use sys::seccomp::Instruction;

/// Most instructions that the kernel takes (BPF_MAXINSNS).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Operations of classic BPF (linux/bpf_common.h), as the whole `code`.
pub mod op {
    #![allow(missing_docs)] // the assembler's names
    pub const LOAD: u16 = 0x20;
    pub const JUMP: u16 = 0x05;
    pub const JUMP_EQUAL: u16 = 0x15;
    pub const JUMP_GREATER: u16 = 0x25;
    pub const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
    pub const AND: u16 = 0x54;
    pub const RETURN: u16 = 0x06;
}

/// Offsets in `struct seccomp_data`.
pub const OFFSET_NUMBER: u32 = 0;
/// See `OFFSET_NUMBER`.
pub const OFFSET_ARCH: u32 = 4;
/// See `OFFSET_NUMBER`.
pub const OFFSET_ARGS: u32 = 16;

/// Where control goes on: an end, or an instruction written already, as its distance from the program's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Return(u32),
    Label(usize),
}

/// The program from its end: the last instruction comes first.
#[derive(Default)]
struct Assembler {
    reversed: Vec<Instruction>,
    /// The latest place of each return.
    returns: BTreeMap<u32, usize>,
}

/// How the arguments of the calls at hand lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Words {
    little_endian: bool,
    wide: bool,
}

/// The whole program for `sections`; a call from any other architecture kills its thread, as libseccomp has it.
pub fn assemble(sections: &[Section]) -> Vec<Instruction> {
    let mut assembler = Assembler::default();
    let mut next = Target::Return(ret::KILL_THREAD);
    let mut heads = Vec::new();
    for section in sections.iter().rev() {
        let body = assembler.section(section);
        let head = assembler.plain(op::LOAD, OFFSET_NUMBER, body);
        heads.push((section.arch.audit(), head));
    }
    for (audit, head) in heads {
        next = assembler.branch(op::JUMP_EQUAL, audit, head, next);
    }
    assembler.plain(op::LOAD, OFFSET_ARCH, next);
    assembler.reversed.reverse();
    assembler.reversed
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Target {
        self.reversed.push(Instruction { code, jt, jf, k });
        Target::Label(self.reversed.len() - 1)
    }

    /// An instruction that goes on at `next`.
    fn plain(&mut self, code: u16, k: u32, next: Target) -> Target {
        if self.distance(next) != Some(0) {
            match next {
                Target::Return(value) => self.end(value),
                Target::Label(label) => self.jump(label),
            };
        }
        self.push(code, 0, 0, k)
    }

    fn end(&mut self, value: u32) -> Target {
        self.returns.insert(value, self.reversed.len());
        self.push(op::RETURN, 0, 0, value)
    }

    fn jump(&mut self, label: usize) -> Target {
        let skip = u32::try_from(self.reversed.len() - 1 - label).unwrap_or(u32::MAX);
        self.push(op::JUMP, 0, 0, skip)
    }

    /// Instructions that a jump written now would skip; none: the return isn't there yet.
    fn distance(&self, target: Target) -> Option<usize> {
        let label = match target {
            Target::Label(label) => label,
            Target::Return(value) => *self.returns.get(&value)?,
        };
        Some(self.reversed.len() - 1 - label)
    }

    /// The skip to `target`, or none after writing a nearer way there (so that other skips have grown by one).
    fn reach(&mut self, target: &mut Target) -> Option<u8> {
        if let Some(skip) = self.distance(*target).and_then(|distance| u8::try_from(distance).ok()) {
            return Some(skip);
        }
        match *target {
            Target::Return(value) => *target = self.end(value),
            Target::Label(label) => *target = self.jump(label),
        }
        None
    }

    /// A comparison of the accumulator with `k`.
    fn branch(&mut self, code: u16, k: u32, mut yes: Target, mut no: Target) -> Target {
        if yes == no {
            return yes;
        }
        // Each turn brings one target next to here, so this ends after a few.
        loop {
            if let Some(jt) = self.reach(&mut yes)
                && let Some(jf) = self.reach(&mut no)
            {
                return self.push(code, jt, jf, k);
            }
        }
    }

    fn section(&mut self, section: &Section) -> Target {
        let mut written: BTreeMap<(Words, &Verdict), Target> = BTreeMap::new();
        let targets: Vec<Target> = section
            .spans
            .iter()
            .map(|span| {
                let narrow = section.x32 && span.start >= super::arch::X32_BIT;
                let words = Words {
                    little_endian: section.arch.is_little_endian(),
                    wide: section.arch.has_wide_arguments() && !narrow,
                };
                match &span.verdict {
                    Verdict::Return(value) => Target::Return(*value),
                    Verdict::Rules { rules, otherwise } => *written
                        .entry((words, &span.verdict))
                        .or_insert_with(|| self.rules(words, rules, Target::Return(*otherwise))),
                }
            })
            .collect();
        self.search(&section.spans, &targets)
    }

    /// A search for the call number among `spans`, which is halved by weight: frequent spans take fewer steps.
    fn search(&mut self, spans: &[Span], targets: &[Target]) -> Target {
        match targets {
            [] => Target::Return(ret::KILL_THREAD),
            [only] => *only,
            // One number that differs from all around it.
            [before, at, after]
                if before == after && spans[1].start.checked_add(1) == Some(spans[2].start) =>
            {
                self.branch(op::JUMP_EQUAL, spans[1].start, *at, *after)
            }
            _ => {
                let middle = middle_by_weight(spans);
                let low = self.search(&spans[..middle], &targets[..middle]);
                let high = self.search(&spans[middle..], &targets[middle..]);
                self.branch(op::JUMP_GREATER_OR_EQUAL, spans[middle].start, high, low)
            }
        }
    }

    fn rules(&mut self, words: Words, rules: &[(Vec<Arg>, u32)], otherwise: Target) -> Target {
        let mut next = otherwise;
        for (conditions, value) in rules.iter().rev() {
            let mut hold = Target::Return(*value);
            for condition in conditions.iter().rev() {
                hold = self.condition(words, condition, hold, next);
            }
            next = hold;
        }
        next
    }

    /// Compares a 64-bit argument as two words, all unsigned.
    fn condition(&mut self, words: Words, arg: &Arg, yes: Target, no: Target) -> Target {
        match arg.op {
            Operator::NotEqual => self.masked(words, arg.index, u64::MAX, arg.value, no, yes),
            Operator::Equal => self.masked(words, arg.index, u64::MAX, arg.value, yes, no),
            Operator::MaskedEqual => self.masked(words, arg.index, arg.value, arg.value_two, yes, no),
            Operator::Greater => self.ordered(words, arg, op::JUMP_GREATER, yes, no),
            Operator::GreaterOrEqual => self.ordered(words, arg, op::JUMP_GREATER_OR_EQUAL, yes, no),
            Operator::Less => self.ordered(words, arg, op::JUMP_GREATER_OR_EQUAL, no, yes),
            Operator::LessOrEqual => self.ordered(words, arg, op::JUMP_GREATER, no, yes),
        }
    }

    fn masked(&mut self, words: Words, index: u32, mask: u64, value: u64, yes: Target, no: Target) -> Target {
        let mut next = yes;
        for upper in [false, true] {
            let (mask, value) = (half(mask, upper), half(value, upper));
            if mask == 0 || (upper && !words.wide) {
                continue;
            }
            next = self.branch(op::JUMP_EQUAL, value & mask, next, no);
            if mask != u32::MAX {
                next = self.plain(op::AND, mask, next);
            }
            next = self.plain(op::LOAD, word_offset(words, index, upper), next);
        }
        next
    }

    fn ordered(&mut self, words: Words, arg: &Arg, lower_op: u16, yes: Target, no: Target) -> Target {
        let lower = self.branch(lower_op, half(arg.value, false), yes, no);
        let lower = self.plain(op::LOAD, word_offset(words, arg.index, false), lower);
        if !words.wide {
            return lower;
        }
        let upper = half(arg.value, true);
        let equal = self.branch(op::JUMP_EQUAL, upper, lower, no);
        let greater = self.branch(op::JUMP_GREATER, upper, yes, equal);
        self.plain(op::LOAD, word_offset(words, arg.index, true), greater)
    }
}

fn half(value: u64, upper: bool) -> u32 {
    if upper { (value >> 32) as u32 } else { (value & 0xffff_ffff) as u32 }
}

fn word_offset(words: Words, index: u32, upper: bool) -> u32 {
    OFFSET_ARGS + 8 * index + if upper == words.little_endian { 4 } else { 0 }
}

/// The first span of the upper half, at least one span on each side.
fn middle_by_weight(spans: &[Span]) -> usize {
    let total: u32 = spans.iter().map(|span| span.weight).sum();
    let mut below = 0;
    for (at, span) in spans.iter().enumerate() {
        // Where this span reaches over the middle, it goes to the side on which more of it lies.
        if at > 0 && below + span.weight / 2 >= total / 2 {
            return at;
        }
        below += span.weight;
    }
    spans.len() - 1
}
