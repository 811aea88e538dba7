//! What a test run found. In: one `Finding` a step or trial. Out: a table, the closing line, JUnit XML.
//! Must never: count something as passed that has not run.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

/// A guest may print a line of any length.
const LETTERS_OF_A_LINE: usize = 200;
/// How much of a failure's text the table repeats, from its end; all of it was printed when it happened.
const LINES_OF_A_FAILURE: usize = 30;

/// One thing that was tested.
#[derive(Debug, Clone)]
pub struct Finding {
    /// `host` or `boot`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// How long it took.
    pub duration: Duration,
    /// Why it failed; None: it passed.
    pub failure: Option<String>,
}

/// All findings of a run.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Takes one more.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Whether all have passed.
    pub fn all_passed(&self) -> bool {
        self.findings.iter().all(|finding| finding.failure.is_none())
    }

    /// `N passed, N failed`.
    pub fn closing_line(&self) -> String {
        let failed = self.findings.iter().filter(|finding| finding.failure.is_some()).count();
        format!("{} passed, {failed} failed", self.findings.len() - failed)
    }

    /// A line for each finding, then why each failure failed, then the closing line.
    pub fn table(&self) -> String {
        let width = self.findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Finding { kind, name, duration, failure } in &self.findings {
            let verdict = if failure.is_none() { "ok" } else { "FAILED" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{kind}  {name:width$}  {verdict:6}  {:>8}", spell(*duration));
        }
        // Once more at the end, where a reader of a long log looks first.
        for Finding { name, failure, .. } in &self.findings {
            let Some(why) = failure else { continue };
            let _ = writeln!(text, "\nFAILED  {name}");
            let lines: Vec<&str> = why.lines().collect();
            for line in &lines[lines.len().saturating_sub(LINES_OF_A_FAILURE)..] {
                let _ = writeln!(text, "    {line:.LETTERS_OF_A_LINE$}");
            }
        }
        text + &self.closing_line()
    }

    /// JUnit's XML, as CI systems read it (the Jenkins xUnit schema: testsuite, testcase, failure).
    pub fn junit(&self) -> String {
        let failed = self.findings.iter().filter(|finding| finding.failure.is_some()).count();
        let total: f64 = self.findings.iter().map(|finding| finding.duration.as_secs_f64()).sum();
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let _ = writeln!(
            text,
            "<testsuite name=\"coracle\" tests=\"{}\" failures=\"{failed}\" time=\"{total:.3}\">",
            self.findings.len()
        );
        for Finding { kind, name, duration, failure } in &self.findings {
            let seconds = duration.as_secs_f64();
            let name = escape(name);
            let _ = write!(text, "  <testcase classname=\"{kind}\" name=\"{name}\" time=\"{seconds:.3}\"");
            let _ = match failure {
                None => writeln!(text, "/>"),
                Some(why) => {
                    let first = escape(why.lines().next().unwrap_or_default());
                    writeln!(
                        text,
                        ">\n    <failure message=\"{first}\">{}</failure>\n  </testcase>",
                        escape(why)
                    )
                }
            };
        }
        text + "</testsuite>\n"
    }

    /// Writes the XML.
    pub fn write_junit(&self, path: &Path) -> Result<()> {
        crate::stamp::write_whole(path, self.junit().as_bytes())
    }
}

/// Minutes for what takes minutes.
fn spell(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 90.0 { format!("{seconds:.1} s") } else { format!("{:.1} min", seconds / 60.0) }
}

/// XML 1.0: five characters are special, and most control characters can't be had at all.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' | '\t' => escaped.push(letter),
            letter if letter < ' ' || matches!(letter, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        let seconds = Duration::from_secs;
        report.add(Finding { kind: "host", name: "fmt".into(), duration: seconds(1), failure: None });
        let why = Some("no \"a<b\" in\n\u{1b}[1m".to_owned());
        report.add(Finding { kind: "boot", name: "dhcp".into(), duration: seconds(120), failure: why });
        report
    }

    #[test]
    fn the_table_ends_in_the_count() {
        let table = report().table();
        assert!(table.ends_with("\n1 passed, 1 failed"), "{table}");
        assert!(table.contains("FAILED") && table.contains("2.0 min"), "{table}");
        assert!(table.contains("\nFAILED  dhcp\n    no \"a<b\" in\n    "), "{table}");
        assert!(!report().all_passed());
        assert!(Report::default().all_passed());
    }

    #[test]
    fn junit_escapes_what_a_guest_may_print() {
        let xml = report().junit();
        assert!(xml.contains("tests=\"2\" failures=\"1\""), "{xml}");
        assert!(xml.contains("message=\"no &quot;a&lt;b&quot; in\""), "{xml}");
        assert!(!xml.contains('\u{1b}'), "{xml}");
    }
}
