//! When and where a program runs: scheduling policy, I/O priority, processors. In: `scheduler`, `ioPriority`,
//! `execCPUAffinity` of a process. Out: numbers for the kernel, set before the change of user. Must never: leave a
//! container on the processors that whoever called the runtime happened to be bound to.

use rustix::io::Errno;
use rustix::process::Pid;

use crate::report;
use crate::report::Error;
use crate::report::Fails;
use spec::Process;
use spec::process::IoPriority;
use spec::process::Scheduler;
use sys::schedule::SchedulerAttributes;

/// Policies by their number (linux/sched.h).
const POLICIES: [&str; 7] = ["OTHER", "FIFO", "RR", "BATCH", "ISO", "IDLE", "DEADLINE"];
/// SCHED_FLAG_* by their bit.
const FLAGS: [&str; 7] = [
    "RESET_ON_FORK",
    "RECLAIM",
    "DL_OVERRUN",
    "KEEP_POLICY",
    "KEEP_PARAMS",
    "UTIL_CLAMP_MIN",
    "UTIL_CLAMP_MAX",
];
/// I/O classes by their number; 0 is "none".
const CLASSES: [&str; 4] = ["", "RT", "BE", "IDLE"];
/// As many processors as any kernel can be built for (NR_CPUS).
const PROCESSORS_MAX: usize = 8192;

/// What of it one process has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    policy: Option<SchedulerAttributes>,
    /// Class and priority.
    io: Option<(u16, u16)>,
    /// Processors on the way into the cgroup of an exec; empty: the caller's.
    initial: Vec<u64>,
    /// Those after; empty: all that the cgroup has.
    last: Vec<u64>,
}

