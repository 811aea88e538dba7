//! `conformance`: upstream suites against our runtime and references, in our machine. In: `Plan`. Out: a table on stdout,
//! JSON in target/xtask/conformance/, exit status 1 when a case that the reference passes is not passed and not listed, or one
//! that is listed passes. Must never: take its word from anything but the suites.

mod callers;
mod debian;
mod guest;
mod judge;
mod plugins;
mod programs;
mod report;
mod root;
mod session;
mod suites;
mod tap;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::artifact::Artifact;
use crate::cli::OciSuitesArgs;
use crate::context::Build;
use guest::{Machine, TestFile};
use judge::Known;
use session::{Gathered, Session};
use suites::{Found, Suites};

pub use callers::{Caller, run as run_callers};
pub use guest::{Guest, Runtime, profile};
pub use plugins::run as run_plugins;
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
        let suites = if args.suite.is_empty() { Suite::OCI.to_vec() } else { args.suite };
        Self { suites, against: args.against, part: args.part, files: args.files, record: args.record }
    }
}

/// Both sources of suites.
struct Sources {
    runc: Found,
    crun: Found,
}

/// Runs the suites.
pub fn run(build: &Build, plan: &Plan) -> Result<ExitCode> {
    let suites = Suites::load(build)?;
    let known = Known::load(build)?;
    let sources = Sources::find(build, &suites)?;
    let disk = sources.disk(build, &suites)?;
    // One that runs on the same machine as the one before goes on in it.
    let machines: BTreeSet<Machine> = plan.suites.iter().map(|&suite| Machine::of(suite)).collect();
    let mut all = Vec::new();
    let Some(&first) = machines.first() else { bail!("no suite is named") };
    let mut session = Session::start(build, disk.clone(), first)?;
    for &suite in &plan.suites {
        all.extend(session.guest().files(suite)?);
    }
    let mut chosen = share(all, plan.part);
    chosen.retain(|file| named(&file.name, &plan.files));
    let Part { number, count } = plan.part;
    build.ui.say("conformance", &format!("part {number} of {count}: {} files", chosen.len()));

    let mut results = Gathered::new();
    for machine in machines {
        if machine != first {
            session = Session::start(build, disk.clone(), machine)?;
        }
        let suites: Vec<_> = plan
            .suites
            .iter()
            .filter(|&&suite| Machine::of(suite) == machine)
            .map(|&suite| (suite, sources.of(suite)))
            .collect();
        let files: Vec<TestFile> =
            chosen.iter().filter(|file| Machine::of(file.suite) == machine).cloned().collect();
        results.extend(session.gather(&suites, &files, &plan.against, &known)?);
    }
    report::print(build, &results, &plan.against, &known, plan.record)
}

/// Whether `name` contains one of `words`; no words: any does.
fn named(name: &str, words: &[String]) -> bool {
    words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
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
    build.layout.shares().join("conformance")
}

impl Sources {
    fn find(build: &Build, suites: &Suites) -> Result<Self> {
        Ok(Self { runc: suites.find(build, Suite::Runc)?, crun: suites.find(build, Suite::Crun)? })
    }

    fn of(&self, suite: Suite) -> &Found {
        if suite == Suite::Crun { &self.crun } else { &self.runc }
    }

    fn disk(&self, build: &Build, suites: &Suites) -> Result<Artifact> {
        let programs = programs::run(build, &self.runc, &self.crun)?;
        root::run(build, suites, &self.runc, &self.crun, &programs)
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
