//! `conformance`: upstream suites against our runtime and references, in our machine. In: `Plan`. Out: a table on stdout,
//! JSON in target/xtask/conformance/, exit status 1 when a case that the reference passes is not passed and not listed, or one
//! that is listed passes. Must never: take its word from anything but the suites.

mod callers;
mod debian;
mod guest;
mod judge;
mod programs;
mod root;
mod suites;
mod tap;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::artifact::Artifact;
use crate::cli::OciSuitesArgs;
use crate::context::Build;
use crate::stage::rootfs::Contents;
use crate::stamp::write_whole;
use guest::TestFile;
use judge::{Known, Results};
use suites::{Found, Suites};

pub use callers::{Caller, run as run_callers};
pub use guest::{Guest, Runtime, profile};
pub use suites::Suite;

/// Which third, or which share of another count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// From 1.
    pub number: usize,
    /// Of how many.
    pub count: usize,
}

/// What to run.
#[derive(Debug)]
pub struct Plan {
    /// The suites.
    pub suites: Vec<Suite>,
    /// References to run as well; none: the recorded results are compared with.
    pub against: Vec<Runtime>,
    /// Which share of the files.
    pub part: Part,
    /// Only files whose names contain one of these; empty: all.
    pub files: Vec<String>,
    /// Whether what the references gave is written into the checkout.
    pub record: bool,
}

impl Plan {
    /// What was said, with all suites where none is named.
    pub fn resolve(args: OciSuitesArgs) -> Self {
        let suites = if args.suite.is_empty() { Suite::ALL.to_vec() } else { args.suite };
        Self { suites, against: args.against, part: args.part, files: args.files, record: args.record }
    }
}

/// The versions of both suites.
struct Sources {
    runc: Found,
    crun: Found,
}

/// Runs the suites.
pub fn run(build: &Build, plan: &Plan) -> Result<ExitCode> {
    let suites = Suites::load(build)?;
    let known = Known::load(&build.layout.conformance().join("known.toml"))?;
    let image = crate::cmd::iso::make(build, &Contents::default())?;
    let sources = Sources::find(build, &suites)?;
    let disk = sources.disk(build, &suites)?;
    let acceleration = crate::vm::probe(build)?;
    let files = crate::cmd::qemu::files(&image);
    let (shared, log) = (share_folder(build), build.layout.notes().join("conformance/serial.log"));
    let boot = || Guest::boot(build, &files, &disk, acceleration, shared.clone(), &log);
    let mut guest = boot()?;

    let mut all = Vec::new();
    for &suite in &plan.suites {
        all.extend(guest.files(suite)?);
    }
    let mut chosen = share(all, plan.part);
    chosen.retain(|file| {
        plan.files.is_empty() || plan.files.iter().any(|word| file.name.contains(word.as_str()))
    });
    let Part { number, count } = plan.part;
    build.ui.say("conformance", &format!("part {number} of {count}: {} files", chosen.len()));

    let mut runtimes = vec![Runtime::Ours];
    runtimes.extend(&plan.against);
    let mut results: BTreeMap<(Suite, Runtime), Results> = BTreeMap::new();
    for &suite in &plan.suites {
        for &runtime in &runtimes {
            let found = sources.of(suite);
            if let Some(why) = &found.passed_over {
                build.ui.say(
                    "conformance",
                    &format!("suite {}: {} is taken, since {why}", suite.name(), found.version),
                );
            }
            let runtime_version = guest.version(runtime)?;
            let empty = Results {
                suite,
                suite_version: found.version.clone(),
                runtime: runtime.name().to_owned(),
                runtime_version,
                files: BTreeMap::new(),
            };
            results.insert((suite, runtime), empty);
        }
    }
    for file in &chosen {
        for &runtime in &runtimes {
            let cases = run_file(build, &mut guest, &boot, file, runtime)?;
            if let Some(results) = results.get_mut(&(file.suite, runtime)) {
                results.files.insert(file.name.clone(), cases);
            }
        }
    }
    // The suites have races of their own, which a slow machine loses now and then: what speaks against ours has to do so
    // twice.
    for &suite in &plan.suites {
        let Some(ours) = results.get(&(suite, Runtime::Ours)).cloned() else { continue };
        let Ok(reference) = own_reference(build, &results, &ours) else { continue };
        for name in judge::faulted(&ours, &reference, &known) {
            let Some(file) = chosen.iter().find(|file| file.suite == suite && file.name == name) else {
                continue;
            };
            let again = run_file(build, &mut guest, &boot, file, Runtime::Ours)?;
            if let Some(cases) =
                results.get_mut(&(suite, Runtime::Ours)).and_then(|results| results.files.get_mut(&name))
            {
                *cases = judge::either(cases, &again);
            }
        }
    }
    report(build, plan, &known, &results)
}