/// Checks the three sections.
///
/// # Errors
/// A name that is unknown, a number out of range, a value that does not go with the policy: runc's sentences.
pub fn plan(process: &Process) -> Result<Schedule, Error> {
    let mut plan = Schedule {
        policy: process.scheduler.as_ref().map(policy).transpose()?,
        io: process.io_priority.as_ref().map(io_priority).transpose()?,
        ..Schedule::default()
    };
    if let Some(affinity) = &process.exec_cpu_affinity {
        let set = |field: &str, text: &str| {
            number_set(text, PROCESSORS_MAX).map_err(|cause| {
                Error::spec(format!("process.execCPUAffinity.{field}"), format!("{text:?}: {cause}"))
            })
        };
        plan.initial = set("initial", &affinity.initial)?;
        plan.last = set("final", &affinity.r#final)?;
    }
    Ok(plan)
}

fn policy(scheduler: &Scheduler) -> Result<SchedulerAttributes, Error> {
    let wrong =
        |field: &str, message: String| Err(Error::spec(format!("process.scheduler.{field}"), message));
    let name = scheduler.policy.as_str();
    if name.is_empty() {
        return wrong("policy", "scheduler policy is required".to_string());
    }
    let Some(policy) = position(&POLICIES, "SCHED_", name) else {
        return wrong("policy", format!("{name:?}: expected a policy like SCHED_BATCH"));
    };
    let (realtime, deadline) = (matches!(name, "SCHED_FIFO" | "SCHED_RR"), name == "SCHED_DEADLINE");
    if matches!(name, "SCHED_OTHER" | "SCHED_BATCH") && !(-20..=19).contains(&scheduler.nice) {
        return wrong("nice", format!("invalid scheduler.nice: {}: expected -20 to 19", scheduler.nice));
    }
    if scheduler.priority != 0 && !realtime {
        return wrong(
            "priority",
            "scheduler.priority can only be specified for SchedFIFO or SchedRR policy".to_string(),
        );
    }
    if !(0..=99).contains(&scheduler.priority) {
        return wrong("priority", format!("{}: expected 1 to 99", scheduler.priority));
    }
    if !deadline && (scheduler.runtime, scheduler.deadline, scheduler.period) != (0, 0, 0) {
        return wrong(
            "runtime",
            "scheduler runtime/deadline/period can only be specified for SchedDeadline policy".to_string(),
        );
    }
    let mut flags = 0;
    for (index, flag) in scheduler.flags.iter().enumerate() {
        match position(&FLAGS, "SCHED_FLAG_", flag) {
            Some(bit) => flags |= 1 << bit,
            None => {
                return wrong(
                    &format!("flags[{index}]"),
                    format!("{flag:?}: expected a flag like SCHED_FLAG_RESET_ON_FORK"),
                );
            }
        }
    }
    Ok(SchedulerAttributes {
        policy: u32::from(policy),
        flags,
        nice: scheduler.nice,
        priority: scheduler.priority.unsigned_abs(),
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
        ..SchedulerAttributes::default()
    })
}

fn io_priority(wanted: &IoPriority) -> Result<(u16, u16), Error> {
    let IoPriority { class, priority } = wanted;
    let Some(class) = position(&CLASSES, "IOPRIO_CLASS_", class).filter(|class| *class != 0) else {
        return Err(Error::spec(
            "process.ioPriority.class",
            format!(
                "invalid ioPriority.Class: {class:?}: expected IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE"
            ),
        ));
    };
    match u16::try_from(*priority) {
        Ok(priority @ 0..=7) => Ok((class, priority)),
        _ => Err(Error::spec(
            "process.ioPriority.priority",
            format!("invalid ioPriority.Priority: {priority}: expected 0 to 7"),
        )),
    }
}

/// Where `name` stands in a table of names without their prefix.
fn position(table: &[&str], prefix: &str, name: &str) -> Option<u16> {
    let rest = name.strip_prefix(prefix)?;
    table.iter().position(|known| *known == rest).and_then(|at| u16::try_from(at).ok())
}

/// The set that a list like `0-3,7` names, as bits; empty for an empty list.
///
/// # Errors
/// What is wrong with it.
pub fn number_set(text: &str, numbers_max: usize) -> Result<Vec<u64>, String> {
    let mut bits = Vec::new();
    for part in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |word: &str| {
            let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| word.parse::<usize>().ok()).flatten().filter(|number| *number < numbers_max)
        };
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(format!("expected a list like 0-3,7 of numbers below {numbers_max}"));
        };
        if first > last {
            return Err(format!("{part}: the range runs backwards"));
        }
        bits.resize(bits.len().max(last / 64 + 1), 0);
        for number in first..=last {
            bits[number / 64] |= 1 << (number % 64);
        }
    }
    Ok(bits)
}

impl Schedule {
    /// The runtime's own side, before it makes a process for `exec`.
    ///
    /// # Errors
    /// No such processor.
    pub fn enter_initial(&self) -> Result<(), Error> {
        if self.initial.is_empty() {
            return Ok(());
        }
        sys::schedule::set_affinity(None, &self.initial).step("set", "the initial CPU affinity")
    }

    /// Says in the debug log to which processors `enter_initial` went.
    pub fn report(&self) {
        if let Some((highest, rest)) = self.initial.split_last() {
            let rest: String = rest.iter().rev().map(|word| format!("{word:016x}")).collect();
            report::debug(&format!("nsexec: affinity: 0x{highest:x}{rest}"));
        }
    }

    /// The runtime's side, once `pid` is in its cgroup: the final processors of an exec, or all that the cgroup has.
    ///
    /// # Errors
    /// None of the processors is there or in the cgroup.
    pub fn settle_affinity(&self, pid: Pid) -> Result<(), Error> {
        if self.last.is_empty() {
            // What it may have inherited from the caller is not config.json's word. A kernel that minds is no reason
            // to fail: runc does not either.
            let _ = sys::schedule::set_affinity(Some(pid), &[u64::MAX; PROCESSORS_MAX / 64]);
            return Ok(());
        }
        sys::schedule::set_affinity(Some(pid), &self.last).step("set", "the final CPU affinity")
    }

    /// The first process of a container has no processors of `execCPUAffinity`.
    pub fn without_affinity(self) -> Schedule {
        Schedule { initial: Vec::new(), last: Vec::new(), ..self }
    }

