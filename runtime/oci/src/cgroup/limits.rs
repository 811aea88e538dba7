//! `linux.resources` -> what is written to which file of a cgroup v2 directory.
//!
//! In: the section, which speaks cgroup v1's terms, and the values in force where the new ones build on them.
//! Out: `Setting`s in the order of writing. Must never: touch a file.
//!
//! The conversions are those of runc's newest release; the files are described in the kernel's
//! Documentation/admin-guide/cgroup-v2.rst.

use crate::report;
use crate::report::Error;
use crate::unsupported;
use spec::resources::BlockIo;
use spec::resources::Cpu;
use spec::resources::HugepageLimit;
use spec::resources::Memory;
use spec::resources::Network;
use spec::resources::Resources;
use spec::resources::ThrottleDevice;

/// One write to a file of the cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The field that asks for it, from `linux.resources` on.
    pub field: String,
    /// The file's name.
    pub file: String,
    /// What is written, in one write.
    pub value: String,
    /// What to do when the file isn't there.
    pub absent: Absent,
}

/// What a missing file means for a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// The limit can't be given: an error.
    Error,
    /// There is nothing to limit.
    Ignore,
    /// Another file with another scale takes its place.
    Instead(Box<Setting>),
}

/// Values in force, for settings that are only one half of a file or of a sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// The first word of `cpu.max`: microseconds or `max`.
    pub cpu_quota: Option<String>,
    /// `memory.max` in bytes; none: no limit.
    pub memory: Option<u64>,
    /// `memory.swap.max` in bytes; none: no limit.
    pub swap: Option<u64>,
}

impl Setting {
    fn new(field: &str, file: impl Into<String>, value: impl Into<String>) -> Setting {
        Setting { field: field.to_string(), file: file.into(), value: value.into(), absent: Absent::Error }
    }

    fn or(mut self, absent: Absent) -> Setting {
        self.absent = absent;
        self
    }

    /// The controller that has the file; none for the files every cgroup has.
    pub fn controller(&self) -> Option<&str> {
        match self.file.split_once('.') {
            Some(("cgroup", _)) | None => None,
            Some((controller, _)) => Some(controller),
        }
    }
}

/// All settings for `resources`; devices are no file, see `devices`.
///
/// # Errors
/// A value that is out of its range, contradicts another or exists on cgroup v1 only; each names the field.
pub fn settings(resources: &Resources, in_force: &InForce) -> Result<Vec<Setting>, Error> {
    let mut out = Vec::new();
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        let value = match limit {
            // pids.max counts the container's init, which has to be.
            0 => "1".to_string(),
            1.. => limit.to_string(),
            _ => "max".to_string(),
        };
        out.push(Setting::new("pids.limit", "pids.max", value));
    }
    if let Some(memory) = &resources.memory {
        memory_settings(memory, in_force, &mut out)?;
    }
    if let Some(block_io) = &resources.block_io {
        block_io_settings(block_io, &mut out)?;
    }
    if let Some(cpu) = &resources.cpu {
        cpu_settings(cpu, in_force, &mut out)?;
    }
    for (at, limit) in resources.hugepage_limits.iter().enumerate() {
        hugepage_settings(&format!("hugepageLimits[{at}]"), limit, &mut out)?;
    }
    for (device, limits) in &resources.rdma {
        let field = format!("rdma.{device}");
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(invalid(&field, "expected the name of an RDMA device, without blanks"));
        }
        let mut value = device.clone();
        for (key, limit) in [("hca_handle", limits.hca_handles), ("hca_object", limits.hca_objects)] {
            if let Some(limit) = limit {
                value += &format!(" {key}={limit}");
            }
        }
        out.push(Setting::new(&field, "rdma.max", value));
    }
    if let Some(network) = &resources.network {
        refuse_network(network)?;
    }
    unified_settings(resources, &mut out)?;
    Ok(out)
}

fn invalid(field: &str, message: impl std::fmt::Display) -> Error {
    Error::spec(format!("linux.resources.{field}"), message.to_string())
}

fn only_v1(field: &str) -> Error {
    unsupported::error(&format!("linux.resources.{field}"))
}

