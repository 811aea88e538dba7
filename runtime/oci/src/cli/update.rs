//! `runc update`: limits of a container changed while it lives.
//!
//! In: flags, or a `resources` section as JSON. Out: the same section, as if it had been in config.json.
//! Must never: change what was not asked for.

use std::io::Read;
use std::path::PathBuf;

use crate::report::Error;
use crate::store::Container;
use crate::topic::intel_rdt;
use spec::Resources;
use spec::resources::BlockIo;
use spec::resources::Cpu;
use spec::resources::Memory;
use spec::resources::Pids;

/// Changes the limits of a container; what no flag names stays.
#[derive(Debug, Default, clap::Args)]
pub struct Update {
    /// Name of the container
    pub id: String,
    /// File with a `resources` section as JSON, or - for standard input; other flags are then ignored
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// Length of the period for --cpu-quota, in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,
    /// Processor time allowed in each period, in microseconds; -1 for no limit
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// Processor time that may be saved up beyond the quota, in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_burst: Option<u64>,
    /// Share of processor time against other containers, 2 to 262144
    #[arg(long, value_name = "SHARES")]
    pub cpu_share: Option<u64>,
    /// cgroup v1 only: refused
    #[arg(long, value_name = "US")]
    pub cpu_rt_period: Option<u64>,
    /// cgroup v1 only: refused
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// Processors to use, like 0-2,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use, like 0
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Limit of memory, like 512M; -1 for none
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = parse_bytes)]
    pub memory: Option<i64>,
    /// Memory that the kernel tries to leave the container, like 256M
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = parse_bytes)]
    pub memory_reservation: Option<i64>,
    /// Limit of memory and swap together, like 1G; -1 for no limit of swap
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = parse_bytes)]
    pub memory_swap: Option<i64>,
    /// 1: run only when nothing else wants to
    #[arg(long, value_name = "0|1", allow_negative_numbers = true)]
    pub cpu_idle: Option<i64>,
    /// Most processes and threads; -1 for no limit
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    /// Intel RDT cache schema, like L3:0=f0
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Intel RDT memory bandwidth schema, like MB:0=20
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    /// Obsolete, does nothing
    #[arg(long, hide = true)]
    pub kernel_memory: Option<String>,
    /// Obsolete, does nothing
    #[arg(long, hide = true)]
    pub kernel_memory_tcp: Option<String>,
}

impl Update {
    /// What is asked for.
    ///
    /// # Errors
    /// A file that can't be read or isn't such a section.
    pub fn wanted(&self) -> Result<Resources, Error> {
        match &self.resources {
            None => Ok(self.resources_of_flags()),
            Some(path) if path.as_os_str() == "-" => from_json("standard input", std::io::stdin().lock()),
            Some(path) => {
                let name = path.display().to_string();
                let file =
                    std::fs::File::open(path).map_err(|error| Error::new(format!("{name}: {error}")))?;
                from_json(&name, file)
            }
        }
    }

    /// Changes shares of cache and memory bandwidth, where flags ask for that.
    ///
    /// # Errors
    /// A container without such shares, or a schema that the machine can't have.
    pub fn update_shares(&self, container: &Container) -> Result<(), Error> {
        if self.l3_cache_schema.is_none() && self.mem_bw_schema.is_none() {
            return Ok(());
        }
        let Some(group) = intel_rdt::plan(&container.record.spec, &self.id)? else {
            return Err(Error::new(
                "--l3-cache-schema and --mem-bw-schema: the container has no linux.intelRdt in its config.json",
            ));
        };
        let text = |flag: &Option<String>| flag.clone().unwrap_or_default();
        group.update(&intel_rdt::root()?, &text(&self.l3_cache_schema), &text(&self.mem_bw_schema))
    }

    fn resources_of_flags(&self) -> Resources {
        Resources {
            memory: Some(Memory {
                limit: self.memory,
                reservation: self.memory_reservation,
                swap: self.memory_swap,
                ..Memory::default()
            }),
            cpu: Some(Cpu {
                shares: self.cpu_share,
                quota: self.cpu_quota,
                burst: self.cpu_burst,
                period: self.cpu_period,
                realtime_runtime: self.cpu_rt_runtime,
                realtime_period: self.cpu_rt_period,
                cpus: self.cpuset_cpus.clone().unwrap_or_default(),
                mems: self.cpuset_mems.clone().unwrap_or_default(),
                idle: self.cpu_idle,
            }),
            pids: Some(Pids { limit: self.pids_limit }),
            block_io: Some(BlockIo { weight: self.blkio_weight, ..BlockIo::default() }),
            ..Resources::default()
        }
    }
}

/// More than any real section; a limit so that a wrong file does not fill the memory.
const JSON_BYTES_MAX: u64 = 1 << 20;

