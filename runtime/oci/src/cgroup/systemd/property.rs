//! What is written to a cgroup's files, as properties of its unit: systemd writes those again whenever it reads its
//! configuration anew, so it has to know them.
//!
//! In: `Setting`s, what is in force. Out: properties. Must never: refuse a value: the file's write does, by its
//! field.

use crate::cgroup::limits::Absent;
use crate::cgroup::limits::Setting;
use crate::report;
use crate::topic::schedule::number_set;

use super::wire::Value;

/// A unit's property.
pub type Property = (String, Value);

/// systemd's word for no limit, and for "not set".
const INFINITY: u64 = u64::MAX;
/// cpu.max's period in a new cgroup.
const PERIOD_US: u64 = 100_000;
/// systemd notes a quota down in hundredths of a processor.
const QUOTA_STEP_US: u64 = 10_000;
/// No machine has more processors or memory nodes.
const LIST_MAX: usize = 1 << 16;

/// What there is to know of a cgroup that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The period of cpu.max.
    pub period_us: u64,
    /// Whether the cgroup is idle.
    pub is_idle: bool,
}

impl Default for Known {
    fn default() -> Known {
        Known { period_us: PERIOD_US, is_idle: false }
    }
}

impl Known {
    /// From the texts of cpu.max and cpu.idle, empty where there are none.
    pub fn of(cpu_max: &str, cpu_idle: &str) -> Known {
        let period = cpu_max.split_whitespace().nth(1).and_then(|period| period.parse().ok());
        Known { period_us: period.unwrap_or(PERIOD_US), is_idle: cpu_idle.trim() == "1" }
    }
}

/// The properties for `settings`; files that systemd has none for are left out. Of two on one
/// property systemd takes the last.
pub fn of_settings(settings: &[Setting], known: Known) -> Vec<Property> {
    let mut all: Vec<Property> = Vec::new();
    let mut set = |name: &str, value: Value| all.push((name.to_string(), value));
    for setting in settings {
        if let Absent::Instead(instead) = &setting.absent {
            // systemd has one scale for both files, that of io.weight.
            if let Ok(weight) = instead.value.parse() {
                set("IOWeight", Value::u64(weight));
            }
            continue;
        }
        let value = setting.value.trim();
        match setting.file.as_str() {
            "cpu.max" => {
                let (quota, period) = value.split_once(' ').unwrap_or((value, ""));
                let period = period.trim().parse().ok().filter(|period| *period != 0);
                if let Some(period) = period {
                    set("CPUQuotaPeriodUSec", Value::u64(period));
                }
                if let Some(quota) = number(quota) {
                    set(
                        "CPUQuotaPerSecUSec",
                        Value::u64(per_second(quota, period.unwrap_or(known.period_us))),
                    );
                }
            }
            // The weight 0 is systemd's word for idle, and without a weight of its own a cgroup is not.
            "cpu.idle" if value == "1" => set("CPUWeight", Value::u64(0)),
            "cpu.idle" if known.is_idle => set("CPUWeight", Value::u64(INFINITY)),
            "cpuset.cpus" | "cpuset.mems" => {
                if let Some(bits) = bits(value) {
                    let is_cpus = setting.file == "cpuset.cpus";
                    set(if is_cpus { "AllowedCPUs" } else { "AllowedMemoryNodes" }, Value::Bytes(bits));
                }
            }
            file => {
                if let Some((name, number)) = name(file).zip(number(value)) {
                    set(name, Value::u64(number));
                }
            }
        }
    }
    all
}

