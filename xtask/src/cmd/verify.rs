//! `verify`: the image a second time, from source and otherwise, and every file of dist/ compared. In: this checkout. Out:
//! one line with the hash, or an error with the stage, the file inside and its first bytes; the verdicts of a release's
//! hashes and of xtask/image.toml. Must never: call the two the same while a file was not compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cli::VerifyArgs;
use crate::context::Build;
use crate::prove::record::{self, Record, Verdict};
use crate::prove::second::{self, Second};
use crate::prove::{Materials, differ};
use crate::stage::rootfs::Contents;
use crate::stamp::{self, remove_tree};

/// Stages in the order in which they are built: the first that differs is where to look.
const STAGES: [&str; 8] =
    ["kernel", "busybox", "tini", "iproute2", "runtime", "initramfs", "licences", "iso"];

/// They name hashes of all the others, so they differ when any other does.
const PAPERS: [&str; 5] =
    ["SHA256SUMS: ", "coracle.cdx.json: ", "coracle.spdx.json: ", "manifest.json: ", "provenance.json: "];

/// What makes the record say what the image is.
const RECORD: &str = "record the image: `cargo xtask verify --quick --record`, and commit the file";

/// A signature is made with a key that the second build has not; each has random bytes.
const NOT_COMPARED: &str = "SHA256SUMS.sig";

/// Builds again, compares, judges.
pub fn run(build: &Build, args: &VerifyArgs) -> Result<()> {
    let image = super::iso::make(build, &Contents::default())?;
    let dist = build.layout.dist();
    let second = second::run(build, &image, args.quick)?;
    let differences = differ::folders(build, &dist, &second.dist, &[NOT_COMPARED])?;
    if !differences.is_empty() {
        return Err(told(build, &dist, &second, &differences));
    }
    remove_tree(&second.room)?;
    if !args.quick && stamp::adopt(build, "kernel", &image.kernel.image)? {
        build.ui.say("verify", "the kernel of the kept tree is that of a clean one, and is in the cache now");
    }
    let kernel = if args.quick { "; the kernel is the same file, taken from the cache" } else { "" };
    build.ui.say(
        "verify",
        &format!("two builds, the same to the bit: coracle.iso sha256 {}{kernel}", image.iso.0.sha256),
    );
    build.ui.say("", &format!("otherwise in the second: {}", second.varied.join(", ")));
    if !second.same.is_empty() {
        build.ui.say("", &format!("the same in both: {}", second.same.join(", ")));
    }
    let materials = Materials::gather(build, &image)?;
    // First what was asked for: a release may well be another image than this checkout's.
    if let Some(sums) = &args.against {
        against(build, sums)?;
    }
    judge_record(build, &Record::of(&materials), args.record)
}

/// The error that tells two different builds apart.
fn told(build: &Build, dist: &Path, second: &Second, differences: &[String]) -> anyhow::Error {
    let of_its_own = |line: &&String| !PAPERS.iter().any(|paper| line.starts_with(paper));
    let mut shown: Vec<&String> = differences.iter().filter(of_its_own).collect();
    if shown.is_empty() {
        shown = differences.iter().collect();
    }
    let shown: Vec<&str> = shown.into_iter().map(String::as_str).collect();
    let stage = first_stage(build, dist, second).unwrap_or_else(|error| format!("{error:#}"));
    let report = match diffoscope(build, dist, &second.dist) {
        Some(path) => format!("\ndiffoscope's report: {path}"),
        None => String::new(),
    };
    anyhow::anyhow!(
        "two builds made different files; {stage}\n  {}\nthe second build lies in {}; it had another {}{report}",
        shown.join("\n  "),
        second.room.display(),
        second.varied.join(", ")
    )
}