/// Reads the resources of `update --resources FILE`, which `name` names in errors.
///
/// # Errors
/// It can't be read, is too long, or is no such object: the field's path is told.
pub fn from_json(name: &str, from: impl Read) -> Result<Resources, Error> {
    let mut text = Vec::new();
    from.take(JSON_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| Error::new(format!("{name}: {error}")))?;
    if text.len() as u64 > JSON_BYTES_MAX {
        return Err(Error::new(format!(
            "{name}: larger than {JSON_BYTES_MAX} bytes, so it is no resources section"
        )));
    }
    spec::parse(name, &text)
}

/// A number of bytes with a binary unit: `50M`, `1.5g`, `100KiB`, `4096`; `-1` for no limit.
pub fn parse_bytes(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let expected = || format!("{text:?}: expected bytes like 4096, 512M or 1.5G, or -1 for no limit");
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" => 0,
        "k" | "ki" => 10,
        "m" | "mi" => 20,
        "g" | "gi" => 30,
        "t" | "ti" => 40,
        "p" | "pi" => 50,
        _ => return Err(expected()),
    };
    let unit_bytes = 1i64 << shift;
    let bytes = match number.split_once('.') {
        None => number.parse::<i64>().ok().and_then(|number| number.checked_mul(unit_bytes)),
        // Nine places are exact enough for any memory.
        Some((whole, fraction)) if !fraction.is_empty() && fraction.len() <= 9 => {
            let scale = 10i128.pow(u32::try_from(fraction.len()).unwrap_or(9));
            let whole = if whole.is_empty() { Some(0) } else { whole.parse::<i128>().ok() };
            let parts = whole.zip(fraction.parse::<i128>().ok());
            let scaled = parts.and_then(|(whole, fraction)| whole.checked_mul(scale)?.checked_add(fraction));
            let bytes = scaled.and_then(|scaled| scaled.checked_mul(i128::from(unit_bytes)));
            bytes.and_then(|bytes| i64::try_from(bytes / scale).ok())
        }
        Some(_) => None,
    };
    bytes.ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        update: Update,
    }

    fn parse(words: &[&str]) -> Update {
        Line::try_parse_from(["update"].iter().chain(words)).unwrap_or_else(|error| panic!("{error}")).update
    }

    #[test]
    fn bytes_take_binary_units() {
        for (text, bytes) in [
            ("4096", 4096),
            ("50M", 52_428_800),
            ("50m", 52_428_800),
            ("1k", 1024),
            ("1KiB", 1024),
            ("2 GB", 1 << 31),
            ("1.5G", 3 << 29),
            (".5k", 512),
            ("-1", -1),
            ("0", 0),
            ("7b", 7),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-2", "1.2.3", "1.", "5X", "9223372036854775807k", "1e3", "٣", "1\u{b2}"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_flag_lands_in_its_field() {
        let update = parse(&[
            "box",
            "--blkio-weight",
            "20",
            "--cpu-period",
            "1",
            "--cpu-quota",
            "-1",
            "--cpu-burst",
            "2",
            "--cpu-share",
            "3",
            "--cpu-rt-period",
            "4",
            "--cpu-rt-runtime",
            "5",
            "--cpuset-cpus",
            "0-1",
            "--cpuset-mems",
            "0",
            "--memory",
            "1M",
            "--memory-reservation",
            "1k",
            "--memory-swap",
            "-1",
            "--cpu-idle",
            "1",
            "--pids-limit",
            "-1",
            "--kernel-memory",
            "9",
        ]);
        let expected = r#"{"memory":{"limit":1048576,"reservation":1024,"swap":-1},"cpu":{"shares":3,"quota":-1,"burst":2,
            "period":1,"realtimeRuntime":5,"realtimePeriod":4,"cpus":"0-1","mems":"0","idle":1},"pids":{"limit":-1},
            "blockIO":{"weight":20}}"#;
        assert_eq!(update.wanted().unwrap(), serde_json::from_str(expected).unwrap());
        assert_eq!(update.id, "box");
    }

    #[test]
    fn json_errors_name_file_and_field() {
        let error = |json: &str| from_json("limits.json", json.as_bytes()).unwrap_err().to_string();
        assert!(error(r#"{"memory":{"limit":"lots"}}"#).starts_with("limits.json: memory.limit: "));
        assert!(error("nonsense").starts_with("limits.json: "));
        assert!(error(&" ".repeat(2 << 20)).contains("larger than"));
        let read = from_json("limits.json", br#"{"pids":{"limit":3}}"#.as_slice()).unwrap();
        assert_eq!(read.pids, Some(Pids { limit: Some(3) }));
    }
}
