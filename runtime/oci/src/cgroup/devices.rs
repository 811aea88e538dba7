//! Device rules -> the eBPF program that the kernel asks at every access to a device node.
//!
//! In: `linux.resources.devices` and the rules for the devices that every container has. Out: instructions for
//! BPF_PROG_TYPE_CGROUP_DEVICE. Must never: load anything; `fs` does.
//!
//! For each kind of access asked for (read, write, mknod) the last rule that matches the device and names that kind
//! decides; where none does, access is denied. So a rule may take one device out of a range that an earlier one allows.

use crate::report::Error;
use spec::resources::DeviceKind;
use spec::resources::DeviceRule;
use sys::bpf::Instruction;

/// BPF_DEVCG_ACC_*: the kinds of access.
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;
/// BPF_DEVCG_DEV_*
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// Operations of eBPF that the program uses (linux/bpf.h), as the whole `code`.
mod op {
    /// dst = *(u32 *)(src + off)
    pub const LOAD: u8 = 0x61;
    /// dst &= imm
    pub const AND: u8 = 0x57;
    /// (u32) dst >>= imm
    pub const SHIFT_RIGHT: u8 = 0x74;
    /// (u32) dst = imm
    pub const MOVE: u8 = 0xb4;
    /// if dst == imm
    pub const IF_EQUAL: u8 = 0x15;
    /// if dst & imm
    pub const IF_ANY_BIT: u8 = 0x45;
    /// if (u32) dst != imm
    pub const IF_NOT_EQUAL: u8 = 0x56;
    /// return r0
    pub const EXIT: u8 = 0x95;
}

/// Registers: the kernel hands in the context in r1 and takes the verdict from r0.
const VERDICT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
/// The kinds of access that no rule has decided yet.
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// A rule with everything filled in. `None` stands for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: i32,
}

impl Rule {
    fn matches_everything(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }
}

/// Checks the rules and fills them in; `field` names the list in errors.
///
/// # Errors
/// A number or letter that is out of its range.
pub fn resolve(field: &str, rules: &[DeviceRule]) -> Result<Vec<Rule>, Error> {
    rules.iter().enumerate().map(|(at, rule)| resolve_rule(&format!("{field}[{at}]"), rule)).collect()
}

fn resolve_rule(field: &str, rule: &DeviceRule) -> Result<Rule, Error> {
    let number = |name: &str, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => match u32::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Error::spec(
                format!("{field}.{name}"),
                format!("{value}: expected a device number, or -1 for all"),
            )),
        },
    };
    let mut access = 0;
    for letter in rule.access.as_deref().unwrap_or("rwm").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            // runc passes over a letter that it does not know. What it may have meant to deny is denied.
            _ if !rule.allow => ALL,
            _ => {
                let given = rule.access.as_deref().unwrap_or_default();
                return Err(Error::spec(
                    format!("{field}.access"),
                    format!("{given:?}: expected letters of \"rwm\""),
                ));
            }
        };
    }
    let kind = match rule.kind {
        None | Some(DeviceKind::All) => None,
        Some(DeviceKind::Char) => Some(CHAR),
        Some(DeviceKind::Block) => Some(BLOCK),
    };
    Ok(Rule {
        allow: rule.allow,
        kind,
        major: number("major", rule.major)?,
        minor: number("minor", rule.minor)?,
        // An empty string names no access; runtimes have taken it for all.
        access: if access == 0 { ALL } else { access },
    })
}

