//! What a cgroup's processes have used, in the form in which `runc events` prints it.
//!
//! In: the statistics files of a cgroup v2 directory. Out: `Stats`, which serialises to runc's JSON.
//! Must never: fail because a controller is not enabled; its part is then zero.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use serde::Serialize;

use super::dir::read_at;
use super::events::value_of;

/// The whole of it. Names and units are runc's: nanoseconds, bytes.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Always zero on cgroup v2.
    pub cpuset: Cpuset,
    /// Memory.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block devices.
    pub blkio: Blkio,
    /// By size of page, like `2MB`.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Intel RDT, where the container has a group there.
    pub intel_rdt: IntelRdt,
    /// runc fills this in for networks that it made itself, which it no longer does.
    pub network_interfaces: Option<()>,
}

/// See `Stats::cpu`.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Time used.
    pub usage: CpuUsage,
    /// Time withheld by `cpu.max`.
    pub throttling: Throttling,
    /// Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Nanoseconds.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    /// In all.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// In the kernel.
    pub kernel: u64,
    /// In user space.
    pub user: u64,
}

/// See `Cpu::throttling`.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that passed.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Periods in which the quota was used up.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// Nanoseconds withheld.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Pressure stall information (Documentation/accounting/psi.rst).
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize)]
pub struct Psi {
    /// Some tasks waited.
    pub some: PsiLine,
    /// All tasks waited.
    pub full: PsiLine,
}

/// Percentages over 10, 60 and 300 s, and microseconds in all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize)]
#[allow(missing_docs)] // the kernel's names
pub struct PsiLine {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

/// What cgroup v1 tells of cpusets.
#[derive(Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // v1's names
pub struct Cpuset {
    pub cpu_exclusive: u64,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// See `Stats::memory`.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// File pages.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap together, as v1 counts it.
    pub swap: MemoryEntry,
    /// Zero on cgroup v2; `raw` has the kernel's memory.
    pub kernel: MemoryEntry,
    /// Zero on cgroup v2.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// `memory.stat` as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
    /// `memory.events`.
    pub event_count: MemoryEvents,
}

/// Bytes.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct MemoryEntry {
    /// Limit; `u64::MAX`: none.
    pub limit: u64,
    /// In use.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// Most that was in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// Zero on cgroup v2.
    pub failcnt: u64,
}

/// How often each happened.
#[derive(Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // the kernel's names
pub struct MemoryEvents {
    #[serde(skip_serializing_if = "is_zero")]
    pub low: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub high: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub oom: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_kill: u64,
}

/// See `Stats::pids`.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    /// Tasks now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// Limit; 0: none.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// See `Stats::blkio`.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One device's count.
#[derive(Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct BlkioEntry {
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// `Read` or `Write`.
    pub op: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Hugetlb {
    /// In use or reserved.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// Allocations that the limit refused.
    pub failcnt: u64,
}

/// Nothing yet: a container has no RDT group of its own.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct IntelRdt {}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A file and why it can't be read.
type ReadError = (String, Errno);

impl Stats {
    pub(super) fn read(dir: BorrowedFd<'_>) -> Result<Stats, ReadError> {
        let files = Files(dir);
        Ok(Stats {
            cpu: cpu(&files)?,
            memory: memory(&files)?,
            pids: pids(&files)?,
            blkio: blkio(&files)?,
            hugetlb: hugetlb(&files)?,
            ..Stats::default()
        })
    }
}

/// The files of one directory; those that aren't there read as nothing.
struct Files<'a>(BorrowedFd<'a>);

impl Files<'_> {
    fn text(&self, file: &str) -> Result<Option<String>, ReadError> {
        match read_at(self.0, file) {
            Ok(text) => Ok(Some(text)),
            // NODEV: the cgroup was removed meanwhile. OPNOTSUPP: pressure is switched off.
            Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err((file.to_string(), errno)),
        }
    }

    /// A single number, or `max`.
    fn number(&self, file: &str) -> Result<Option<u64>, ReadError> {
        Ok(self.text(file)?.and_then(|text| match text.trim() {
            "max" => Some(u64::MAX),
            number => number.parse().ok(),
        }))
    }

    fn psi(&self, file: &str) -> Result<Option<Psi>, ReadError> {
        Ok(self.text(file)?.map(|text| parse_psi(&text)))
    }
}