    /// The process's own side: policy and I/O priority. `has_cpuset` says whether the container has only some
    /// processors, for which there is no SCHED_DEADLINE.
    ///
    /// # Errors
    /// sched_setattr(2)'s and ioprio_set(2)'s.
    pub fn apply(&self, has_cpuset: bool) -> Result<(), Error> {
        if let Some(policy) = &self.policy {
            match sys::schedule::set_scheduler(policy) {
                Err(Errno::PERM) if has_cpuset => {
                    return Err(Error::new(
                        "process scheduler can't be used together with AllowedCPUs: linux.resources.cpu.cpus",
                    ));
                }
                done => done.step("error setting scheduler:", "process.scheduler")?,
            }
        }
        if let Some((class, priority)) = self.io {
            sys::schedule::set_io_priority(class, priority).step("set", "process.ioPriority")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Schedule, Error> {
        plan(&spec::parse("process.json", json.as_bytes()).unwrap())
    }

    fn error(json: &str) -> String {
        of(json).unwrap_err().to_string()
    }

    #[test]
    fn names_become_the_kernels_numbers() {
        let plan = of(
            r#"{"scheduler":{"policy":"SCHED_DEADLINE","flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_UTIL_CLAMP_MAX"],
            "nice":19,"runtime":42000,"deadline":100000,"period":1000000},"ioPriority":{"class":"IOPRIO_CLASS_IDLE"},
            "execCPUAffinity":{"initial":"0-1","final":"64,2"}}"#,
        );
        let expected = SchedulerAttributes {
            policy: 6,
            flags: 0x41,
            nice: 19,
            runtime: 42000,
            deadline: 100_000,
            period: 1_000_000,
            ..SchedulerAttributes::default()
        };
        assert_eq!(
            plan.unwrap(),
            Schedule { policy: Some(expected), io: Some((3, 0)), initial: vec![3], last: vec![4, 1] }
        );
        assert_eq!(of("{}").unwrap(), Schedule::default());
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        for (json, start) in [
            (r#"{"scheduler":{}}"#, "process.scheduler.policy: scheduler policy is required"),
            (r#"{"scheduler":{"policy":"BATCH"}}"#, "process.scheduler.policy: \"BATCH\""),
            (r#"{"scheduler":{"policy":"SCHED_OTHER","nice":20}}"#, "process.scheduler.nice: invalid"),
            (r#"{"scheduler":{"policy":"SCHED_BATCH","priority":1}}"#, "process.scheduler.priority:"),
            (r#"{"scheduler":{"policy":"SCHED_FIFO","priority":100}}"#, "process.scheduler.priority: 100"),
            (r#"{"scheduler":{"policy":"SCHED_RR","period":1}}"#, "process.scheduler.runtime:"),
            (r#"{"scheduler":{"policy":"SCHED_IDLE","flags":["X"]}}"#, "process.scheduler.flags[0]: \"X\""),
            (r#"{"ioPriority":{"class":"BE"}}"#, "process.ioPriority.class: invalid ioPriority.Class"),
            (r#"{"ioPriority":{"class":"IOPRIO_CLASS_"}}"#, "process.ioPriority.class:"),
            (r#"{"ioPriority":{"class":"IOPRIO_CLASS_RT","priority":8}}"#, "process.ioPriority.priority:"),
            (r#"{"execCPUAffinity":{"final":"3-1"}}"#, "process.execCPUAffinity.final: \"3-1\": 3-1:"),
            (r#"{"execCPUAffinity":{"initial":"8192"}}"#, "process.execCPUAffinity.initial:"),
        ] {
            assert!(error(json).starts_with(start), "{}", error(json));
        }
    }

    #[test]
    fn number_sets_are_lists_of_ranges() {
        assert_eq!(number_set("0-3,7", 64), Ok(vec![0x8f]));
        assert_eq!(number_set(" ", 64), Ok(vec![]));
        for text in [",", "1,", "-1", "1-", "a", "+1", "64", "99999999999999999999"] {
            assert!(number_set(text, 64).is_err(), "{text}");
        }
    }
}
