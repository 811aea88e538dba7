//! What a run says while it works: one line a stage on stderr, everything else in that stage's log file.
//! Must never: write to stdout, which belongs to results.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Says what goes on.
#[derive(Debug, Clone)]
pub struct Ui {
    verbose: bool,
}

impl Ui {
    /// A voice; a verbose one says also why a stage is skipped or run.
    pub fn new(verbose: bool) -> Self {
        Self { verbose }
    }

    /// One line that everybody sees.
    pub fn say(&self, subject: &str, text: &str) {
        eprintln!("{subject:>12}  {text}");
    }

    /// One line for those who asked with `-v`.
    pub fn detail(&self, subject: &str, text: &str) {
        if self.verbose {
            self.say(subject, text);
        }
    }

    /// A line of a program that was started, as it came.
    pub fn pass_on(&self, line: &str) {
        eprintln!("{line}");
    }

    /// A bar for a download of `total` bytes (None: not known), which shows bytes and rate.
    /// Without a terminal it stays silent; the line at its end is the caller's.
    pub fn bytes_bar(&self, subject: &str, total: Option<u64>) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = if total.is_some() {
            "{prefix:>12}  {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
        } else {
            "{prefix:>12}  {spinner} {bytes} {bytes_per_sec}"
        };
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_prefix(subject.to_owned());
        bar
    }
}

/// The log file of one stage.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Starts the log at `path` anew.
    pub fn create(path: PathBuf) -> Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("{}: cannot create", parent.display()))?;
        }
        let file =
            File::create(&path).with_context(|| format!("{}: cannot create the log", path.display()))?;
        Ok(Self { path, file })
    }

    /// Runs `command` (an `xshell::Cmd` or `std::process::Command`) with its output in the log. A failure shows the
    /// log's last lines and where the rest is.
    pub fn run(&mut self, command: impl Into<Command>) -> Result<()> {
        let mut command: Command = command.into();
        writeln!(self.file, "$ {command:?}")
            .with_context(|| format!("{}: cannot write", self.path.display()))?;
        let program = command.get_program().to_string_lossy().into_owned();
        let output =
            self.file.try_clone().with_context(|| format!("{}: cannot share", self.path.display()))?;
        let errors = output.try_clone().with_context(|| format!("{}: cannot share", self.path.display()))?;
        let status =
            command.stdin(Stdio::null()).stdout(output).stderr(errors).status().with_context(|| {
                format!("{program}: cannot run; `cargo xtask doctor` tells what is missing")
            })?;
        if status.success() {
            return Ok(());
        }
        bail!(
            "{program} failed ({status}); the log's last lines:\n{}\nthe whole log: {}",
            self.tail(20),
            self.path.display()
        );
    }

    fn tail(&self, count: usize) -> String {
        let text = std::fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..]
            .iter()
            .map(|line| format!("    {line}"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}