/// The first stage whose result differs, and whether its inputs did already.
fn first_stage(build: &Build, dist: &Path, second: &Second) -> Result<String> {
    let manifest = |dist: &Path| -> Result<Value> {
        let path = dist.join("manifest.json");
        let text = std::fs::read(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{}: not JSON", path.display()))
    };
    let (one, other) = (manifest(dist)?, manifest(&second.dist)?);
    let of = |manifest: &Value, stage: &str, field: &str| {
        manifest["stages"][stage][field].as_str().unwrap_or_default().to_owned()
    };
    let differs =
        |field: &str| STAGES.iter().find(|stage| of(&one, stage, field) != of(&other, stage, field));
    let Some(stage) = differs("sha256") else {
        return Ok("no stage made another file; the papers beside the image differ".to_owned());
    };
    let (key, second_key) = (of(&one, stage, "key"), of(&other, stage, "key"));
    if key == second_key {
        return Ok(format!("the first stage that differs, from the same inputs: {stage}"));
    }
    let inputs = |built: &Path, key: &str| -> BTreeMap<String, String> {
        let text = std::fs::read(built.join(key).join("record.json")).unwrap_or_default();
        let record: Value = serde_json::from_slice(&text).unwrap_or_default();
        serde_json::from_value(record["inputs"].clone()).unwrap_or_default()
    };
    let here = inputs(&build.layout.built(stage), &key);
    let there = inputs(&second.cache.join("built").join(stage), &second_key);
    let changed = record::differences(&here, &there);
    Ok(format!("the first stage that differs, from other inputs: {stage}\n  {}", changed.join("\n  ")))
}

/// diffoscope's own report, where it is installed.
fn diffoscope(build: &Build, one: &Path, other: &Path) -> Option<String> {
    let program = build.host.find("diffoscope")?;
    let report = build.layout.notes().join("diffoscope.txt");
    let mut command = Command::new(program);
    command.arg("--text").arg(&report).args([one, other]).stdin(Stdio::null()).stdout(Stdio::null());
    // Status 1 says that there are differences.
    command.status().ok().filter(|status| status.code() == Some(1)).map(|_| report.display().to_string())
}

fn judge_record(build: &Build, image: &Record, renew: bool) -> Result<()> {
    let path = build.layout.image_toml();
    if renew {
        image.save(&path)?;
        build.ui.say("verify", "recorded in xtask/image.toml");
        return Ok(());
    }
    let say = |text: &str| build.ui.say("verify", text);
    let Some(recorded) = Record::load(&path)? else {
        bail!("xtask/image.toml: there is none; {RECORD}");
    };
    match recorded.judge(image) {
        Verdict::Same => say("it is the image recorded in xtask/image.toml"),
        Verdict::OtherTools(tools) => {
            say(&format!("the image in xtask/image.toml was made by other tools: {}", tools.join("; ")));
        }
        Verdict::Unrecorded(files) => bail!(
            "xtask/image.toml: this checkout makes another image than the recorded one, by the same tools:\n  {}\n\
             if the change is meant, {RECORD}",
            files.join("\n  ")
        ),
        Verdict::Fault(files) => bail!(
            "xtask/image.toml: the same tools made another image of the same inputs there:\n  {}",
            files.join("\n  ")
        ),
    }
    Ok(())
}

/// Compares dist/ with a release's hashes.
fn against(build: &Build, path: &Path) -> Result<()> {
    let read = |path: &Path| -> Result<BTreeMap<String, String>> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
        record::parse_sums(&text).with_context(|| format!("{}: not as sha256sum writes it", path.display()))
    };
    let (released, own) = (read(path)?, read(&build.layout.dist().join("SHA256SUMS"))?);
    let here: BTreeMap<String, String> =
        own.into_iter().filter(|(name, _)| released.contains_key(name)).collect();
    let files = record::differences(&released, &here);
    if files.is_empty() {
        build.ui.say("verify", &format!("this machine rebuilds every file of {}", path.display()));
        return Ok(());
    }
    let tools = match other_tools(build, path) {
        Ok(tools) if tools.is_empty() => "every recorded tool has the same version here".to_owned(),
        Ok(tools) => format!("tools that differ:\n  {}", tools.join("\n  ")),
        Err(error) => format!("which tool differs can't be told: {error:#}"),
    };
    bail!("this machine does not rebuild {}:\n  {}\n{tools}", path.display(), files.join("\n  "));
}

/// The tools of the release's manifest whose versions are others here.
fn other_tools(build: &Build, sums: &Path) -> Result<Vec<String>> {
    let path = sums.with_file_name("manifest.json");
    let text = std::fs::read(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    let manifest: Value =
        serde_json::from_slice(&text).with_context(|| format!("{}: not JSON", path.display()))?;
    let tools: BTreeMap<String, String> = serde_json::from_value(manifest["tools"].clone())
        .with_context(|| format!("{}: lists no tools", path.display()))?;
    let here = crate::prove::materials::tools(build)?;
    let here = here.into_iter().map(|(name, version)| (name.to_owned(), version)).collect();
    Ok(record::differences(&tools, &here))
}
