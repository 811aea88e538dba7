//! Results -> what is wrong. In: our results, a reference's (run now, or recorded), the known failures with their reasons.
//! Out: a table, and each case that speaks against us. Must never: let a skipped case, or one that has not run, count as passed.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::suites::Suite;
use super::tap::{Case, Verdict};
use crate::context::Build;

/// File -> its cases, in order.
pub type Files = BTreeMap<String, Vec<Case>>;

/// What one runtime gave, as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// The suite.
    pub suite: Suite,
    /// The suite's upstream version.
    pub suite_version: String,
    /// The runtime: ours, runc, crun.
    pub runtime: String,
    /// What it says of its version.
    pub runtime_version: String,
    /// Cases.
    pub files: Files,
}

impl Results {
    fn verdict(&self, file: &str, case: &str) -> Option<&Verdict> {
        self.files.get(file)?.iter().find(|(name, _)| name == case).map(|(_, verdict)| verdict)
    }
}

/// suite -> file -> case -> reason. A case `*` stands for all of a file's.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Known(BTreeMap<Suite, BTreeMap<String, BTreeMap<String, String>>>);

impl Known {
    /// Reads the list of this checkout.
    pub fn load(build: &Build) -> Result<Self> {
        let path = build.layout.conformance().join("known.toml");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        Self::parse(&text).with_context(|| format!("{}: cannot be used", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let known: Self = toml::from_str(text)?;
        for (file, cases) in known.0.values().flatten() {
            if let Some((case, _)) = cases.iter().find(|(_, reason)| reason.trim().is_empty()) {
                bail!("{file}: {case}: give the reason");
            }
        }
        Ok(known)
    }

    fn reason(&self, suite: Suite, file: &str, case: &str) -> Option<&str> {
        let said = |suite| Some(self.0.get(&suite)?.get(file)?.get(case)?.as_str());
        // In another way of calling a suite the same cases are about the same.
        said(suite).or_else(|| said(suite.source()))
    }
}

/// What was found of one suite.
#[derive(Debug, Default)]
pub struct Judgement {
    /// A line for each case where ours and the reference differ or neither passes, and the sums.
    pub table: String,
    /// What speaks against us: each is a failure of the run.
    pub complaints: Vec<String>,
}

/// The files in which a case that the reference passes, and that is no known failure, was not passed by ours.
pub fn faulted(ours: &Results, reference: &Results, known: &Known) -> Vec<String> {
    let speaks_against = |file: &str, (case, verdict): &Case| {
        *verdict != Verdict::Pass
            && reference.verdict(file, case) == Some(&Verdict::Pass)
            && known.reason(ours.suite, file, case).is_none()
    };
    let files = ours.files.iter().filter(|(file, cases)| cases.iter().any(|case| speaks_against(file, case)));
    files.map(|(file, _)| file.clone()).collect()
}

/// Two runs of one file: a case is passed if it was passed in either.
pub fn either(first: &[Case], second: &[Case]) -> Vec<Case> {
    let passed =
        |name: &str| second.iter().any(|(other, verdict)| other == name && *verdict == Verdict::Pass);
    first
        .iter()
        .map(|(name, verdict)| (name.clone(), if passed(name) { Verdict::Pass } else { verdict.clone() }))
        .collect()
}

/// Compares. Only files that ours has are looked at: a part of the suite is a part.
pub fn judge(ours: &Results, reference: &Results, known: &Known) -> Judgement {
    let mut judgement = Judgement::default();
    let mut sums: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut lines = String::new();
    for (file, cases) in &ours.files {
        let mut any = false;
        if !reference.files.contains_key(file) {
            judgement.complaints.push(format!(
                "{} {file}: there is no result of {} to compare with; record one with --against {} --record",
                ours.suite.name(),
                reference.runtime,
                reference.runtime
            ));
        }
        for (case, verdict) in cases {
            let other = reference.verdict(file, case);
            let other_word = other.map_or("-", Verdict::word);
            *sums.entry((verdict.word(), other_word)).or_default() += 1;
            any |= matches!(verdict, Verdict::Pass | Verdict::Fail(_) | Verdict::Skip(_));
            let reason = known.reason(ours.suite, file, case);
            let required = other == Some(&Verdict::Pass);
            let place = format!("{} {file}: {case}", ours.suite.name());
            match (verdict, reason) {
                (Verdict::Pass, Some(_)) => judgement
                    .complaints
                    .push(format!("{place}: passes, but is listed as a known failure; take it off the list")),
                (Verdict::Pass, None) => {}
                (_, None) if required => judgement.complaints.push(format!(
                    "{place}: {}, but {} passes it{}",
                    verdict.word(),
                    reference.runtime,
                    why(verdict)
                )),
                _ => {}
            }
            if verdict != &Verdict::Pass || !required {
                let note = reason.map(|reason| format!("  ({reason})")).unwrap_or_default();
                // Writing to a String cannot fail.
                let _ = writeln!(lines, "{:8} {other_word:8} {place}{note}", verdict.word());
            }
        }
        if !any {
            judgement.complaints.push(format!("{} {file}: did not run at all", ours.suite.name()));
        }
    }
    if ours.files.is_empty() {
        judgement.complaints.push(format!("suite {} did not run at all", ours.suite.name()));
    }
    let head = format!(
        "suite {} {}: {} against {} ({})\n{:8} {:8} case\n",
        ours.suite.name(),
        ours.suite_version,
        ours.runtime_version,
        reference.runtime,
        reference.runtime_version,
        "ours",
        reference.runtime
    );
    judgement.table = head + &lines + "\n" + &by_file(ours, reference);
    for ((mine, theirs), count) in sums {
        let _ = writeln!(judgement.table, "{count:5}  ours {mine}, {} {theirs}", reference.runtime);
    }
    judgement
}

/// How many cases of each file were passed, side by side.
fn by_file(ours: &Results, reference: &Results) -> String {
    let passed = |cases: &[Case]| cases.iter().filter(|(_, verdict)| *verdict == Verdict::Pass).count();
    let mut table = format!("{:>7} {:>11}   cases passed in file\n", "ours", reference.runtime);
    for (file, cases) in &ours.files {
        let theirs = reference.files.get(file).map_or("-".to_owned(), |cases| passed(cases).to_string());
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{:7} {theirs:>11}   {file}, of {}", passed(cases), cases.len());
    }
    table + "\n"
}

/// The first lines of what the suite said.
fn why(verdict: &Verdict) -> String {
    let (Verdict::Fail(text) | Verdict::Skip(text) | Verdict::NotRun(text)) = verdict else {
        return String::new();
    };
    let lines: Vec<String> = text.trim().lines().take(12).map(|line| format!("\n      {line}")).collect();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(runtime: &str, cases: &[(&str, Verdict)]) -> Results {
        let cases = cases.iter().map(|(name, verdict)| ((*name).to_owned(), verdict.clone())).collect();
        Results {
            suite: Suite::Runc,
            suite_version: "1".to_owned(),
            runtime: runtime.to_owned(),
            runtime_version: "1".to_owned(),
            files: BTreeMap::from([("a.bats".to_owned(), cases)]),
        }
    }

    fn complaints(ours: Verdict, reference: Verdict, known: &str) -> Vec<String> {
        let known = Known::parse(known).unwrap();
        judge(&results("ours", &[("x", ours)]), &results("runc", &[("x", reference)]), &known).complaints
    }

    const LISTED: &str = "[runc.\"a.bats\"]\nx = \"because\"\n";

    #[test]
    fn a_case_that_only_the_reference_passes_is_a_complaint() {
        let fail = Verdict::Fail("# it broke".to_owned());
        let said = complaints(fail.clone(), Verdict::Pass, "");
        assert!(said[0].contains("FAIL") && said[0].contains("it broke"), "{said:?}");
        assert!(complaints(fail.clone(), Verdict::Pass, LISTED).is_empty());
        assert!(complaints(fail, Verdict::Skip(String::new()), "").is_empty());
    }

    #[test]
    fn skipped_and_not_run_are_not_passed() {
        for verdict in [Verdict::Skip("no".to_owned()), Verdict::NotRun("no".to_owned())] {
            assert!(!complaints(verdict, Verdict::Pass, "").is_empty());
        }
        assert!(
            complaints(Verdict::NotRun(String::new()), Verdict::Pass, LISTED)[0]
                .contains("did not run at all")
        );
    }

    #[test]
    fn what_fails_twice_speaks_against_us() {
        let fail = || Verdict::Fail("# it broke".to_owned());
        let reference = results("runc", &[("x", Verdict::Pass), ("y", Verdict::Pass)]);
        let first = results("ours", &[("x", fail()), ("y", fail())]);
        let known = Known::default();
        assert_eq!(faulted(&first, &reference, &known), ["a.bats"]);
        assert!(
            faulted(&first, &reference, &Known::parse("[runc.\"a.bats\"]\nx = \"r\"\ny = \"r\"\n").unwrap())
                .is_empty()
        );
        let again = [("x".to_owned(), Verdict::Pass), ("y".to_owned(), Verdict::Skip(String::new()))];
        let both = either(&first.files["a.bats"], &again);
        assert_eq!(both, [("x".to_owned(), Verdict::Pass), ("y".to_owned(), fail())]);
    }

    #[test]
    fn a_listed_case_that_passes_is_a_complaint() {
        assert!(complaints(Verdict::Pass, Verdict::Pass, LISTED)[0].contains("take it off"));
        assert!(complaints(Verdict::Pass, Verdict::Pass, "").is_empty());
    }

    #[test]
    fn a_file_that_the_reference_has_not_run_is_a_complaint() {
        let mut reference = results("runc", &[]);
        reference.files.clear();
        let judged = judge(&results("ours", &[("x", Verdict::Pass)]), &reference, &Known::default());
        assert!(judged.complaints[0].contains("no result of runc"), "{:?}", judged.complaints);
    }

    #[test]
    fn a_known_failure_needs_its_reason() {
        assert!(Known::parse("[runc.\"a.bats\"]\nx = \"\"\n").is_err());
    }

    #[test]
    fn the_table_has_both_sums_of_a_file_side_by_side() {
        let ours = results("ours", &[("x", Verdict::Pass), ("y", Verdict::Skip(String::new()))]);
        let reference = results("runc", &[("x", Verdict::Pass), ("y", Verdict::Pass)]);
        let table = judge(&ours, &reference, &Known::default()).table;
        assert!(table.contains("      1           2   a.bats, of 2\n"), "{table}");
    }

    #[test]
    fn a_suite_without_files_is_a_complaint() {
        let mut none = results("ours", &[]);
        none.files.clear();
        let judged = judge(&none, &results("runc", &[]), &Known::default());
        assert!(judged.complaints[0].contains("did not run at all"));
    }
}