/// Runs one file, and says how it went. `boot` makes another machine where this one no longer answers.
fn run_file(
    build: &Build,
    guest: &mut Guest,
    boot: &impl Fn() -> Result<Guest>,
    file: &TestFile,
    runtime: Runtime,
) -> Result<Vec<tap::Case>> {
    let started = std::time::Instant::now();
    let (text, status) = match guest.run(file, runtime) {
        Ok(said) => (said.text, said.status),
        Err(error) => {
            // A machine that does not answer is thrown away; the file's cases have not run.
            build.ui.say("conformance", &format!("{}: {error:#}", file.name));
            *guest = boot()?;
            (String::new(), -1)
        }
    };
    let mut cases = tap::parse(&text, status);
    if cases.is_empty() {
        cases.push(("*".to_owned(), tap::Verdict::NotRun(format!("status {status}: {}", text.trim()))));
    }
    let passed = cases.iter().filter(|(_, verdict)| *verdict == tap::Verdict::Pass).count();
    let seconds = started.elapsed().as_secs_f64();
    let said = format!("{}: {passed} of {} pass ({seconds:.0} s)", file.name, cases.len());
    build.ui.say(runtime.name(), &said);
    Ok(cases)
}

/// The disk that the suites run on, for others who want references and a Debian to run them in.
pub fn disk(build: &Build) -> Result<Artifact> {
    let suites = Suites::load(build)?;
    Sources::find(build, &suites)?.disk(build, &suites)
}

/// The disk with the real callers, for others who want a Debian with nft and iptables.
pub fn callers_disk(build: &Build) -> Result<Artifact> {
    root::callers(build, &Suites::load(build)?.callers)
}

/// The folder that the machine shares: `enter` and what the suites are run by.
pub fn share_folder(build: &Build) -> PathBuf {
    build.layout.qemu().join("shares/conformance")
}

impl Sources {
    fn find(build: &Build, suites: &Suites) -> Result<Self> {
        Ok(Self { runc: suites.find(build, Suite::Runc)?, crun: suites.find(build, Suite::Crun)? })
    }

    fn disk(&self, build: &Build, suites: &Suites) -> Result<Artifact> {
        let programs = programs::run(build, &self.runc, &self.crun)?;
        root::run(build, suites, &self.runc, &self.crun, &programs)
    }

    fn of(&self, suite: Suite) -> &Found {
        match suite {
            Suite::Runc => &self.runc,
            Suite::Crun => &self.crun,
        }
    }
}

/// The files of one part: the longest first, each to the part that has the fewest cases yet.
fn share(mut files: Vec<TestFile>, part: Part) -> Vec<TestFile> {
    files.sort_by(|one, other| (other.cases, &one.name).cmp(&(one.cases, &other.name)));
    let mut loads = vec![0; part.count];
    let mut mine = Vec::new();
    for file in files {
        let (index, _) = loads.iter().enumerate().min_by_key(|(_, load)| **load).unwrap_or((0, &0));
        // A file without a case costs its start all the same.
        loads[index] += file.cases + 1;
        if index + 1 == part.number {
            mine.push(file);
        }
    }
    mine.sort_by(|one, other| (one.suite, &one.name).cmp(&(other.suite, &other.name)));
    mine
}