/// The program for `rules`. None: everything is allowed, which needs none.
pub fn compile(rules: &[Rule]) -> Option<Vec<Instruction>> {
    let last = rules.last()?;
    if last.allow && last.matches_everything() {
        return None;
    }
    let mut program = vec![
        // struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor
        instruction(op::LOAD, TYPE, CONTEXT, 0, 0),
        instruction(op::AND, TYPE, 0, 0, 0xffff),
        instruction(op::LOAD, OPEN, CONTEXT, 0, 0),
        instruction(op::SHIFT_RIGHT, OPEN, 0, 0, 16),
        instruction(op::LOAD, MAJOR, CONTEXT, 4, 0),
        instruction(op::LOAD, MINOR, CONTEXT, 8, 0),
    ];
    let mut to_allow = vec![program.len()];
    // Nothing asked for, as by access(2) for existence.
    program.push(instruction(op::IF_EQUAL, OPEN, 0, 0, 0));
    let mut to_deny = Vec::new();
    for rule in rules.iter().rev() {
        let mut to_next = Vec::new();
        for (register, wanted) in [
            (TYPE, rule.kind),
            (MAJOR, rule.major.map(u32::cast_signed)),
            (MINOR, rule.minor.map(u32::cast_signed)),
        ] {
            if let Some(wanted) = wanted {
                to_next.push(program.len());
                program.push(instruction(op::IF_NOT_EQUAL, register, 0, 0, wanted));
            }
        }
        if rule.allow {
            program.push(instruction(op::AND, OPEN, 0, 0, ALL & !rule.access));
            to_allow.push(program.len());
            program.push(instruction(op::IF_EQUAL, OPEN, 0, 0, 0));
        } else {
            to_deny.push(program.len());
            program.push(instruction(op::IF_ANY_BIT, OPEN, 0, 0, rule.access));
        }
        land(&mut program, &to_next);
        if rule.matches_everything() {
            break;
        }
    }
    land(&mut program, &to_deny);
    program.push(instruction(op::MOVE, VERDICT, 0, 0, 0));
    program.push(instruction(op::EXIT, 0, 0, 0, 0));
    land(&mut program, &to_allow);
    program.push(instruction(op::MOVE, VERDICT, 0, 0, 1));
    program.push(instruction(op::EXIT, 0, 0, 0, 0));
    Some(program)
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction::new(code, destination, source, offset, immediate)
}

/// Lets the jumps at `from` go to the program's present end. A jump over more instructions than an offset holds
/// becomes one to itself, which the kernel refuses; `RULES_MAX` keeps that from happening.
fn land(program: &mut [Instruction], from: &[usize]) {
    let end = program.len();
    for &at in from {
        program[at].offset = i16::try_from(end - at - 1).unwrap_or(-1);
    }
}

