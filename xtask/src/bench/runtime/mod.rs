//! Runtime: containers in our machine, by our runtime, crun, runc and a C program that does only the least. In: the image,
//! the disk that upstream suites run on, the C programs of xtask/bench. Out: samples of each command, taken in turn within one
//! boot; counts of system calls and memory. Must never: measure one runtime after the other.

mod calls;
mod plan;
mod report;
mod seccomp;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Run, compile, machine, sample};
use crate::conformance::{self, Guest, Runtime};
use crate::context::Build;
use crate::stage::rootfs::Contents;
use crate::stamp::{copy_whole, remove_tree, write_whole};

pub use report::{TARGETS, summary};

/// The last line of `measure`: its own memory, below which none can be told.
const ITSELF: &str = "itself";
/// How often it is tried whether a container starts under a small limit.
const LIMITED_TRIES: u32 = 10;
/// Deadlines end what hangs: a round takes seconds, a command a fraction of one.
const ROUND: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_secs(120);
const FILL: Duration = Duration::from_secs(1800);

/// Measures in `rounds` rounds.
pub fn run(build: &Build, rounds: u32) -> Result<Run> {
    let image = crate::cmd::iso::make(build, &Contents::default())?;
    let disk = conformance::disk(build)?;
    let acceleration = crate::vm::probe(build)?;
    let room = build.layout.target().join("bench/room/runtime");
    let filtered = share(build, &room)?;
    let log = build.layout.notes().join("log/bench-runtime.log");
    let files = crate::cmd::qemu::files(&image);
    let guest = Guest::boot(build, &files, &disk, acceleration, room, &log)?;
    let mut bench = Bench { build, guest, rounds, samples: BTreeMap::new(), counts: BTreeMap::new() };
    bench.command("sh /run/conformance/arrange", STEP)?;
    let mut facts = machine(
        build,
        &[("acceleration", format!("{acceleration:?}")), ("image", image.iso.0.sha256.clone())],
    );
    for runtime in plan::RUNTIMES {
        facts.insert(runtime.name().to_owned(), bench.guest.version(runtime)?);
    }
    let guest_kernel = bench.command("uname -r", STEP)?;
    facts.insert("kernel of the machine".to_owned(), guest_kernel.trim().to_owned());
    bench.limited()?;
    bench.count_calls()?;
    bench.containers(filtered)?;
    bench.lists()?;
    Ok(Run { kind: "runtime".to_owned(), machine: facts, samples: bench.samples, counts: bench.counts })
}

/// Fills the folder that the machine shares. Returns whether there is a profile to filter with.
fn share(build: &Build, room: &Path) -> Result<bool> {
    remove_tree(room)?;
    std::fs::create_dir_all(room).with_context(|| format!("{}: cannot create", room.display()))?;
    copy_whole(&conformance::share_folder(build).join("enter"), &room.join("enter"))?;
    copy_whole(&build.layout.shares().join("bench/arrange"), &room.join("arrange"))?;
    for name in [plan::FLOOR, "measure"] {
        compile(build, name, room.join(name))?;
    }
    match seccomp::profile(build) {
        Ok(profile) => write_whole(&room.join("seccomp.json"), profile.as_bytes()).map(|()| true),
        Err(error) => {
            build.ui.say("bench", &format!("without docker's filter: {error:#}"));
            Ok(false)
        }
    }
}

struct Bench<'a> {
    build: &'a Build,
    guest: Guest,
    rounds: u32,
    samples: BTreeMap<String, Vec<f64>>,
    counts: BTreeMap<String, f64>,
}

impl Bench<'_> {
    fn command(&mut self, command: &str, deadline: Duration) -> Result<String> {
        let said = self.guest.command(command, deadline)?;
        if said.status != 0 {
            // A plan's lines are many, and the first one tells what it is.
            let first = command.lines().next().unwrap_or_default();
            bail!("in the machine, status {} of `{first}`: {}", said.status, said.text.trim());
        }
        Ok(said.text)
    }

    /// How many of some containers start under a limit of 512 kB.
    fn limited(&mut self) -> Result<()> {
        for runtime in plan::RUNTIMES {
            let run = plan::make(runtime, "run", "limited", "limited");
            let delete = format!("{} delete --force limited", plan::program(runtime));
            let said = self.command(
                &format!(
                    "n=0; for i in $(seq {LIMITED_TRIES}); do {run} > /tmp/limited 2>&1 && n=$((n+1)) || {delete} > /dev/null 2>&1; done; echo $n; cat /tmp/limited >&2"
                ),
                FILL,
            )?;
            let mut lines = said.lines().filter(|line| !line.trim().is_empty());
            let started: f64 = lines
                .next()
                .and_then(|line| line.trim().parse().ok())
                .context("the machine counted no starts")?;
            for line in lines {
                self.build.ui.say(runtime.name(), &format!("under 512 kB: {line}"));
            }
            self.counts.insert(report::limited(LIMITED_TRIES, runtime.name()), started);
        }
        Ok(())
    }

    /// System calls of a foreground run, and for ours where they spend their time.
    fn count_calls(&mut self) -> Result<()> {
        for runtime in plan::RUNTIMES {
            let run = plan::make(runtime, "run", "plain", "traced");
            let said = self.command(&format!("/suites/bench/measure calls {run}"), STEP)?;
            let calls = calls::parse(&said)?;
            if runtime == Runtime::Ours {
                let path = self.build.layout.target().join("bench/runtime-calls.txt");
                write_whole(&path, calls::profile(&calls).as_bytes())?;
                self.build.ui.say("bench", &path.display().to_string());
            }
            self.counts.insert(report::system_calls(runtime.name()), calls::count(&calls) as f64);
        }
        Ok(())
    }

    fn containers(&mut self, filtered: bool) -> Result<()> {
        for runtime in plan::RUNTIMES {
            let run = plan::make(runtime, "run -d", "sleeping", &plan::held(runtime));
            self.command(&format!("{run} > /dev/null"), STEP)?;
        }
        let state =
            format!("{} state {} | jq -M .pid", plan::program(Runtime::Ours), plan::held(Runtime::Ours));
        let pid = self.command(&state, STEP)?;
        self.measure(&plan::containers(filtered, pid.trim()))
    }

    fn lists(&mut self) -> Result<()> {
        for runtime in plan::RUNTIMES {
            self.build.ui.say("bench", &format!("{} containers by {}", plan::LISTED, runtime.name()));
            // One is there already.
            let run = plan::make(runtime, "run -d", "sleeping", &format!("list-{}-$i", runtime.name()));
            self.command(
                &format!("set -e; for i in $(seq 2 {}); do {run} > /dev/null; done", plan::LISTED),
                FILL,
            )?;
        }
        self.measure(&plan::lists())
    }

    /// Has a plan's samples taken.
    fn measure(&mut self, plan: &str) -> Result<()> {
        self.build.ui.say("bench", &format!("runtime, {} rounds", self.rounds));
        let command = format!("/suites/bench/measure rounds {} <<'PLAN'\n{plan}PLAN", self.rounds);
        let said = self.command(&command, STEP + ROUND * self.rounds)?;
        for line in said.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, seconds, peak) = sample(line).with_context(|| format!("{line:?}: not a sample"))?;
            if name != ITSELF {
                self.samples.entry(name.to_owned()).or_default().push(seconds);
            }
            let most = self.counts.entry(report::memory(name)).or_default();
            *most = most.max(peak);
        }
        Ok(())
    }
}
