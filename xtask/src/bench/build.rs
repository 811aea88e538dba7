//! Build: how long what takes. In: this checkout as it is, copied; the sources and the kernel from the cache. Out: samples of a
//! build without cache (the kernel apart), of one where nothing changed, of an edit of the overlay and of the runtime; of the
//! kernel from nothing and after an edit of a fragment, if that was asked for; a timeline of stages. Must never: touch this
//! checkout or its cache.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::chart::{Bar, Row, svg};
use super::{Run, machine};
use crate::context::Build;
use crate::prove::second;
use crate::stage::rootfs::Contents;
use crate::stamp::{remove_tree, write_whole};

/// A symbol that no fragment asks for, and that no header looks at: one that a central header does costs a whole build.
const SYMBOL: &str = "CONFIG_ROMFS_FS=y";

/// Measures in `rounds` rounds, the kernel too if `with_kernel`.
pub fn run(build: &Build, rounds: u32, with_kernel: bool) -> Result<Run> {
    let image = crate::cmd::iso::make(build, &Contents::default())?;
    let room = build.layout.target().join("bench/checkout");
    let facts = machine(build, &[("jobs", build.jobs.to_string())]);
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let (mut rows, mut counts) = (Vec::new(), BTreeMap::new());
    for round in 1..=rounds {
        build.ui.say("bench", &format!("build, round {round} of {rounds}"));
        remove_tree(&room)?;
        let copy = Copy { build, root: room.join("coracle"), cache: room.join("cache") };
        second::copy_checkout(build, &copy.root)?;
        second::hand_on(&build.layout.sources(), &copy.cache.join("sources"), &|_| true)?;
        let kernel = image.kernel.image.path.parent().context("the kernel lies in no folder")?;
        let key = kernel.file_name().context("the kernel's folder has no name")?;
        second::hand_on(kernel, &copy.cache.join("built/kernel").join(key), &|_| true)?;
        for (name, edit) in [
            ("cold, but for the kernel", None),
            ("nothing changed", None),
            ("an overlay edit", Some(("rootfs-overlay/etc/motd", "."))),
            ("a runtime edit", Some(("runtime/oci/src/plan.rs", "// an edit"))),
        ] {
            if let Some((file, line)) = edit {
                copy.append(file, &format!("{line} {round}\n"))?;
            }
            let (seconds, bars) = copy.xtask(&["iso"])?;
            samples.entry(name.to_owned()).or_default().push(seconds);
            if round == rounds {
                rows.push(Row { title: format!("{name}: {seconds:.2} s"), bars });
            }
        }
        if with_kernel {
            // Another configuration than the cache's, so that it is built.
            copy.append("kernel-config/10-base.config", "CONFIG_MINIX_FS=y\n")?;
            let before = children_cpu_s()?;
            let (cold, _) = copy.xtask(&["--incremental", "kernel"])?;
            counts.insert(
                "CPU minutes of the kernel, from nothing".to_owned(),
                (children_cpu_s()? - before) / 60.0,
            );
            copy.append("kernel-config/10-base.config", &format!("{SYMBOL}\n"))?;
            let (edited, _) = copy.xtask(&["--incremental", "kernel"])?;
            for (name, seconds) in
                [("the kernel, from nothing", cold), ("the kernel, a fragment edit", edited)]
            {
                samples.entry(name.to_owned()).or_default().push(seconds);
            }
        }
    }
    remove_tree(&room)?;
    let picture = build.layout.target().join("bench/build.svg");
    write_whole(&picture, svg(&rows).as_bytes())?;
    build.ui.say("bench", &picture.display().to_string());
    Ok(Run { kind: "build".to_owned(), machine: facts, samples, counts })
}

/// Seconds of processor time that this program's children took which have ended (proc(5): cutime and cstime).
fn children_cpu_s() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").context("/proc/self/stat: cannot read")?;
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let both = ticks(13).zip(ticks(14)).context("/proc/self/stat: not as expected")?;
    // USER_HZ, which is no setting of the kernel's on this architecture.
    Ok((both.0 + both.1) as f64 / 100.0)
}

/// A checkout with a cache of its own.
struct Copy<'a> {
    build: &'a Build,
    root: PathBuf,
    cache: PathBuf,
}

impl Copy<'_> {
    fn append(&self, file: &str, text: &str) -> Result<()> {
        let path = self.root.join(file);
        let before =
            std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        std::fs::write(&path, before + text).with_context(|| format!("{}: cannot write", path.display()))
    }

    /// Runs xtask. Returns the seconds it took, and its stages as they said when they began and ended.
    fn xtask(&self, words: &[&str]) -> Result<(f64, Vec<Bar>)> {
        let started = Instant::now();
        let mut child = Command::new("/proc/self/exe")
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(["--offline", "--jobs", &self.build.jobs.to_string()])
            .args(words)
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("xtask: cannot run")?;
        let (mut begun, mut bars, mut said) = (BTreeMap::new(), Vec::new(), String::new());
        for line in BufReader::new(child.stderr.take().context("xtask has no stderr")?).lines() {
            let line = line.context("xtask: its words cannot be read")?;
            let now = started.elapsed().as_secs_f64();
            if let Some((stage, text)) = line.trim_start().split_once("  ") {
                if text == "building" {
                    begun.insert(stage.to_owned(), now);
                } else if let Some(begin) = begun.get(stage).filter(|_| text.starts_with("built in ")) {
                    bars.push(Bar { name: stage.to_owned(), begin: *begin, length: now - begin });
                }
            }
            said += &line;
            said.push('\n');
        }
        let status = child.wait().context("xtask: cannot be waited for")?;
        if !status.success() {
            bail!("the measured build failed ({status}):\n{said}");
        }
        Ok((started.elapsed().as_secs_f64(), bars))
    }
}
