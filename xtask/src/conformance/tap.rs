//! TAP -> verdicts. In: what a file of a suite said (`# case NAME` for each case, then TAP, version 12 or 13). Out: one verdict
//! for each case. Must never: take a case that is not reported for a passed one.

use serde::{Deserialize, Serialize};

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "why")]
pub enum Verdict {
    /// Passed.
    Pass,
    /// Failed, with what the suite said of it.
    Fail(String),
    /// The suite left it out, with its reason.
    Skip(String),
    /// Nothing was said of it, with what ended the file.
    NotRun(String),
}

impl Verdict {
    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "FAIL",
            Self::Skip(_) => "skip",
            Self::NotRun(_) => "not run",
        }
    }
}

/// A case's name and how it ended.
pub type Case = (String, Verdict);

/// Reads all cases. `status` is the file's exit status, which tells what ended it early.
pub fn parse(text: &str, status: i32) -> Vec<Case> {
    let mut names: Vec<String> = Vec::new();
    let mut planned = 0;
    let mut verdicts: Vec<(usize, String, Verdict)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# case ").filter(|_| verdicts.is_empty()) {
            names.push(unescaped(name));
        } else if let Some(count) = line.strip_prefix("1..").and_then(|count| count.trim().parse().ok()) {
            planned = count;
        } else if let Some(result) = result(line) {
            verdicts.push(result);
        } else if let Some((_, _, Verdict::Fail(why))) = verdicts.last_mut() {
            why.push_str(line);
            why.push('\n');
        }
    }
    let count = planned.max(names.len()).max(verdicts.iter().map(|(number, ..)| *number).max().unwrap_or(0));
    let ended = match status {
        124 | 137 => "the file took too long and was stopped".to_owned(),
        status => format!("the file ended before, with status {status}"),
    };
    (1..=count)
        .map(|number| {
            let reported = verdicts.iter().find(|(reported, ..)| *reported == number);
            let listed = names.get(number - 1).cloned();
            match reported {
                Some((_, name, verdict)) => (listed.unwrap_or_else(|| name.clone()), verdict.clone()),
                None => (listed.unwrap_or_else(|| format!("case {number}")), Verdict::NotRun(ended.clone())),
            }
        })
        .collect()
}

/// `ok N NAME`, `not ok N - NAME in 12ms`, `ok N NAME # skip REASON`.
fn result(line: &str) -> Option<(usize, String, Verdict)> {
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let number = number.parse().ok()?;
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    let (name, directive) = match rest.rsplit_once('#') {
        Some((name, words)) if words.trim_start().to_ascii_lowercase().starts_with("skip") => {
            (name, Some(words.trim_start()[4..].trim().to_owned()))
        }
        // bats says a timeout behind the name.
        Some((name, words)) if words.trim_start().starts_with("timeout") => (name, None),
        _ => (rest, None),
    };
    let verdict = match (passed, directive) {
        (false, _) => Verdict::Fail(String::new()),
        (true, Some(reason)) => Verdict::Skip(reason),
        (true, None) => Verdict::Pass,
    };
    Some((number, name.trim().to_owned(), verdict))
}

/// bats files quote names as the shell does.
fn unescaped(name: &str) -> String {
    name.replace("\\\"", "\"").replace("\\$", "$").replace("\\`", "`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_has_a_verdict() {
        let text = "# case one\n# case two [a #b]\n# case three\n# case four\n1..4\nok 1 one\n\
                    not ok 2 two [a #b]\n# why\n#   because\nok 3 three # skip test requires criu\n";
        let cases = parse(text, 1);
        assert_eq!(cases[0], ("one".to_owned(), Verdict::Pass));
        assert_eq!(cases[1], ("two [a #b]".to_owned(), Verdict::Fail("# why\n#   because\n".to_owned())));
        assert_eq!(cases[2].1, Verdict::Skip("test requires criu".to_owned()));
        assert_eq!(
            cases[3],
            ("four".to_owned(), Verdict::NotRun("the file ended before, with status 1".to_owned()))
        );
    }

    #[test]
    fn pythons_form_is_read_too() {
        let cases = parse("1..3\nok 1 - no-caps\nnot ok 2 - x\nok 3 - y #SKIP\n", 0);
        let words: Vec<&str> = cases.iter().map(|(_, verdict)| verdict.word()).collect();
        assert_eq!(words, ["pass", "FAIL", "skip"]);
        assert_eq!(cases[0].0, "no-caps");
    }

    #[test]
    fn a_file_that_says_nothing_has_not_run() {
        let cases = parse("# case a\n# case b\n", 124);
        assert!(
            cases
                .iter()
                .all(|(_, verdict)| matches!(verdict, Verdict::NotRun(why) if why.contains("stopped")))
        );
        assert_eq!(cases.len(), 2);
    }

    #[test]
    fn a_case_stopped_by_bats_has_failed() {
        let cases = parse("1..1\nnot ok 1 slow # timeout after 60s\n", 1);
        assert_eq!(cases[0], ("slow".to_owned(), Verdict::Fail(String::new())));
    }
}