/// `memory.max` and `memory.low`: 0 means "not asked for", -1 no limit.
fn bytes_or_max(field: &str, value: i64) -> Result<Option<String>, Error> {
    match value {
        0 => Ok(None),
        -1 => Ok(Some("max".to_string())),
        1.. => Ok(Some(value.to_string())),
        _ => Err(invalid(field, format!("{value}: expected bytes, or -1 for no limit"))),
    }
}

fn memory_settings(memory: &Memory, in_force: &InForce, out: &mut Vec<Setting>) -> Result<(), Error> {
    if memory.swappiness.is_some() {
        return Err(only_v1("memory.swappiness"));
    }
    if memory.disable_oom_killer == Some(true) {
        return Err(only_v1("memory.disableOOMKiller"));
    }
    let limit = memory.limit.unwrap_or(0);
    let max = bytes_or_max("memory.limit", limit)?;
    if let Some(value) = swap_max(limit, memory.swap.unwrap_or(0), in_force)? {
        // A kernel without swap accounting has no swap to limit, so these two hold there anyway.
        let absent = if value == "max" || value == "0" { Absent::Ignore } else { Absent::Error };
        out.push(Setting::new("memory.swap", "memory.swap.max", value).or(absent));
    }
    if let Some(max) = max {
        out.push(Setting::new("memory.limit", "memory.max", max));
    }
    if let Some(low) = bytes_or_max("memory.reservation", memory.reservation.unwrap_or(0))? {
        out.push(Setting::new("memory.reservation", "memory.low", low));
    }
    Ok(())
}

/// `memory.swap.max` counts swap alone; the spec's `swap` counts memory and swap together.
fn swap_max(limit: i64, swap: i64, in_force: &InForce) -> Result<Option<String>, Error> {
    match (limit, swap) {
        // On v1 no limit of memory means none of the sum either.
        (-1, 0) | (_, -1) => return Ok(Some("max".to_string())),
        (_, ..-1) => {
            return Err(invalid("memory.swap", format!("{swap}: expected bytes, or -1 for no limit")));
        }
        (-1, _) => return Ok(Some(swap.to_string())),
        (1.., 0) => return Ok(swap_for_new_limit(limit, in_force)),
        (_, 0) => return Ok(None),
        _ => {}
    }
    let limit = match limit {
        0 => in_force.memory.and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(0),
        _ => limit,
    };
    if limit <= 0 {
        return Err(invalid(
            "memory.swap",
            format!("{swap}: it counts memory and swap together, so it needs memory.limit"),
        ));
    }
    if swap < limit {
        return Err(invalid(
            "memory.swap",
            format!(
                "{swap}: it counts memory and swap together, so it can't be less than memory.limit, {limit}"
            ),
        ));
    }
    Ok(Some((swap - limit).to_string()))
}

/// A new limit of memory alone leaves the sum of memory and swap as it was, where that is still possible.
fn swap_for_new_limit(limit: i64, in_force: &InForce) -> Option<String> {
    let sum = in_force.memory?.checked_add(in_force.swap?)?;
    let swap = sum.checked_sub(u64::try_from(limit).ok()?)?;
    Some(swap.to_string())
}

