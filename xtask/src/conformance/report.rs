//! Results -> what a user reads, and the verdict. In: what each runtime gave, recorded results of references. Out: tables and
//! complaints on stdout, JSON in target/xtask/conformance/, and an exit status. Must never: measure ours by anything but what
//! the suite's own reference gave.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::guest::Runtime;
use super::judge::{self, Known, Results};
use super::session::Gathered;
use super::suites::Suite;
use super::tap;
use crate::context::Build;
use crate::stamp::write_whole;

/// Prints tables, writes JSON, and gives the verdict.
pub fn print(
    build: &Build,
    results: &Gathered,
    against: &[Runtime],
    known: &Known,
    record_too: bool,
) -> Result<ExitCode> {
    for ((suite, runtime), results) in results {
        let name = format!("{}-{}.json", suite.name(), runtime.name());
        let path = build.layout.notes().join("conformance").join(&name);
        write_whole(&path, &serde_json::to_vec_pretty(results)?)?;
        if record_too && *runtime != Runtime::Ours {
            record(build, results)?;
        }
    }
    let mut complaints = Vec::new();
    let of_ours = results.iter().filter(|((_, runtime), _)| *runtime == Runtime::Ours);
    for (&(suite, _), ours) in of_ours.clone() {
        let others = against.iter().filter(|&&runtime| runtime != Runtime::of(suite));
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
            if reference.runtime == Runtime::of(suite).name() {
                complaints.extend(judgement.complaints);
            }
        }
    }
    for complaint in &complaints {
        println!("FAILED  {}", complaint.replace('\n', "\n    "));
    }
    let passed = of_ours
        .flat_map(|(_, results)| results.files.values().flatten())
        .filter(|(_, verdict)| *verdict == tap::Verdict::Pass)
        .count();
    // As the boot tests count: a case that speaks against us is one that failed.
    println!("{passed} passed, {} failed", complaints.len());
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the runtime that the suite belongs to gave: ours is measured by that. Run just now, or else recorded.
pub fn own_reference(build: &Build, results: &Gathered, ours: &Results) -> Result<Results> {
    match results.get(&(ours.suite, Runtime::of(ours.suite))) {
        Some(own) => Ok(own.clone()),
        None => recorded(build, ours),
    }
}

/// Where a suite's reference results are kept in the checkout.
fn recorded_path(build: &Build, suite: Suite) -> PathBuf {
    // Each suite's reference is what it was written for.
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
    if results.runtime != Runtime::of(results.suite).name() {
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