/// Makes `cpu.max` what systemd keeps and writes itself at its next `daemon-reload`: until then the file would have another quota.
/// And a period in force is said again: with a quota alone systemd writes its own. Beside `cpu.idle` it has no weight.
pub fn as_kept(settings: &mut Vec<Setting>, known: Known) {
    let all = settings.len();
    if settings.iter().any(|setting| setting.file == "cpu.idle" && setting.value.trim() == "1") {
        settings.retain(|setting| setting.file != "cpu.weight");
    }
    if settings.len() != all {
        report::warn("unable to apply both cpu.weight and cpu.idle: idle is taken");
    }
    for setting in settings.iter_mut().filter(|setting| setting.file == "cpu.max") {
        let (quota, period) = setting.value.trim().split_once(' ').unwrap_or((setting.value.trim(), ""));
        let period_us = match period.trim() {
            "" => known.period_us,
            // What is no period the write refuses.
            text => match text.parse() {
                Ok(0) | Err(_) => continue,
                Ok(period_us) => period_us,
            },
        };
        let quota = match quota.parse() {
            Ok(number) => match per_second(number, period_us) {
                INFINITY => continue,
                kept => (u128::from(kept) * u128::from(period_us) / 1_000_000).to_string(),
            },
            Err(_) => quota.to_string(),
        };
        let is_default = period.is_empty() && period_us == PERIOD_US;
        setting.value = if is_default { quota } else { format!("{quota} {period_us}") };
    }
}

/// Files with one number.
fn name(file: &str) -> Option<&'static str> {
    Some(match file {
        "cpu.weight" => "CPUWeight",
        "io.weight" => "IOWeight",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.max" => "MemoryMax",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        _ => return None,
    })
}

fn number(text: &str) -> Option<u64> {
    if text == "max" { Some(INFINITY) } else { text.parse().ok() }
}

/// Processor time a second, rounded up: systemd would round down, and a quota below the one that was asked for is worse.
fn per_second(quota: u64, period: u64) -> u64 {
    if quota == INFINITY {
        return INFINITY;
    }
    let exact = quota.checked_mul(1_000_000).map(|scaled| scaled / period.max(1));
    exact.and_then(|exact| exact.checked_next_multiple_of(QUOTA_STEP_US)).unwrap_or(INFINITY)
}

