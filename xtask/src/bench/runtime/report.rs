//! A run's samples -> the runtimes side by side. In: `Run`. Out: a table of medians and ratios, and what became of the
//! limits. Must never: hide what is missed.

use super::plan::{
    self, CYCLE, DETACHED, EXEC, FILTERED, FOREGROUND, LIST, SEALED, SEALED_EXEC, STATE, VERSION,
};
use crate::bench::{Run, kept};

/// What is to be at most so many times what: in the machine, in software emulation.
pub const TARGETS: &[(&str, &str, f64)] = &[
    ("foreground run: ours", "foreground run: crun", 0.4),
    ("foreground run: ours", "foreground run: floor", 2.5),
    ("create + start + delete: ours", "create + start + delete: crun", 0.4),
    ("create + start + delete: ours", "foreground run: floor", 3.0),
    ("exec: ours", "exec: crun", 0.4),
    ("exec: ours", "exec: floor", 2.0),
    ("foreground run with docker's filter: ours", "foreground run: ours", 1.05),
    ("foreground run: ours", "foreground run, sealed before: ours", 1.05),
    ("exec: ours", "exec, sealed before: ours", 1.05),
];

const SYSTEM_CALLS_MAX: f64 = 250.0;
const MEMORY_MB_MAX: f64 = 1.5;

/// What the count of system calls is called.
pub fn system_calls(who: &str) -> String {
    plan::name("system calls of a foreground run", who)
}

/// What the peak memory of a measurement is called.
pub fn memory(what: &str) -> String {
    format!("MB, peak memory: {what}")
}

/// What the count of starts is called.
pub fn limited(tries: u32, who: &str) -> String {
    plan::name(&format!("of {tries} start under 512 kB"), who)
}

/// The table.
pub fn summary(run: &Run) -> String {
    let mut out = "\n  medians, ms                             ours     crun     runc    floor  ours/crun  ours/runc  ours/floor\n"
        .to_owned();
    for what in [FOREGROUND, SEALED, FILTERED, CYCLE, DETACHED, EXEC, SEALED_EXEC, STATE, LIST, VERSION] {
        out += &row(run, what);
    }
    out += "\n";
    for (name, at_most) in [
        (system_calls("ours"), SYSTEM_CALLS_MAX),
        (memory(&plan::name(FOREGROUND, "ours")), MEMORY_MB_MAX),
        (memory(&plan::name(CYCLE, "ours")), MEMORY_MB_MAX),
        (memory(&plan::name(EXEC, "ours")), MEMORY_MB_MAX),
    ] {
        if let Some(&count) = run.counts.get(&name) {
            out += &format!("{count:>8.2}  {name}: target at most {at_most}, {}\n", kept(count <= at_most));
        }
    }
    let all = limited(super::LIMITED_TRIES, "ours");
    if let Some(&count) = run.counts.get(&all) {
        let tries = super::LIMITED_TRIES;
        out += &format!("{count:>8.2}  {all}: target {tries}, {}\n", kept(count >= f64::from(tries)));
    }
    out
}

/// What another runtime is asked for where ours is sealed before.
fn counterpart(what: &str) -> &str {
    match what {
        SEALED => FOREGROUND,
        SEALED_EXEC => EXEC,
        _ => what,
    }
}

/// The floor of a command; of what makes nothing there is none.
fn floor_of(what: &str) -> Option<String> {
    match counterpart(what) {
        STATE | LIST | VERSION => None,
        EXEC => Some(plan::name(EXEC, plan::FLOOR)),
        _ => Some(plan::name(FOREGROUND, plan::FLOOR)),
    }
}

fn row(run: &Run, what: &str) -> String {
    let other = |who: &str| run.median(&plan::name(counterpart(what), who));
    let floor = floor_of(what).and_then(|name| run.median(&name));
    let others = [other("crun"), other("runc"), floor];
    let ours = run.median(&plan::name(what, "ours"));
    let mut out = format!("  {what:<36}");
    for value in [ours].iter().chain(&others) {
        out += &value.map_or_else(|| format!("{:>9}", "-"), |value| format!("{:>9.2}", value * 1e3));
    }
    for other in others {
        let ratio = ours.zip(other).map(|(ours, other)| ours / other);
        out += &ratio.map_or_else(|| format!("{:>11}", "-"), |ratio| format!("{ratio:>11.2}"));
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A target whose name nothing is measured under would be kept for ever.
    #[test]
    fn targets_are_of_what_is_measured() {
        let plan = super::plan::containers(true, "1");
        for (name, of, _) in TARGETS {
            for name in [name, of] {
                assert!(plan.contains(&format!("sample {name}\n")), "{name}");
            }
        }
    }

    #[test]
    fn a_row_has_ratios_and_gaps() {
        let samples = [("exec: ours", 0.02), ("exec: crun", 0.1), ("exec: floor", 0.01)];
        let run = Run {
            kind: "runtime".to_owned(),
            machine: BTreeMap::new(),
            samples: samples.iter().map(|(name, value)| ((*name).to_owned(), vec![*value])).collect(),
            counts: BTreeMap::from([(system_calls("ours"), 251.0), (limited(10, "ours"), 9.0)]),
        };
        let text = summary(&run);
        let words: Vec<&str> =
            text.lines().find(|line| line.starts_with("  exec")).unwrap().split_whitespace().collect();
        assert_eq!(words, ["exec", "20.00", "100.00", "-", "10.00", "0.20", "-", "2.00"]);
        assert!(text.contains("251.00  system calls") && text.matches("missed").count() == 2, "{text}");
    }
}