fn cpu_settings(cpu: &Cpu, in_force: &InForce, out: &mut Vec<Setting>) -> Result<(), Error> {
    if cpu.realtime_runtime.is_some_and(|value| value != 0) {
        return Err(only_v1("cpu.realtimeRuntime"));
    }
    if cpu.realtime_period.is_some_and(|value| value != 0) {
        return Err(only_v1("cpu.realtimePeriod"));
    }
    if let Some(idle) = cpu.idle {
        if !(0..=1).contains(&idle) {
            return Err(invalid("cpu.idle", format!("{idle}: expected 0 or 1")));
        }
        out.push(Setting::new("cpu.idle", "cpu.idle", idle.to_string()));
    }
    match cpu_weight(cpu.shares.unwrap_or(0)) {
        // An idle group has its own weight, and the kernel refuses another.
        Some(_) if cpu.idle == Some(1) => {
            report::warn("unable to apply both cpu.shares and cpu.idle: idle is taken")
        }
        Some(weight) => out.push(Setting::new("cpu.shares", "cpu.weight", weight.to_string())),
        None => {}
    }
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0);
    // A burst above the old quota needs the new quota first, one that the new quota is below needs the burst first:
    // the kernel wants burst <= quota at each step, so the burst goes to 0 between.
    let has_both = cpu.burst.is_some() && (quota.is_some() || period.is_some());
    if has_both {
        out.push(Setting::new("cpu.burst", "cpu.max.burst", "0").or(Absent::Ignore));
    }
    if quota.is_some() || period.is_some() {
        let quota_text = match quota {
            Some(quota @ 1..) => quota.to_string(),
            Some(_) => "max".to_string(),
            None => in_force.cpu_quota.clone().unwrap_or("max".to_string()),
        };
        let value = match period {
            Some(period) => format!("{quota_text} {period}"),
            // The kernel keeps the period, 100000 in a new cgroup.
            None => quota_text,
        };
        let field = if quota.is_some() { "cpu.quota" } else { "cpu.period" };
        out.push(Setting::new(field, "cpu.max", value));
    }
    if let Some(burst) = cpu.burst {
        out.push(Setting::new("cpu.burst", "cpu.max.burst", burst.to_string()));
    }
    for (field, file, list) in
        [("cpu.cpus", "cpuset.cpus", &cpu.cpus), ("cpu.mems", "cpuset.mems", &cpu.mems)]
    {
        if list.contains(['\n', '\0']) {
            return Err(invalid(field, format!("{list:?}: expected a list like 0-2,7")));
        }
        if !list.is_empty() {
            out.push(Setting::new(field, file, list.clone()));
        }
    }
    Ok(())
}

/// cgroup v1's 2..=262144 (1024 by default) to v2's 1..=10000 (100 by default), such that the ends and the defaults
/// meet: ten to the power of a quadratic in log2. None: not asked for.
fn cpu_weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            Some(10f64.powf(exponent).ceil() as u64)
        }
    }
}

/// cgroup v1's 10..=1000 to v2's 1..=10000, linearly.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

fn check_io_weight(field: &str, weight: u16) -> Result<(), Error> {
    if !(10..=1000).contains(&weight) {
        return Err(invalid(field, format!("{weight}: expected 10 to 1000")));
    }
    Ok(())
}

fn block_io_settings(block_io: &BlockIo, out: &mut Vec<Setting>) -> Result<(), Error> {
    if block_io.leaf_weight.is_some_and(|weight| weight != 0) {
        return Err(only_v1("blockIO.leafWeight"));
    }
    // The BFQ scheduler has its own file with v1's scale; without BFQ there is the cost model's.
    let weight_setting = |field: &str, prefix: &str, weight: u16| {
        let general = Setting::new(field, "io.weight", format!("{prefix}{}", io_weight(weight)));
        Setting::new(field, "io.bfq.weight", format!("{prefix}{weight}"))
            .or(Absent::Instead(Box::new(general)))
    };
    if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
        check_io_weight("blockIO.weight", weight)?;
        out.push(weight_setting("blockIO.weight", "", weight));
    }
    for (at, device) in block_io.weight_device.iter().enumerate() {
        let field = format!("blockIO.weightDevice[{at}]");
        if device.leaf_weight.is_some_and(|weight| weight != 0) {
            return Err(only_v1(&format!("{field}.leafWeight")));
        }
        let prefix = format!("{} ", device_number(&field, device.major, device.minor)?);
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            check_io_weight(&format!("{field}.weight"), weight)?;
            out.push(weight_setting(&field, &prefix, weight));
        }
    }
    let throttles: [(&str, &str, &[ThrottleDevice]); 4] = [
        ("throttleReadBpsDevice", "rbps", &block_io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", "wbps", &block_io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", "riops", &block_io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", "wiops", &block_io.throttle_write_iops_device),
    ];
    for (name, key, devices) in throttles {
        for (at, device) in devices.iter().enumerate() {
            let field = format!("blockIO.{name}[{at}]");
            let number = device_number(&field, device.major, device.minor)?;
            let rate = if device.rate == 0 { "max".to_string() } else { device.rate.to_string() };
            out.push(Setting::new(&field, "io.max", format!("{number} {key}={rate}")));
        }
    }
    Ok(())
}