/// `0-2,7` as a set of bits, the lowest first.
fn bits(list: &str) -> Option<Vec<u8>> {
    // The kernel passes over ranges that are empty.
    let ranges: Vec<&str> = list.split(',').map(str::trim).filter(|range| !range.is_empty()).collect();
    let words = number_set(&ranges.join(","), LIST_MAX).ok()?;
    let mut bits: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    bits.truncate(bits.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::limits;
    use crate::cgroup::limits::InForce;

    fn of(json: &str, known: Known) -> Vec<(String, Value)> {
        let resources = serde_json::from_str(json).unwrap();
        of_settings(&limits::settings(&resources, &InForce::default()).unwrap(), known)
    }

    fn numbers(json: &str) -> Vec<(String, u64)> {
        let number = |(name, value)| match value {
            Value::Number(b't', number) => (name, number),
            other => panic!("{name}: {other:?}"),
        };
        of(json, Known::default()).into_iter().map(number).collect()
    }

    fn expected(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
        pairs.iter().map(|(name, number)| (name.to_string(), *number)).collect()
    }

    #[test]
    fn limits_are_properties() {
        for (json, pairs) in [
            (
                r#"{"memory":{"limit":100,"swap":150,"reservation":50}}"#,
                &[("MemorySwapMax", 50), ("MemoryMax", 100), ("MemoryLow", 50)][..],
            ),
            (
                r#"{"memory":{"limit":-1},"pids":{"limit":-1}}"#,
                &[("TasksMax", INFINITY), ("MemorySwapMax", INFINITY), ("MemoryMax", INFINITY)],
            ),
            (r#"{"pids":{"limit":20},"cpu":{"shares":1024}}"#, &[("TasksMax", 20), ("CPUWeight", 100)]),
            (
                r#"{"cpu":{"quota":50000,"period":200000}}"#,
                &[("CPUQuotaPeriodUSec", 200_000), ("CPUQuotaPerSecUSec", 250_000)],
            ),
            (r#"{"cpu":{"quota":33333}}"#, &[("CPUQuotaPerSecUSec", 340_000)]),
            (
                r#"{"cpu":{"quota":-1,"period":200000}}"#,
                &[("CPUQuotaPeriodUSec", 200_000), ("CPUQuotaPerSecUSec", INFINITY)],
            ),
            (r#"{"cpu":{"idle":1,"shares":1024}}"#, &[("CPUWeight", 0)]),
            (r#"{"cpu":{"idle":0}}"#, &[]),
            (r#"{"blockIO":{"weight":500}}"#, &[("IOWeight", 4950)]),
            (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#, &[]),
        ] {
            assert_eq!(numbers(json), expected(pairs), "{json}");
        }
    }

    #[test]
    fn unified_has_the_last_word() {
        let json = r#"{"memory":{"limit":100},"pids":{"limit":5},"cpu":{"quota":1000},
            "unified":{"memory.max":"200","memory.high":"150","memory.min":"1","pids.max":" max ","cpu.max":"5000 50000",
            "cpu.weight":"42","memory.low":"many","misc.max":"a 1"}}"#;
        let pairs = [
            ("TasksMax", 5),
            ("MemoryMax", 100),
            ("CPUQuotaPerSecUSec", 10_000),
            ("CPUQuotaPeriodUSec", 50_000),
            ("CPUQuotaPerSecUSec", 100_000),
            ("CPUWeight", 42),
            ("MemoryHigh", 150),
            ("MemoryMax", 200),
            ("MemoryMin", 1),
            ("TasksMax", INFINITY),
        ];
        assert_eq!(numbers(json), expected(&pairs));
    }

    #[test]
    fn what_is_in_force_counts() {
        let known = Known::of("max 50000\n", "1\n");
        assert_eq!(known, Known { period_us: 50_000, is_idle: true });
        assert_eq!(Known::of("", ""), Known::default());
        let quota = of(r#"{"cpu":{"quota":50000}}"#, known);
        assert_eq!(quota, [("CPUQuotaPerSecUSec".to_string(), Value::u64(1_000_000))]);
        assert_eq!(of(r#"{"cpu":{"idle":0}}"#, known), [("CPUWeight".to_string(), Value::u64(INFINITY))]);
        assert_eq!(per_second(u64::MAX - 1, 1), INFINITY);
    }

    #[test]
    fn cpu_max_is_what_systemd_keeps() {
        let (fresh, known) = (Known::default(), Known::of("max 900000", ""));
        for (value, known, kept) in [
            ("500000 900000", fresh, "504000 900000"),
            ("50000 100000", fresh, "50000 100000"),
            ("33333", fresh, "34000"),
            ("max 900000", fresh, "max 900000"),
            ("max", fresh, "max"),
            ("max", known, "max 900000"),
            ("600000", known, "603000 900000"),
            ("5000 many", fresh, "5000 many"),
            ("many 5000", fresh, "many 5000"),
        ] {
            let mut settings = vec![Setting {
                field: String::new(),
                file: "cpu.max".to_string(),
                value: value.to_string(),
                absent: Absent::Error,
            }];
            as_kept(&mut settings, known);
            assert_eq!(settings[0].value, kept);
            // And stays so.
            as_kept(&mut settings, known);
            assert_eq!(settings[0].value, kept);
        }
    }

    #[test]
    fn an_idle_cgroup_has_no_weight() {
        let files = |idle: &str| {
            let json = format!(r#"{{"unified":{{"cpu.idle":"{idle}","cpu.weight":"8"}}}}"#);
            let resources = serde_json::from_str(&json).unwrap();
            let mut settings = limits::settings(&resources, &InForce::default()).unwrap();
            as_kept(&mut settings, Known::default());
            settings.into_iter().map(|setting| setting.file).collect::<Vec<_>>()
        };
        assert_eq!(files("1"), ["cpu.idle"]);
        assert_eq!(files("0"), ["cpu.idle", "cpu.weight"]);
    }

    #[test]
    fn lists_are_bits() {
        for (list, expected) in [
            ("0", Some(&[1][..])),
            ("1-3,8", Some(&[0b1110, 1])),
            ("0-2, 7", Some(&[0x87])),
            ("16", Some(&[0, 0, 1])),
            ("", Some(&[])),
            ("x", None),
            ("0-99999999999", None),
            ("-1", None),
        ] {
            assert_eq!(bits(list).as_deref(), expected, "{list}");
        }
        let json = r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#;
        let list = |byte| Value::Bytes(vec![byte]);
        let expected = [("AllowedCPUs".to_string(), list(3)), ("AllowedMemoryNodes".to_string(), list(1))];
        assert_eq!(of(json, Known::default()), expected);
    }
}
