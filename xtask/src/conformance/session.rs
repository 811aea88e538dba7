//! Chosen files, runtimes -> results. In: a disk with the suites. Out: for each suite and runtime how its cases ended. Must
//! never: take a case that failed once and passed once for failed: the suites have races of their own.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;

use super::guest::{Guest, Machine, Runtime, TestFile};
use super::judge::{self, Known, Results};
use super::suites::{Found, Suite};
use super::{report, share_folder, tap};
use crate::artifact::Artifact;
use crate::context::Build;
use crate::stage::rootfs::Contents;
use crate::vm::{Acceleration, Files};

/// What each runtime gave in each suite.
pub type Gathered = BTreeMap<(Suite, Runtime), Results>;

/// A machine that suites run in, booted anew where it no longer answers.
#[derive(Debug)]
pub struct Session<'a> {
    build: &'a Build,
    files: Files,
    disk: Artifact,
    acceleration: Acceleration,
    machine: Machine,
    guest: Guest,
}

impl<'a> Session<'a> {
    /// Makes the image, and boots it in the way that `machine` says, with `disk`.
    pub fn start(build: &'a Build, disk: Artifact, machine: Machine) -> Result<Self> {
        let image = crate::cmd::iso::make(build, &Contents::default())?;
        let acceleration = crate::vm::probe(build)?;
        let files = crate::cmd::qemu::files(&image);
        let guest = boot(build, &files, &disk, acceleration, machine)?;
        Ok(Self { build, files, disk, acceleration, machine, guest })
    }

    /// The machine.
    pub fn guest(&mut self) -> &mut Guest {
        &mut self.guest
    }

    /// Runs `chosen` with ours and each of `against`, and once more what speaks against ours.
    pub fn gather(
        &mut self,
        suites: &[(Suite, &Found)],
        chosen: &[TestFile],
        against: &[Runtime],
        known: &Known,
    ) -> Result<Gathered> {
        let mut runtimes = vec![Runtime::Ours];
        runtimes.extend(against);
        let mut results = Gathered::new();
        for &(suite, found) in suites {
            if let Some(why) = &found.passed_over {
                let said = format!("suite {}: {} is taken, since {why}", suite.name(), found.version);
                self.build.ui.say("conformance", &said);
            }
            for &runtime in &runtimes {
                let empty = Results {
                    suite,
                    suite_version: found.version.clone(),
                    runtime: runtime.name().to_owned(),
                    runtime_version: self.guest.version(runtime)?,
                    files: BTreeMap::new(),
                };
                results.insert((suite, runtime), empty);
            }
        }
        for file in chosen {
            for &runtime in &runtimes {
                let cases = self.run(file, runtime)?;
                if let Some(results) = results.get_mut(&(file.suite, runtime)) {
                    results.files.insert(file.name.clone(), cases);
                }
            }
        }
        for &(suite, _) in suites {
            self.run_again(suite, chosen, &mut results, known)?;
        }
        Ok(results)
    }

    /// The suites have races of their own, which a slow machine loses now and then: what speaks against ours has to do so
    /// twice.
    fn run_again(
        &mut self,
        suite: Suite,
        chosen: &[TestFile],
        results: &mut Gathered,
        known: &Known,
    ) -> Result<()> {
        let Some(ours) = results.get(&(suite, Runtime::Ours)).cloned() else { return Ok(()) };
        let Ok(reference) = report::own_reference(self.build, results, &ours) else { return Ok(()) };
        for name in judge::faulted(&ours, &reference, known) {
            let Some(file) = chosen.iter().find(|file| file.suite == suite && file.name == name) else {
                continue;
            };
            let again = self.run(file, Runtime::Ours)?;
            let ours = results.get_mut(&(suite, Runtime::Ours));
            if let Some(cases) = ours.and_then(|results| results.files.get_mut(&name)) {
                *cases = judge::either(cases, &again);
            }
        }
        Ok(())
    }

    /// Runs one file, and says how it went.
    fn run(&mut self, file: &TestFile, runtime: Runtime) -> Result<Vec<tap::Case>> {
        let started = Instant::now();
        let (text, status) = match self.guest.run(file, runtime) {
            Ok(said) => (said.text, said.status),
            Err(error) => {
                // A machine that does not answer is thrown away; the file's cases have not run.
                self.build.ui.say("conformance", &format!("{}: {error:#}", file.name));
                self.guest = boot(self.build, &self.files, &self.disk, self.acceleration, self.machine)?;
                (String::new(), -1)
            }
        };
        let mut cases = tap::parse(&text, status);
        if cases.is_empty() {
            let why = format!("status {status}: {}", text.trim());
            cases.push(("*".to_owned(), tap::Verdict::NotRun(why)));
        }
        let passed = cases.iter().filter(|(_, verdict)| *verdict == tap::Verdict::Pass).count();
        let seconds = started.elapsed().as_secs_f64();
        let said = format!("{}: {passed} of {} pass ({seconds:.0} s)", file.name, cases.len());
        self.build.ui.say(runtime.name(), &said);
        Ok(cases)
    }
}

/// A machine of a session. Its serial log is in target/xtask/conformance/.
fn boot(
    build: &Build,
    files: &Files,
    disk: &Artifact,
    acceleration: Acceleration,
    machine: Machine,
) -> Result<Guest> {
    let log = build.layout.notes().join(format!("conformance/serial-{}.log", machine.name()));
    match machine {
        Machine::Image => Guest::boot(build, files, disk, acceleration, share_folder(build), &log),
        Machine::Systemd => {
            Guest::boot_systemd(build, files, disk, acceleration, build.layout.shares(), &log)
        }
    }
}