fn cpu(files: &Files<'_>) -> Result<Cpu, ReadError> {
    let stat = files.text("cpu.stat")?.unwrap_or_default();
    let count = |key| value_of(&stat, key).unwrap_or(0);
    let nanoseconds = |key| count(key).saturating_mul(1000);
    Ok(Cpu {
        usage: CpuUsage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
        },
        throttling: Throttling {
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
        },
        psi: files.psi("cpu.pressure")?,
    })
}

fn memory(files: &Files<'_>) -> Result<Memory, ReadError> {
    let raw: BTreeMap<String, u64> = files
        .text("memory.stat")?
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_string(), value.trim().parse().ok()?)))
        .collect();
    let entry = |name: &str| {
        Ok(MemoryEntry {
            limit: files.number(&format!("{name}.max"))?.unwrap_or(0),
            usage: files.number(&format!("{name}.current"))?.unwrap_or(0),
            max: files.number(&format!("{name}.peak"))?.unwrap_or(0),
            failcnt: 0,
        })
    };
    let usage: MemoryEntry = entry("memory")?;
    let swap_only: MemoryEntry = entry("memory.swap")?;
    let swap = MemoryEntry {
        // u64::MAX stays: no limit of one is none of the sum.
        limit: swap_only.limit.saturating_add(usage.limit),
        usage: swap_only.usage.saturating_add(usage.usage),
        max: 0,
        failcnt: 0,
    };
    let events = files.text("memory.events")?.unwrap_or_default();
    let count = |key| value_of(&events, key).unwrap_or(0);
    Ok(Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap,
        raw,
        psi: files.psi("memory.pressure")?,
        event_count: MemoryEvents {
            low: count("low"),
            high: count("high"),
            max: count("max"),
            oom: count("oom"),
            oom_kill: count("oom_kill"),
        },
        ..Memory::default()
    })
}

fn pids(files: &Files<'_>) -> Result<Pids, ReadError> {
    let current = match files.number("pids.current")? {
        Some(current) => current,
        // Without the controller the processes are counted by hand.
        None => files.text("cgroup.procs")?.unwrap_or_default().lines().count() as u64,
    };
    let limit = files.number("pids.max")?.filter(|limit| *limit != u64::MAX).unwrap_or(0);
    Ok(Pids { current, limit })
}

fn blkio(files: &Files<'_>) -> Result<Blkio, ReadError> {
    let mut blkio = Blkio { psi: files.psi("io.pressure")?, ..Blkio::default() };
    for line in files.text("io.stat")?.unwrap_or_default().lines() {
        add_io_line(line, &mut blkio);
    }
    Ok(blkio)
}

/// `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ...`
fn add_io_line(line: &str, blkio: &mut Blkio) {
    let mut words = line.split_whitespace();
    let device = words.next().and_then(|device| device.split_once(':'));
    let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse())) else {
        return;
    };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let Ok(value) = value.parse() else { continue };
        let (table, op) = match key {
            "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
            "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
            "rios" => (&mut blkio.io_serviced_recursive, "Read"),
            "wios" => (&mut blkio.io_serviced_recursive, "Write"),
            _ => continue,
        };
        table.push(BlkioEntry { major, minor, op, value });
    }
}

fn hugetlb(files: &Files<'_>) -> Result<BTreeMap<String, Hugetlb>, ReadError> {
    let mut sizes = BTreeMap::new();
    let here = |errno| (".".to_string(), errno);
    for entry in rustix::fs::Dir::read_from(files.0).map_err(here)? {
        let Ok(entry) = entry else { break };
        let name = entry.file_name().to_string_lossy();
        let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(".current"));
        let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
        let reserved = files.number(&format!("hugetlb.{size}.rsvd.current"))?;
        let usage = match reserved {
            Some(usage) => usage,
            None => files.number(&name)?.unwrap_or(0),
        };
        let events = files.text(&format!("hugetlb.{size}.events"))?.unwrap_or_default();
        sizes.insert(size.to_string(), Hugetlb { usage, failcnt: value_of(&events, "max").unwrap_or(0) });
    }
    Ok(sizes)
}

