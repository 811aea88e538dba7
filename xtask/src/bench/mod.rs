//! Measurements: boot, build, runtime and network. In: the image, this checkout. Out: a table on stdout, target/bench/*.json with
//! facts of the machine, a timeline as SVG; a comparison with an earlier file. Must never: call noise a change: see `stats`.

pub mod boot;
pub mod build;
mod chart;
mod debian;
mod floor;
pub mod network;
mod places;
pub mod runtime;
mod stats;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cli::{BenchArgs, Benched};
use crate::context::Build;
use crate::stamp::write_whole;

/// How often each thing is measured where nobody says it: what takes milliseconds more often.
const ROUNDS: u32 = 10;
const NETWORK_ROUNDS: u32 = 50;

/// One run of a bench, as its file has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    /// `boot`, `build`, `runtime` or `network`.
    kind: String,
    machine: BTreeMap<String, String>,
    /// Seconds, by what was measured.
    samples: BTreeMap<String, Vec<f64>>,
    /// What is no time, by what was counted.
    #[serde(default)]
    counts: BTreeMap<String, f64>,
}

/// Measures, reports, compares.
pub fn run(build: &Build, args: &BenchArgs) -> Result<()> {
    let earlier = args.compare.as_deref().map(load).transpose()?;
    let rounds = args.rounds.unwrap_or(match args.what {
        Benched::Network => NETWORK_ROUNDS,
        _ => ROUNDS,
    });
    let run = match args.what {
        Benched::Boot => boot::run(build, rounds)?,
        Benched::Build => build::run(build, rounds, args.kernel)?,
        Benched::Runtime => runtime::run(build, rounds)?,
        Benched::Network => network::run(build, rounds, args.here)?,
    };
    let path = save(build, &run)?;
    let mut out = table(&run);
    match args.what {
        Benched::Runtime => out += &runtime::summary(&run),
        Benched::Network => out += &network::summary(&run),
        _ => {}
    }
    if let Some(earlier) = &earlier {
        out += &comparison(earlier, &run);
    }
    print!("{out}");
    build.ui.say("bench", &path.display().to_string());
    Ok(())
}

fn load(path: &Path) -> Result<Run> {
    let text = std::fs::read(path).with_context(|| format!("--compare {}: cannot read", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("--compare {}: not a bench's file", path.display()))
}

fn save(build: &Build, run: &Run) -> Result<PathBuf> {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let path = build.layout.target().join("bench").join(format!("{}-{now}.json", run.kind));
    write_whole(&path, &serde_json::to_vec_pretty(run)?)?;
    Ok(path)
}

/// What a number depends on besides the code.
fn machine(build: &Build, more: &[(&str, String)]) -> BTreeMap<String, String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let facts = [
        ("cpu", model.map_or("unknown", |(_, model)| model).to_owned()),
        ("cores", build.host.cores.to_string()),
        ("kernel", kernel),
        ("load at the start", load.split(' ').next().unwrap_or_default().to_owned()),
    ];
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(more).collect()
}

/// Compiles a C program of xtask/bench.
fn compile(build: &Build, name: &str, program: PathBuf) -> Result<()> {
    let source = build.layout.root().join("xtask/bench").join(format!("{name}.c"));
    let mut gcc = Command::new(build.host.require("gcc")?);
    gcc.args(["-O2", "-Wall", "-Werror", "-static", "-s", "-o"]).arg(program).arg(source);
    debian::run(&mut gcc).map(drop)
}

/// What `measure` says: `NAME <tab> nanoseconds <tab> kB`, as name, seconds and MB.
fn sample(line: &str) -> Option<(&str, f64, f64)> {
    let mut fields = line.split('\t');
    let name = fields.next()?;
    let (nanoseconds, peak): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((name, nanoseconds / 1e9, peak * 1024.0 / 1e6))
}

fn table(run: &Run) -> String {
    let mut out = "  median  quartiles        n  seconds for\n".to_owned();
    for (name, samples) in &run.samples {
        let (low, middle, high) = stats::quartiles(samples);
        out += &format!("{middle:>8.3}  {low:>6.3} {high:>6.3} {:>5}  {name}\n", samples.len());
    }
    for (name, count) in &run.counts {
        out += &format!("{count:>8.2}  {name}\n");
    }
    // By what they are targets of: those of a bench that did not run have no samples.
    for &(name, of, at_most) in boot::TARGETS.iter().chain(runtime::TARGETS).chain(network::TARGETS) {
        if let (Some(one), Some(other)) = (run.median(name), run.median(of)) {
            let ratio = one / other;
            out += &format!(
                "{ratio:>8.2}  {name} / {of}: target at most {at_most}, {}\n",
                kept(ratio <= at_most)
            );
        }
    }
    out
}

fn kept(kept: bool) -> &'static str {
    if kept { "kept" } else { "missed" }
}

impl Run {
    /// The median of what was measured under this name.
    fn median(&self, name: &str) -> Option<f64> {
        self.samples.get(name).map(|samples| stats::quartiles(samples).1)
    }
}

/// What became of each measurement since `earlier`.
fn comparison(earlier: &Run, now: &Run) -> String {
    let mut out = format!("\n    then       now  since then ({})\n", stats::HOW);
    let differing =
        |name: &&String| earlier.machine.get(*name) != now.machine.get(*name) && !name.starts_with("load");
    for name in now.machine.keys().filter(differing) {
        out += &format!("                    another machine: {name}\n");
    }
    for (name, samples) in &now.samples {
        let Some(before) = earlier.samples.get(name) else { continue };
        let (then, now) = (stats::quartiles(before).1, stats::quartiles(samples).1);
        out += &format!("{then:>8.3}  {now:>8.3}  {name}: {}\n", stats::verdict(before, samples));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_name_and_two_numbers() {
        assert_eq!(sample("exec: ours\t1500000\t1000"), Some(("exec: ours", 0.0015, 1.024)));
        assert_eq!(sample("measure: exec: ours: status 0x100"), None);
    }

    #[test]
    fn a_comparison_names_what_changed_and_the_other_machine() {
        let run = |cpu: &str, base: f64| Run {
            kind: "boot".to_owned(),
            machine: BTreeMap::from([("cpu".to_owned(), cpu.to_owned())]),
            samples: BTreeMap::from([(
                "ready".to_owned(),
                (0..10).map(|step| base + f64::from(step) / 100.0).collect(),
            )]),
            counts: BTreeMap::new(),
        };
        let text = comparison(&run("a", 1.0), &run("b", 2.0));
        assert!(text.contains("another machine: cpu") && text.contains("ready: slower"), "{text}");
        let text = comparison(&run("a", 1.0), &run("a", 1.0));
        assert!(!text.contains("another machine") && text.contains("ready: noise"), "{text}");
    }
}