/// Most rules: five instructions each stay well within a jump's reach.
pub const RULES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program of the operations above as the kernel does.
    fn allowed(program: &Option<Vec<Instruction>>, kind: i32, access: i32, major: u32, minor: u32) -> bool {
        let Some(program) = program else { return true };
        let context = [(access << 16 | kind) as u32, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        for _ in 0..program.len() {
            let step = program[at];
            let (destination, source) = (usize::from(step.registers & 15), usize::from(step.registers >> 4));
            at += 1;
            let jump = match step.code {
                op::LOAD => {
                    assert_eq!(source, 1);
                    registers[destination] = u64::from(context[step.offset as usize / 4]);
                    false
                }
                op::AND => {
                    registers[destination] &= i64::from(step.immediate) as u64;
                    false
                }
                op::SHIFT_RIGHT => {
                    registers[destination] = u64::from(registers[destination] as u32 >> step.immediate);
                    false
                }
                op::MOVE => {
                    registers[destination] = u64::from(step.immediate as u32);
                    false
                }
                op::IF_EQUAL => registers[destination] == i64::from(step.immediate) as u64,
                op::IF_ANY_BIT => registers[destination] & i64::from(step.immediate) as u64 != 0,
                op::IF_NOT_EQUAL => registers[destination] as u32 != step.immediate as u32,
                op::EXIT => return registers[0] != 0,
                other => panic!("operation {other:#x}"),
            };
            if jump {
                assert!(step.offset >= 0);
                at += step.offset as usize;
            }
        }
        panic!("no exit");
    }

    /// The rules read plainly, one kind of access at a time.
    fn expected(rules: &[Rule], kind: i32, access: i32, major: u32, minor: u32) -> bool {
        [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let deciding = rules.iter().rev().find(|rule| {
                rule.kind.is_none_or(|wanted| wanted == kind)
                    && rule.major.is_none_or(|wanted| wanted == major)
                    && rule.minor.is_none_or(|wanted| wanted == minor)
                    && rule.access & bit != 0
            });
            deciding.is_some_and(|rule| rule.allow)
        })
    }

    fn rules(json: &str) -> Vec<Rule> {
        resolve("linux.resources.devices", &serde_json::from_str::<Vec<DeviceRule>>(json).unwrap()).unwrap()
    }

    #[test]
    fn programs_mean_what_their_rules_say() {
        let mut state = 0x1234_5678_9abc_def1u64;
        let mut pick = move |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        let numbers = [0, 1, 5, 0x7fff_ffff, 0x8000_0000, u32::MAX];
        for _ in 0..2000 {
            let mut any = |from: &[u32]| {
                Some(pick(from.len() as u64 + 2) as usize).and_then(|at| from.get(at).copied())
            };
            let rules: Vec<Rule> = (0..any(&[0, 1, 2, 3, 6]).unwrap_or(4))
                .map(|_| Rule {
                    allow: any(&[0, 1]).is_some(),
                    kind: any(&[1, 2]).map(u32::cast_signed),
                    major: any(&numbers),
                    minor: any(&numbers),
                    access: any(&[1, 2, 3, 4, 5, 6]).unwrap_or(7).cast_signed(),
                })
                .collect();
            if rules.is_empty() {
                continue;
            }
            let program = compile(&rules);
            for kind in [BLOCK, CHAR] {
                for access in 0..=ALL {
                    for major in numbers {
                        for minor in [0, 5, u32::MAX] {
                            assert_eq!(
                                allowed(&program, kind, access, major, minor),
                                expected(&rules, kind, access, major, minor),
                                "{rules:?}: {kind} {access} {major}:{minor}"
                            );
                        }
                    }
                }
            }
        }
    }

    /// Deny all, then allow some: what every engine writes.
    #[test]
    fn the_usual_list() {
        let program = compile(&rules(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
               {"allow":true,"type":"c","major":136,"access":"rw"},{"allow":true,"type":"c","major":136,"minor":-1,"access":"m"}]"#,
        ));
        assert!(allowed(&program, CHAR, READ | WRITE, 1, 3));
        assert!(!allowed(&program, BLOCK, READ, 1, 3));
        assert!(!allowed(&program, CHAR, READ, 1, 1));
        assert!(allowed(&program, CHAR, ALL, 136, 7));
        assert!(!allowed(&program, BLOCK, READ, 8, 0));
    }

    #[test]
    fn all_allowed_needs_no_program() {
        assert_eq!(compile(&[]), None);
        assert_eq!(compile(&rules(r#"[{"allow":false},{"allow":true,"type":"a","access":"rwm"}]"#)), None);
        assert!(compile(&rules(r#"[{"allow":true,"type":"a","access":"rw"}]"#)).is_some());
    }

    #[test]
    fn a_denial_of_unknown_access_denies_all() {
        let program = compile(&rules(
            r#"[{"allow":true},{"allow":false,"type":"c","major":1,"minor":11,"access":"ra"}]"#,
        ));
        assert!(!allowed(&program, CHAR, READ, 1, 11) && !allowed(&program, CHAR, WRITE, 1, 11));
        assert!(allowed(&program, CHAR, ALL, 1, 3));
    }

    #[test]
    fn a_wrong_rule_is_an_error_at_its_field() {
        for (json, field) in [
            (r#"[{"allow":true,"major":-2}]"#, "linux.resources.devices[0].major: -2"),
            (r#"[{"allow":true},{"allow":true,"minor":4294967296}]"#, "linux.resources.devices[1].minor"),
            (r#"[{"allow":true,"access":"rx"}]"#, "linux.resources.devices[0].access: \"rx\""),
        ] {
            let given: Vec<DeviceRule> = serde_json::from_str(json).unwrap();
            let message = resolve("linux.resources.devices", &given).unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
        assert!(serde_json::from_str::<Vec<DeviceRule>>(r#"[{"allow":true,"type":"x"}]"#).is_err());
    }
}
