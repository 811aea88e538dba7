//! `test --weakened`: that boot tests bite. In: cases, and what is to be taken out of the product so that each must fail. Out: a
//! finding for each of these: it has passed where the case failed at the step that was meant, with the output that was meant. Must never: change this
//! checkout, or let a weakened program into its cache or its dist/.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::boot_test::{Case, Finding, Report, Weakened};
use crate::context::Build;
use crate::prove::second::copy_checkout;
use crate::stage::rootfs::Contents;
use crate::stamp::remove_tree;

/// What no edit of the runtime or of the image's scripts changes: taken from this checkout's cache.
const SHARED: [&str; 6] = ["sources", "apt", "built/kernel", "built/busybox", "built/tini", "built/iproute2"];

/// Runs what is named, or all.
pub fn run(build: &Build, cases: &[Case], names: &[String]) -> Result<ExitCode> {
    let is_named =
        |case: &&Case| names.is_empty() || names.iter().any(|name| case.name.contains(name.as_str()));
    let chosen: Vec<(&Case, &Weakened)> = cases
        .iter()
        .filter(is_named)
        .flat_map(|case| case.weakened.iter().map(move |weakened| (case, weakened)))
        .collect();
    if chosen.is_empty() {
        bail!("no boot test with {} in its name says how the product is to be weakened", names.join(" or "));
    }
    // What is shared is there then.
    crate::cmd::iso::make(build, &Contents::default())?;
    let room = Room::make(build)?;
    let mut report = Report::default();
    for (case, weakened) in chosen {
        let name = format!("{}, step {}", case.name, weakened.step);
        build.ui.say("weakened", &name);
        let started = Instant::now();
        let failure = room.must_fail(case, weakened).err().map(|error| format!("{error:#}"));
        build.ui.say(if failure.is_none() { "ok" } else { "FAILED" }, &name);
        report.add(Finding { kind: "weakened", name, duration: started.elapsed(), failure });
    }
    println!("{}", report.table());
    Ok(if report.all_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A copy of the checkout with a cache of its own.
struct Room {
    checkout: PathBuf,
    cache: PathBuf,
}

impl Room {
    fn make(build: &Build) -> Result<Self> {
        let room = build.layout.notes().join("weakened");
        let (checkout, cache) = (room.join("checkout"), room.join("cache"));
        // Compiled dependencies of the last time are good still.
        let (target, kept) = (checkout.join("target"), room.join("target"));
        if target.exists() && !kept.exists() {
            move_folder(&target, &kept)?;
        }
        for old in [&checkout, &cache] {
            remove_tree(old)?;
        }
        std::fs::create_dir_all(cache.join("built"))
            .with_context(|| format!("{}: cannot make", cache.display()))?;
        copy_checkout(build, &checkout)?;
        if kept.exists() {
            move_folder(&kept, &target)?;
        }
        for part in SHARED {
            let there = build.layout.cache().join(part);
            std::fs::create_dir_all(&there).with_context(|| format!("{}: cannot make", there.display()))?;
            symlink(&there, cache.join(part)).with_context(|| format!("{}: cannot link", there.display()))?;
        }
        Ok(Self { checkout, cache })
    }

    /// Weakens the product, has the case run, and mends the product.
    fn must_fail(&self, case: &Case, weakened: &Weakened) -> Result<()> {
        let mut originals = Vec::new();
        let result = self.weaken(weakened, &mut originals).and_then(|()| self.watch_fail(case, weakened));
        for (path, text) in originals.into_iter().rev() {
            write(&path, &text)?;
        }
        result
    }

    fn weaken(&self, weakened: &Weakened, originals: &mut Vec<(PathBuf, String)>) -> Result<()> {
        for edit in &weakened.edits {
            let path = self.checkout.join(&edit.file);
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
            let edited = edit.apply(&text)?;
            originals.push((path.clone(), text));
            write(&path, &edited)?;
        }
        Ok(())
    }

    fn watch_fail(&self, case: &Case, weakened: &Weakened) -> Result<()> {
        let output = super::xtask()
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(["test", &case.name])
            .current_dir(&self.checkout)
            .output()
            .context("xtask: cannot run itself")?;
        judge(&String::from_utf8_lossy(&output.stderr), case, weakened)
    }
}

/// Whether what a run of the case has said has it failed where and as it should.
fn judge(log: &str, case: &Case, weakened: &Weakened) -> Result<()> {
    let name = &case.name;
    let lines: Vec<&str> = log.lines().collect();
    let is_failure = |line: &&str| {
        let rest = line.trim_start().strip_prefix("FAILED").map(str::trim_start);
        rest.and_then(|rest| rest.strip_prefix(name.as_str()))
            .is_some_and(|rest| rest.starts_with([':', '/']))
    };
    let Some(start) = lines.iter().position(is_failure) else {
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        bail!("{name} does not fail without what it is for:\n{end}");
    };
    let length = lines[start..].iter().position(|line| line.starts_with("serial log: "));
    let failure =
        lines[start..].iter().take(length.unwrap_or(lines.len())).copied().collect::<Vec<_>>().join("\n");
    if !failure.contains(&format!(": steps[{}], ", weakened.step)) {
        bail!("{name} fails, but not at step {}:\n{failure}", weakened.step);
    }
    // The step's own text is no output.
    if !failure.replace(case.steps[weakened.step].typed().trim(), "").contains(&weakened.shows) {
        bail!("{name} fails at step {}, but does not show {:?}:\n{failure}", weakened.step, weakened.shows);
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("{}: cannot write", path.display()))
}

fn move_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).with_context(|| format!("{}: cannot move", from.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "          ok  other (1.0 s)\n      FAILED  a-case: steps[1], run echo x: exit status 1\n    gone\n\
                       serial log: a-case.log\n    more";

    fn judged(name: &str, step: usize, shows: &str) -> Result<()> {
        let text = format!(
            "about = 'a'\nsteps = [{{ run = 'true' }}, {{ run = 'echo x' }}]\n[[weakened]]\nstep = {step}\n\
            shows = '{shows}'\nedits = [{{ file = 'f', cut = 'a', put = 'b' }}]"
        );
        let case = crate::boot_test::parse(name, &text, Path::new("/nowhere"))?;
        judge(LOG, &case, &case.weakened[0])
    }

    #[test]
    fn only_a_failure_of_the_case_at_its_step_with_its_output_counts() {
        assert!(judged("a-case", 1, "gone").is_ok());
        let message = |name: &str, step, shows: &str| judged(name, step, shows).unwrap_err().to_string();
        assert!(message("a-case", 0, "gone").contains("not at step 0"));
        assert!(message("a", 1, "gone").contains("does not fail"));
        assert!(message("other", 1, "gone").contains("does not fail"));
        // Neither what was typed nor what follows.
        assert!(message("a-case", 1, "echo x").contains("does not show"));
        assert!(message("a-case", 1, "more").contains("does not show"));
    }
}