fn device_number(field: &str, major: i64, minor: i64) -> Result<String, Error> {
    for (name, number) in [("major", major), ("minor", minor)] {
        if u32::try_from(number).is_err() {
            return Err(invalid(&format!("{field}.{name}"), format!("{number}: expected a device number")));
        }
    }
    Ok(format!("{major}:{minor}"))
}

fn hugepage_settings(field: &str, limit: &HugepageLimit, out: &mut Vec<Setting>) -> Result<(), Error> {
    let size = &limit.page_size;
    let number = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB"));
    let is_number = |text: &str| {
        !text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !number.is_some_and(is_number) {
        return Err(invalid(
            &format!("{field}.pageSize"),
            format!("{size:?}: expected a size like 64KB, 2MB or 1GB"),
        ));
    }
    let bytes = limit.limit.to_string();
    out.push(Setting::new(field, format!("hugetlb.{size}.max"), bytes.clone()));
    // Reservations are limited too, so that a mapping fails at once and not by SIGBUS; since Linux 5.7.
    out.push(Setting::new(field, format!("hugetlb.{size}.rsvd.max"), bytes).or(Absent::Ignore));
    Ok(())
}

fn refuse_network(network: &Network) -> Result<(), Error> {
    if network.class_id.is_some_and(|class| class != 0) {
        return Err(only_v1("network.classID"));
    }
    if !network.priorities.is_empty() {
        return Err(only_v1("network.priorities"));
    }
    Ok(())
}

/// `unified` comes last: what it says replaces what the other fields were converted to.
fn unified_settings(resources: &Resources, out: &mut Vec<Setting>) -> Result<(), Error> {
    for (file, text) in &resources.unified {
        let field = format!("unified.{file}");
        if file.contains(['/', '\0']) {
            return Err(invalid(&field, "expected a file name, without slashes"));
        }
        if !file.split_once('.').is_some_and(|(controller, rest)| !controller.is_empty() && !rest.is_empty())
        {
            return Err(invalid(&field, "expected the form CONTROLLER.PARAMETER"));
        }
        // The kernel takes one key in each write.
        for line in text.lines() {
            out.push(Setting::new(&field, file.clone(), line));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> Vec<(String, String)> {
        with(json, &InForce::default())
    }

    fn with(json: &str, in_force: &InForce) -> Vec<(String, String)> {
        let resources: Resources = serde_json::from_str(json).unwrap();
        let settings = settings(&resources, in_force).unwrap_or_else(|error| panic!("{json}: {error}"));
        settings.into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    fn error(json: &str) -> String {
        let resources: Resources = serde_json::from_str(json).unwrap();
        match settings(&resources, &InForce::default()) {
            Ok(settings) => panic!("{json}: {settings:?}"),
            Err(error) => error.to_string(),
        }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(file, value)| (file.to_string(), value.to_string())).collect()
    }

    #[test]
    fn nothing_asked_nothing_written() {
        for json in [
            "{}",
            r#"{"memory":{},"cpu":{},"pids":{},"blockIO":{},"network":{},"unified":{}}"#,
            r#"{"memory":{"limit":0,"swap":0,"reservation":0,"kernel":5,"kernelTCP":5,"disableOOMKiller":false}}"#,
            r#"{"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","realtimeRuntime":0},"blockIO":{"weight":0}}"#,
            r#"{"from the future": [1, 2], "memory": {"also": 1}}"#,
        ] {
            assert_eq!(written(json), [], "{json}");
        }
    }

    #[test]
    fn pids() {
        assert_eq!(written(r#"{"pids":{"limit":20}}"#), pairs(&[("pids.max", "20")]));
        assert_eq!(written(r#"{"pids":{"limit":0}}"#), pairs(&[("pids.max", "1")]));
        assert_eq!(written(r#"{"pids":{"limit":-1}}"#), pairs(&[("pids.max", "max")]));
    }

    /// The pairs that runc's own tests name, and v1's ends and default.
    #[test]
    fn shares_become_weights_as_in_runc() {
        for (shares, weight) in [
            (0, None),
            (1, Some(1)),
            (2, Some(1)),
            (3, Some(2)),
            (1024, Some(100)),
            (262_143, Some(10_000)),
            (262_144, Some(10_000)),
            (u64::MAX, Some(10_000)),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        for shares in 2..262_144 {
            let (this, next) = (cpu_weight(shares).unwrap(), cpu_weight(shares + 1).unwrap());
            assert!((1..=10_000).contains(&this) && this <= next, "{shares}: {this}, then {next}");
        }
    }

    #[test]
    fn cpu() {
        assert_eq!(written(r#"{"cpu":{"quota":50000}}"#), pairs(&[("cpu.max", "50000")]));
        assert_eq!(
            written(r#"{"cpu":{"quota":50000,"period":200000}}"#),
            pairs(&[("cpu.max", "50000 200000")])
        );
        assert_eq!(written(r#"{"cpu":{"quota":-1,"period":200000}}"#), pairs(&[("cpu.max", "max 200000")]));
        assert_eq!(written(r#"{"cpu":{"period":200000}}"#), pairs(&[("cpu.max", "max 200000")]));
        let in_force = InForce { cpu_quota: Some("7000".to_string()), ..InForce::default() };
        assert_eq!(with(r#"{"cpu":{"period":200000}}"#, &in_force), pairs(&[("cpu.max", "7000 200000")]));
        assert_eq!(
            written(r#"{"cpu":{"quota":50000,"burst":1000}}"#),
            pairs(&[("cpu.max.burst", "0"), ("cpu.max", "50000"), ("cpu.max.burst", "1000")])
        );
        assert_eq!(written(r#"{"cpu":{"idle":1,"shares":1024}}"#), pairs(&[("cpu.idle", "1")]));
        assert_eq!(
            written(r#"{"cpu":{"idle":0,"shares":1024}}"#),
            pairs(&[("cpu.idle", "0"), ("cpu.weight", "100")])
        );
        assert_eq!(
            written(r#"{"cpu":{"cpus":"0-2,7","mems":"0"}}"#),
            pairs(&[("cpuset.cpus", "0-2,7"), ("cpuset.mems", "0")])
        );
        assert!(error(r#"{"cpu":{"idle":2}}"#).contains("linux.resources.cpu.idle"));
        assert!(error(r#"{"cpu":{"realtimePeriod":5}}"#).contains("cpu.realtimePeriod"));
        assert!(error(r#"{"cpu":{"cpus":"0\n1"}}"#).contains("cpu.cpus"));
    }

    #[test]
    fn memory() {
        assert_eq!(
            written(r#"{"memory":{"limit":100,"swap":150,"reservation":50}}"#),
            pairs(&[("memory.swap.max", "50"), ("memory.max", "100"), ("memory.low", "50")])
        );
        assert_eq!(
            written(r#"{"memory":{"limit":100,"swap":100}}"#),
            pairs(&[("memory.swap.max", "0"), ("memory.max", "100")])
        );
        assert_eq!(
            written(r#"{"memory":{"limit":-1}}"#),
            pairs(&[("memory.swap.max", "max"), ("memory.max", "max")])
        );
        assert_eq!(
            written(r#"{"memory":{"limit":-1,"swap":70}}"#),
            pairs(&[("memory.swap.max", "70"), ("memory.max", "max")])
        );
        assert_eq!(written(r#"{"memory":{"limit":100}}"#), pairs(&[("memory.max", "100")]));
        for (json, field) in [
            (r#"{"memory":{"swap":100}}"#, "memory.swap"),
            (r#"{"memory":{"limit":100,"swap":99}}"#, "memory.swap"),
            (r#"{"memory":{"limit":-5}}"#, "memory.limit"),
            (r#"{"memory":{"reservation":-5}}"#, "memory.reservation"),
            (r#"{"memory":{"swap":-5}}"#, "memory.swap"),
            (r#"{"memory":{"swappiness":5}}"#, "memory.swappiness"),
            (r#"{"memory":{"disableOOMKiller":true}}"#, "memory.disableOOMKiller"),
        ] {
            assert!(error(json).contains(&format!("linux.resources.{field}: ")), "{json}: {}", error(json));
        }
    }

    /// `update` with one of the two: the other is what the kernel has.
    #[test]
    fn memory_and_swap_build_on_what_is_in_force() {
        let in_force = InForce { memory: Some(100), swap: Some(50), ..InForce::default() };
        assert_eq!(with(r#"{"memory":{"swap":250}}"#, &in_force), pairs(&[("memory.swap.max", "150")]));
        assert_eq!(
            with(r#"{"memory":{"limit":120}}"#, &in_force),
            pairs(&[("memory.swap.max", "30"), ("memory.max", "120")])
        );
        assert_eq!(with(r#"{"memory":{"limit":200}}"#, &in_force), pairs(&[("memory.max", "200")]));
        let no_swap_limit = InForce { memory: Some(100), ..InForce::default() };
        assert_eq!(with(r#"{"memory":{"limit":120}}"#, &no_swap_limit), pairs(&[("memory.max", "120")]));
    }

    #[test]
    fn swap_that_a_kernel_cannot_count() {
        let resources: Resources = serde_json::from_str(r#"{"memory":{"limit":100,"swap":100}}"#).unwrap();
        assert_eq!(settings(&resources, &InForce::default()).unwrap()[0].absent, Absent::Ignore);
        let resources: Resources = serde_json::from_str(r#"{"memory":{"limit":100,"swap":200}}"#).unwrap();
        assert_eq!(settings(&resources, &InForce::default()).unwrap()[0].absent, Absent::Error);
    }

    #[test]
    fn block_io() {
        let resources: Resources = serde_json::from_str(r#"{"blockIO":{"weight":1000}}"#).unwrap();
        let all = settings(&resources, &InForce::default()).unwrap();
        assert_eq!((all[0].file.as_str(), all[0].value.as_str()), ("io.bfq.weight", "1000"));
        let Absent::Instead(instead) = &all[0].absent else { panic!("{all:?}") };
        assert_eq!((instead.file.as_str(), instead.value.as_str()), ("io.weight", "10000"));
        assert_eq!((io_weight(10), io_weight(500)), (1, 4950));
        assert_eq!(
            written(
                r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}],
                "weightDevice":[{"major":8,"minor":0,"weight":20}]}}"#
            ),
            pairs(&[("io.bfq.weight", "8:0 20"), ("io.max", "8:0 rbps=1024"), ("io.max", "8:16 wiops=max")])
        );
        assert!(error(r#"{"blockIO":{"weight":9}}"#).contains("blockIO.weight: 9"));
        assert!(error(r#"{"blockIO":{"leafWeight":20}}"#).contains("blockIO.leafWeight"));
        assert!(
            error(r#"{"blockIO":{"weightDevice":[{"major":-1,"minor":0,"weight":20}]}}"#)
                .contains("blockIO.weightDevice[0].major: -1")
        );
    }

    #[test]
    fn the_rest() {
        assert_eq!(
            written(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#),
            pairs(&[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")])
        );
        assert_eq!(
            written(r#"{"rdma":{"mlx5_0":{"hcaHandles":3,"hcaObjects":4},"mlx5_1":{"hcaObjects":1}}}"#),
            pairs(&[("rdma.max", "mlx5_0 hca_handle=3 hca_object=4"), ("rdma.max", "mlx5_1 hca_object=1")])
        );
        assert_eq!(
            written(r#"{"pids":{"limit":5},"unified":{"pids.max":"7","misc.max":"a 1\nb 2"}}"#),
            pairs(&[("pids.max", "5"), ("misc.max", "a 1"), ("misc.max", "b 2"), ("pids.max", "7")])
        );
        for (json, field) in [
            (r#"{"hugepageLimits":[{"pageSize":"2M","limit":1}]}"#, "hugepageLimits[0].pageSize"),
            (r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#, "hugepageLimits[0].pageSize"),
            (r#"{"hugepageLimits":[{"pageSize":"MB","limit":1}]}"#, "hugepageLimits[0].pageSize"),
            (r#"{"unified":{"../x.y":"1"}}"#, "unified.../x.y"),
            (r#"{"unified":{"..":"1"}}"#, "unified..."),
            (r#"{"unified":{"memory":"1"}}"#, "unified.memory"),
            (r#"{"rdma":{"a b":{}}}"#, "rdma.a b"),
            (r#"{"network":{"classID":1}}"#, "network.classID"),
            (r#"{"network":{"priorities":[{"name":"eth0","priority":1}]}}"#, "network.priorities"),
        ] {
            assert!(error(json).contains(&format!("linux.resources.{field}: ")), "{json}: {}", error(json));
        }
    }
}