/// Prints tables, writes JSON, and gives the verdict.
fn report(
    build: &Build,
    plan: &Plan,
    known: &Known,
    results: &BTreeMap<(Suite, Runtime), Results>,
) -> Result<ExitCode> {
    for ((suite, runtime), results) in results {
        let name = format!("{}-{}.json", suite.name(), runtime.name());
        let path = build.layout.notes().join("conformance").join(&name);
        write_whole(&path, &serde_json::to_vec_pretty(results)?)?;
        if plan.record && *runtime != Runtime::Ours {
            record(build, results)?;
        }
    }
    let mut complaints = Vec::new();
    for &suite in &plan.suites {
        let Some(ours) = results.get(&(suite, Runtime::Ours)) else { continue };
        let others = plan.against.iter().filter(|&&runtime| runtime != Runtime::of(suite));
        let mut references: Vec<Results> =
            others.filter_map(|&runtime| results.get(&(suite, runtime)).cloned()).collect();
        match own_reference(build, results, ours) {
            Ok(own) => references.insert(0, own),
            Err(error) => complaints.push(format!("suite {}: {error:#}", suite.name())),
        }
        for reference in &references {
            let judgement = judge::judge(ours, reference, known);
            println!("{}", judgement.table);
            // The others are for comparison.
            if reference.runtime == suite.name() {
                complaints.extend(judgement.complaints);
            }
        }
    }
    for complaint in &complaints {
        println!("{complaint}");
    }
    let passed = results
        .iter()
        .filter(|((_, runtime), _)| *runtime == Runtime::Ours)
        .flat_map(|(_, results)| results.files.values().flatten())
        .filter(|(_, verdict)| *verdict == tap::Verdict::Pass)
        .count();
    // As the boot tests count: a case that speaks against us is one that failed.
    println!("{passed} passed, {} failed", complaints.len());
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the runtime that the suite belongs to gave: ours is measured by that. Run just now, or else recorded.
fn own_reference(
    build: &Build,
    results: &BTreeMap<(Suite, Runtime), Results>,
    ours: &Results,
) -> Result<Results> {
    match results.get(&(ours.suite, Runtime::of(ours.suite))) {
        Some(own) => Ok(own.clone()),
        None => recorded(build, ours),
    }
}

/// Where a suite's reference results are kept in the checkout.
fn recorded_path(build: &Build, suite: Suite) -> PathBuf {
    // runc is the reference of its own suite, crun of its own.
    build.layout.conformance().join(format!("recorded-{}.json", suite.name()))
}

/// What the reference gave when it was last run, of the same version of the suite.
fn recorded(build: &Build, ours: &Results) -> Result<Results> {
    let path = recorded_path(build, ours.suite);
    let fix = "run with --against NAME, or record anew with --record";
    let text = std::fs::read(&path).with_context(|| format!("{}: cannot read; {fix}", path.display()))?;
    let recorded: Results = serde_json::from_slice(&text)
        .with_context(|| format!("{}: not such results; {fix}", path.display()))?;
    anyhow::ensure!(
        recorded.suite_version == ours.suite_version,
        "{}: is of suite version {}, but {} was run; {fix}",
        path.display(),
        recorded.suite_version,
        ours.suite_version
    );
    Ok(recorded)
}

/// Writes the reference's results into the checkout: verdicts alone, whatever a failure said. What is there of files that
/// were not run this time stays.
fn record(build: &Build, results: &Results) -> Result<()> {
    if results.runtime != results.suite.name() {
        return Ok(());
    }
    let mut all = results.clone();
    for (_, verdict) in all.files.values_mut().flatten() {
        if let tap::Verdict::Fail(why) = verdict {
            why.clear();
        }
    }
    if let Ok(before) = recorded(build, results) {
        for (file, cases) in before.files {
            all.files.entry(file).or_insert(cases);
        }
    }
    let mut text = serde_json::to_vec_pretty(&all)?;
    text.push(b'\n');
    write_whole(&recorded_path(build, results.suite), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_and_whole() {
        let file = |name: &str, cases| TestFile { suite: Suite::Runc, name: name.to_owned(), cases };
        let files = vec![file("a", 5), file("b", 4), file("c", 3), file("d", 2), file("e", 0)];
        let mut seen: Vec<String> = Vec::new();
        for number in 1..=3 {
            let part = share(files.clone(), Part { number, count: 3 });
            assert!(!part.is_empty());
            seen.extend(part.into_iter().map(|file| file.name));
        }
        seen.sort();
        assert_eq!(seen, ["a", "b", "c", "d", "e"]);
    }
}
