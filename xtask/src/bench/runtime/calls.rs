//! What `measure calls` said -> system calls by name. In: its lines, the C compiler's header of numbers. Out: a profile of
//! one run: how often each call was made, and how long it took. Must never: be taken for a measurement of time: tracing
//! stops each call twice.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

const HEADERS: &[&str] = &["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"];

/// Calls that wait for the other side: their time is not their own.
const WAITING: [&str; 8] = ["read", "recvfrom", "recvmsg", "poll", "ppoll", "wait4", "waitid", "futex"];

/// One system call of one side.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// `runtime`, or `child`: the process that becomes the container's.
    pub side: String,
    /// Its name, or its number where the header can't be had.
    pub name: String,
    /// How often.
    pub count: u64,
    /// Time within it, in seconds, all in all.
    pub seconds: f64,
}

/// Reads what was said.
pub fn parse(text: &str) -> Result<Vec<Call>> {
    let header = crate::host::Host::first_file(HEADERS).map(std::fs::read_to_string);
    let names = header.transpose().ok().flatten().map(|text| numbers(&text)).unwrap_or_default();
    let call = |line: &str| {
        let mut fields = line.split('\t');
        let (side, number) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let (count, nanoseconds): (u64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let name = names.get(&number).cloned().unwrap_or(number);
        Some(Call { side, name, count, seconds: nanoseconds / 1e9 })
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let calls: Vec<Call> = lines
        .map(|line| call(line).with_context(|| format!("{line:?}: not a count of system calls")))
        .collect::<Result<_>>()?;
    if !calls.iter().any(|call| call.side == "child") {
        bail!("the traced run started no container");
    }
    Ok(calls)
}

/// `#define __NR_read 0`, by number.
fn numbers(header: &str) -> BTreeMap<String, String> {
    let name = |line: &str| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((number.trim().to_owned(), name.to_owned()))
    };
    header.lines().filter_map(name).collect()
}

/// How many there were.
pub fn count(calls: &[Call]) -> u64 {
    calls.iter().map(|call| call.count).sum()
}

/// A line for each, those that took longest first; the time of those that wait is not told.
pub fn profile(calls: &[Call]) -> String {
    let waits = |call: &Call| WAITING.contains(&call.name.as_str());
    let mut sorted: Vec<&Call> = calls.iter().collect();
    sorted.sort_by(|one, other| {
        (waits(one), -one.seconds).partial_cmp(&(waits(other), -other.seconds)).unwrap_or(Ordering::Equal)
    });
    let mut out = format!("      ms  calls  {} in a traced foreground run of ours\n", count(calls));
    for call in sorted {
        let time =
            if waits(call) { format!("{:>8}", "waits") } else { format!("{:>8.2}", call.seconds * 1e3) };
        out += &format!("{time}  {:>5}  {}: {}\n", call.count, call.side, call.name);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_and_those_that_wait_have_no_time() {
        let calls = parse("runtime\t0\t3\t9000000\r\nchild\t165\t7\t2000000\nchild\t999\t1\t0\n").unwrap();
        assert_eq!(count(&calls), 11);
        assert_eq!((calls[1].side.as_str(), calls[1].seconds), ("child", 0.002));
        assert_eq!(calls[2].name, "999");
        let profile = profile(&calls);
        assert!(profile.contains("11 in a") && profile.contains("    2.00      7  child: "), "{profile}");
        assert!(profile.ends_with("   waits      3  runtime: read\n"), "{profile}");
    }

    #[test]
    fn a_run_without_a_container_is_no_count() {
        assert!(parse("runtime\t0\t3\t9\n").unwrap_err().to_string().contains("no container"));
        assert!(parse("runc: no such file\n").unwrap_err().to_string().contains("not a count"));
    }

    #[test]
    fn numbers_have_names() {
        let names = numbers("#ifndef X\n#define __NR_read 0\n#define __NR_mount 165\n");
        assert_eq!(names.get("165").map(String::as_str), Some("mount"));
    }
}