/// `12.34`; 0 where it is no such number. Not by the standard library's reader, which takes all numbers that there are, and
/// ten kilobytes of the program for that.
fn decimal(text: &str) -> f64 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: u64 = format!("{whole}{fraction}").parse().unwrap_or(0);
    let scale = u32::try_from(fraction.len()).ok().and_then(|places| 10u64.checked_pow(places));
    scale.map_or(0.0, |scale| digits as f64 / scale as f64)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, then `full` likewise.
fn parse_psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let to = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => to.avg10 = decimal(value),
                "avg60" => to.avg60 = decimal(value),
                "avg300" => to.avg300 = decimal(value),
                "total" => to.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    psi
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn psi_lines() {
        let psi = parse_psi(
            "some avg10=1.50 avg60=0.00 avg300=12.25 total=77\nfull avg10=0.10 avg60=0 avg300=0 total=5\n",
        );
        assert_eq!(psi.some, PsiLine { avg10: 1.5, avg60: 0.0, avg300: 12.25, total: 77 });
        assert_eq!((psi.full.avg10, psi.full.total), (0.1, 5));
        for hundredths in 0..=10_000u32 {
            let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
            assert_eq!(decimal(&text), text.parse::<f64>().unwrap());
        }
        for text in ["", ".", "x", "1.x", "1.2.3", "-1", &format!("0.{}", "0".repeat(40))] {
            assert_eq!(decimal(text), 0.0, "{text}");
        }
    }

    #[test]
    fn io_lines() {
        let mut blkio = Blkio::default();
        add_io_line("8:16 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0", &mut blkio);
        add_io_line("nonsense", &mut blkio);
        add_io_line("", &mut blkio);
        let bytes: Vec<_> =
            blkio.io_service_bytes_recursive.iter().map(|entry| (entry.op, entry.value)).collect();
        assert_eq!(bytes, [("Read", 10), ("Write", 20)]);
        assert_eq!(blkio.io_serviced_recursive[1], BlkioEntry { major: 8, minor: 16, op: "Write", value: 2 });
    }

    /// A directory with files as the kernel writes them stands in for a cgroup.
    #[test]
    fn a_directory_reads_as_runc_prints_it() {
        let dir = std::env::temp_dir().join(format!("coracle-cgroup-stats-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (file, text) in [
            (
                "cpu.stat",
                "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\nnr_throttled 1\nthrottled_usec 9\n",
            ),
            ("memory.stat", "anon 4096\nfile 8192\n"),
            ("memory.current", "12288\n"),
            ("memory.max", "33554432\n"),
            ("memory.swap.current", "1000\n"),
            ("memory.swap.max", "max\n"),
            ("memory.events", "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "20\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.rsvd.current", "4194304\n"),
            ("hugetlb.2MB.events", "max 6\n"),
        ] {
            std::fs::write(dir.join(file), text).unwrap();
        }
        let fd = rustix::fs::open(&dir, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        let stats = Stats::read(fd.as_fd());
        std::fs::remove_dir_all(&dir).unwrap();
        let json = serde_json::to_value(stats.unwrap()).unwrap();
        for (pointer, value) in [
            ("/cpu/usage/total", 5000),
            ("/cpu/throttling/throttledTime", 9000),
            ("/memory/cache", 8192),
            ("/memory/usage/limit", 33_554_432),
            ("/memory/swap/usage", 13_288),
            ("/memory/swap/limit", u64::MAX),
            ("/memory/raw/anon", 4096),
            ("/memory/event_count/oom_kill", 1),
            ("/pids/limit", 20),
            ("/hugetlb/2MB/usage", 4_194_304),
            ("/hugetlb/2MB/failcnt", 6),
            ("/cpuset/cpu_exclusive", 0),
        ] {
            assert_eq!(
                json.pointer(pointer).and_then(serde_json::Value::as_u64),
                Some(value),
                "{pointer}: {json}"
            );
        }
        assert_eq!(json["network_interfaces"], serde_json::Value::Null);
        assert!(json["cpu"].get("psi").is_none());
    }
}
