//! `runc events`: what a container uses, at intervals, and when the kernel kills in it for want of memory.
//!
//! In: its cgroup. Out: one JSON object a line, in runc's form. Must never: outlive the container's last process.

use std::io::Write;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use crate::cgroup::Cgroup;
use crate::cgroup::Event;
use crate::cgroup::Stats;
use crate::report::Error;

/// Shows what a container uses, at intervals, and out-of-memory kills.
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Name of the container
    pub id: String,
    /// Time between two statistics, like 5s, 100ms or 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub interval: Duration,
    /// Show the statistics once
    #[arg(long)]
    pub stats: bool,
}

/// One line of output.
#[derive(Serialize)]
struct Record<'a> {
    r#type: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Stats>,
}

impl Events {
    /// Writes lines to `out` until the container's last process is gone, or one line with `--stats`.
    ///
    /// # Errors
    /// The cgroup can't be read, or `out` not be written.
    pub fn show(&self, cgroup: &Cgroup, out: &mut dyn Write) -> Result<(), Error> {
        if self.stats {
            return write_record(out, "stats", &self.id, Some(&cgroup.stats()?));
        }
        let mut watch = cgroup.watch()?;
        let mut tick = Instant::now() + self.interval;
        loop {
            let event = watch.next(tick.saturating_duration_since(Instant::now()));
            match event
                .map_err(|errno| Error::new(format!("watch cgroup {}: {errno}", cgroup.path().display())))?
            {
                Event::Oom => write_record(out, "oom", &self.id, None)?,
                Event::Empty => return Ok(()),
                Event::Nothing => {
                    write_record(out, "stats", &self.id, Some(&cgroup.stats()?))?;
                    tick = Instant::now() + self.interval;
                }
            }
        }
    }
}

fn write_record(out: &mut dyn Write, kind: &str, id: &str, data: Option<&Stats>) -> Result<(), Error> {
    let record = Record { r#type: kind, id, data };
    let mut line = serde_json::to_vec(&record).map_err(|error| Error::new(format!("statistics: {error}")))?;
    line.push(b'\n');
    out.write_all(&line)
        .and_then(|()| out.flush())
        .map_err(|error| Error::new(format!("standard output: {error}")))
}

/// Go's form of durations, which runc takes: numbers with units, one behind the other.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?}: expected a duration like 5s, 100ms or 1m30s, more than 0");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.bytes().take_while(|byte| !byte.is_ascii_digit() && *byte != b'.').count();
        let (unit, next) = behind.split_at(letters);
        let unit = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(expected()),
        };
        let part = nanoseconds(number, unit).ok_or_else(expected)?;
        total = total.checked_add(Duration::from_nanos(part)).ok_or_else(expected)?;
        rest = next;
    }
    // A day is more than anyone waits for, and far from where times overflow.
    if total.is_zero() || total > Duration::from_secs(86_400) {
        return Err(expected());
    }
    Ok(total)
}

/// `1.5` of a unit of so many nanoseconds, rounded down; none: no number, or too much.
fn nanoseconds(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = unit.checked_mul(whole)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        total = total.checked_add(place * u64::from(digit.checked_sub(b'0')?))?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_does() {
        for (text, milliseconds) in [
            ("5s", 5000),
            ("100ms", 100),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("1h", 3_600_000),
            ("2000us", 2),
            ("1s1ms", 1001),
            (".25h", 900_000),
            ("2.m", 120_000),
            ("0.002s", 2),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            "0",
            "0s",
            "5",
            "s",
            "-1s",
            "1x",
            "1..2s",
            "1e9h",
            "99999999999h",
            "5 s",
            "\u{b5}",
            ".s",
            "1.2.3s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn records_are_lines_in_runcs_form() {
        let mut out = Vec::new();
        write_record(&mut out, "oom", "box", None).unwrap();
        write_record(&mut out, "stats", "box", Some(&Stats::default())).unwrap();
        let text = String::from_utf8(out).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(r#"{"type":"oom","id":"box"}"#));
        assert!(lines.next().unwrap().starts_with(r#"{"type":"stats","id":"box","data":{"cpu":"#));
        assert_eq!(lines.next(), None);
    }
}
