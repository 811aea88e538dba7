//! A stage's key is the hash of its inputs; the same key is the same result, taken from the cache in milliseconds.
//!
//! In: named inputs. Out: artefacts in `<cache>/built/<stage>/<key>/`, and with `-v` the reason for a skip or a rebuild.
//! Must never: let an unfinished or altered file through: a result is built under a temporary name, renamed when
//! whole, and its hashes are checked each time it is used.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::artifact::{Artifact, sha256_bytes, sha256_file};
use crate::context::Build;
use crate::ui::Log;

/// The named inputs of one stage.
#[derive(Debug, Clone)]
pub struct Inputs {
    stage: &'static str,
    values: BTreeMap<String, String>,
    /// The files and folders among them: what may change while the stage works.
    places: Vec<(String, PathBuf)>,
}

impl Inputs {
    /// Inputs of `stage`, whose recipe in the code has this `version`: raise it when the code that builds changes
    /// what comes out.
    pub fn new(stage: &'static str, version: u32) -> Self {
        let values = BTreeMap::from([("recipe".to_owned(), version.to_string())]);
        Self { stage, values, places: Vec::new() }
    }

    /// A value: a pin, a command line, a tool's version.
    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.values.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A file's content.
    pub fn file(mut self, name: &str, path: &Path) -> Result<Self> {
        self.values.insert(name.to_owned(), sha256_file(path)?.0);
        self.places.push((name.to_owned(), path.to_owned()));
        Ok(self)
    }

    /// Every file, link and folder below `dir`, with modes as git keeps them (executable or not).
    pub fn tree(mut self, name: &str, dir: &Path) -> Result<Self> {
        self.add_tree(name, dir)?;
        self.places.push((name.to_owned(), dir.to_owned()));
        Ok(self)
    }

    /// Another stage's result.
    pub fn artifact(self, name: &str, artifact: &Artifact) -> Self {
        self.text(name, &artifact.sha256)
    }

    fn add_tree(&mut self, name: &str, dir: &Path) -> Result<()> {
        let entries = fs::read_dir(dir).with_context(|| format!("{}: cannot list", dir.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("{}: cannot list", dir.display()))?;
            let path = entry.path();
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            let facts =
                fs::symlink_metadata(&path).with_context(|| format!("{}: cannot look at", path.display()))?;
            if facts.is_dir() {
                self.values.insert(name.clone(), "folder".to_owned());
                self.add_tree(&name, &path)?;
            } else if facts.is_symlink() {
                let link =
                    fs::read_link(&path).with_context(|| format!("{}: cannot read", path.display()))?;
                self.values.insert(name, format!("link {}", link.display()));
            } else {
                let executable = if facts.permissions().mode() & 0o100 != 0 { "x " } else { "" };
                self.values.insert(name, format!("{executable}{}", sha256_file(&path)?.0));
            }
        }
        Ok(())
    }

    /// The key: hexadecimal, 64 digits.
    pub fn key(&self) -> String {
        let lines: Vec<String> =
            self.values.iter().map(|(name, value)| format!("{name}\0{value}\n")).collect();
        sha256_bytes(format!("{}\n{}", self.stage, lines.concat()).as_bytes())
    }

    /// Refuses a result whose inputs are no longer those of its key: somebody wrote to the checkout meanwhile, and nobody
    /// knows which of both it was made of.
    fn check_unchanged(&self) -> Result<()> {
        let mut now = Self { values: self.values.clone(), ..Self::new(self.stage, 0) };
        for (name, place) in &self.places {
            let below = format!("{name}/");
            now.values.retain(|key, _| key != name && !key.starts_with(&below));
            now = if place.is_dir() { now.tree(name, place)? } else { now.file(name, place)? };
        }
        if now.values != self.values {
            bail!("{} while it was built: run it again", now.differences(&self.values));
        }
        Ok(())
    }

    /// Which inputs differ from those of the last run, in words; None when it never ran in this checkout.
    fn difference(&self, last: &Path) -> Option<String> {
        let last: BTreeMap<String, String> = serde_json::from_slice(&fs::read(last).ok()?).ok()?;
        let changed = self.differences(&last);
        Some(if changed.is_empty() { "the cache no longer has it".to_owned() } else { changed })
    }

    /// Which values differ from `last`, in words; empty where none does.
    fn differences(&self, last: &BTreeMap<String, String>) -> String {
        let mut changed: Vec<String> = Vec::new();
        for (name, value) in &self.values {
            match last.get(name) {
                None => changed.push(format!("{name} is new")),
                Some(old) if old != value => changed.push(format!("{name} changed")),
                Some(_) => {}
            }
        }
        changed.extend(
            last.keys().filter(|name| !self.values.contains_key(*name)).map(|name| format!("{name} is gone")),
        );
        let more = changed.len().saturating_sub(5);
        changed.truncate(5);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        changed.join(", ") + &rest
    }
}

/// The rooms that a stage works in.
#[derive(Debug)]
pub struct Workshop {
    /// Scratch space, gone afterwards.
    pub scratch: PathBuf,
    /// The results go here, under the names that the stage announced.
    pub out: PathBuf,
    /// The stage's log.
    pub log: Log,
}

/// What stands beside the artefacts in the cache: what they were made of and what they are.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    stage: String,
    key: String,
    inputs: BTreeMap<String, String>,
    outputs: BTreeMap<String, Output>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Output {
    sha256: String,
    size: u64,
}

/// Returns the files `outputs` of the stage with these inputs, in that order: from the cache where they are whole,
/// else made by `make` into `Workshop::out`. Only one process makes a key at a time; others wait and say so.
pub fn produce<const N: usize>(
    build: &Build,
    inputs: Inputs,
    outputs: [&str; N],
    make: impl FnOnce(&mut Workshop) -> Result<()>,
) -> Result<[Artifact; N]> {
    let stage = inputs.stage;
    let key = inputs.key();
    let home = build.layout.built(stage).join(&key);
    let last = build.layout.last_inputs(stage);
    if let Some(artifacts) = load(build, stage, &home, &key, outputs)? {
        build.ui.detail(stage, &format!("skipped: nothing it is made of changed (key {})", &key[..12]));
        note_inputs(&last, &inputs)?;
        return Ok(artifacts);
    }
    let _lock = lock(build, stage, &format!("{stage}-{key}"))?;
    if let Some(artifacts) = load(build, stage, &home, &key, outputs)? {
        build.ui.detail(stage, "skipped: another run has just made it");
        note_inputs(&last, &inputs)?;
        return Ok(artifacts);
    }
    let reason = inputs.difference(&last).unwrap_or_else(|| "never built here".to_owned());
    build.ui.say(stage, "building");
    build.ui.detail(stage, &format!("because {reason}"));
    let started = std::time::Instant::now();
    let artifacts = make_whole(build, &inputs, &key, &home, outputs, make)?;
    note_inputs(&last, &inputs)?;
    build.ui.say(stage, &format!("built in {:.1} s", started.elapsed().as_secs_f64()));
    Ok(artifacts)
}

/// The same, made in a folder that is kept for the next time: `make` gets its log, that folder and one for the results. These
/// stay in the checkout; what the cache has already is taken from there.
pub fn produce_kept<const N: usize>(
    build: &Build,
    inputs: &Inputs,
    outputs: [&str; N],
    make: impl FnOnce(&mut Log, &Path, &Path) -> Result<()>,
) -> Result<[Artifact; N]> {
    let (stage, key) = (inputs.stage, inputs.key());
    let kept = build.layout.kept(stage);
    let _lock =
        lock(build, stage, &format!("kept-{stage}-{}", &sha256_bytes(kept.as_os_str().as_bytes())[..16]))?;
    let results = kept.join("results");
    for home in [build.layout.built(stage).join(&key), results.join(&key)] {
        if let Some(artifacts) = load(build, stage, &home, &key, outputs)? {
            build.ui.detail(stage, &format!("skipped: nothing it is made of changed (key {})", &key[..12]));
            return Ok(artifacts);
        }
    }
    build.ui.say(stage, "building, in a tree that is kept");
    let started = std::time::Instant::now();
    let mut log = Log::create(build.layout.stage_log(stage))?;
    // Results of other inputs: the tree makes them again.
    remove_tree(&results)?;
    let unfinished = kept.join("unfinished");
    remove_tree(&unfinished)?;
    fs::create_dir_all(&unfinished).with_context(|| format!("{}: cannot create", unfinished.display()))?;
    make(&mut log, &kept, &unfinished)
        .and_then(|()| inputs.check_unchanged())
        .and_then(|()| describe(inputs, &key, &unfinished, outputs))
        .with_context(|| format!("stage {stage} failed"))?;
    let home = results.join(&key);
    fs::create_dir_all(&results).with_context(|| format!("{}: cannot create", results.display()))?;
    fs::rename(&unfinished, &home).with_context(|| format!("{}: cannot put in place", home.display()))?;
    build.ui.say(stage, &format!("built in {:.1} s", started.elapsed().as_secs_f64()));
    load(build, stage, &home, &key, outputs)?
        .with_context(|| format!("{}: vanished as soon as built", home.display()))
}

/// Puts the result that `artifact` belongs to into the cache. Only for what a clean build has made again, to the bit. False
/// when it is there already.
pub fn adopt(build: &Build, stage: &str, artifact: &Artifact) -> Result<bool> {
    let built = build.layout.built(stage);
    let (key, home) = (&artifact.key, built.join(&artifact.key));
    if artifact.path.starts_with(&home) {
        return Ok(false);
    }
    let _lock = lock(build, stage, &format!("{stage}-{key}"))?;
    let from = artifact.path.parent().context("the result lies in no folder")?;
    let room = built.join(format!("unfinished-{key}"));
    for dir in [&room, &home] {
        remove_tree(dir)?;
    }
    for entry in fs::read_dir(from).with_context(|| format!("{}: cannot list", from.display()))? {
        let entry = entry.with_context(|| format!("{}: cannot list", from.display()))?;
        copy_whole(&entry.path(), &room.join(entry.file_name()))?;
    }
    fs::rename(&room, &home).with_context(|| format!("{}: cannot put in place", home.display()))?;
    Ok(true)
}

fn make_whole<const N: usize>(
    build: &Build,
    inputs: &Inputs,
    key: &str,
    home: &Path,
    outputs: [&str; N],
    make: impl FnOnce(&mut Workshop) -> Result<()>,
) -> Result<[Artifact; N]> {
    let stage = inputs.stage;
    let built = build.layout.built(stage);
    // The lock on the key is held: what an interrupted run left for this key belongs to nobody.
    let room = built.join(format!("unfinished-{key}"));
    remove_tree(&room)?;
    let mut workshop = Workshop {
        scratch: room.join("scratch"),
        out: room.clone(),
        log: Log::create(build.layout.stage_log(stage))?,
    };
    fs::create_dir_all(&workshop.scratch)
        .with_context(|| format!("{}: cannot create", workshop.scratch.display()))?;
    let made = make(&mut workshop)
        .and_then(|()| inputs.check_unchanged())
        .and_then(|()| describe(inputs, key, &workshop.out, outputs));
    if let Err(error) = made {
        remove_tree(&room)?;
        return Err(error.context(format!("stage {stage} failed")));
    }
    // The rename is the last step: a run that is killed before it leaves a room that the next one clears, and after it
    // nothing is left to clear.
    remove_tree(&workshop.scratch)?;
    remove_tree(home)?;
    fs::rename(&room, home).with_context(|| format!("{}: cannot put in place", home.display()))?;
    load(build, stage, home, key, outputs)?
        .with_context(|| format!("{}: vanished as soon as built", home.display()))
}

/// Writes the record that makes the folder `out` a result.
fn describe<const N: usize>(inputs: &Inputs, key: &str, out: &Path, outputs: [&str; N]) -> Result<()> {
    let mut described = BTreeMap::new();
    for name in outputs {
        let (sha256, size) =
            sha256_file(&out.join(name)).context("the stage ended without making what it announced")?;
        described.insert(name.to_owned(), Output { sha256, size });
    }
    let record = Record {
        stage: inputs.stage.to_owned(),
        key: key.to_owned(),
        inputs: inputs.values.clone(),
        outputs: described,
    };
    write_whole(&out.join("record.json"), &serde_json::to_vec_pretty(&record)?)
}

/// The artefacts at `home` if all are there and whole. An altered one is reported and counts as absent.
fn load<const N: usize>(
    build: &Build,
    stage: &str,
    home: &Path,
    key: &str,
    outputs: [&str; N],
) -> Result<Option<[Artifact; N]>> {
    let Ok(text) = fs::read(home.join("record.json")) else { return Ok(None) };
    let Ok(record) = serde_json::from_slice::<Record>(&text) else { return Ok(None) };
    let mut artifacts = Vec::with_capacity(N);
    for name in outputs {
        let path = home.join(name);
        let Some(expected) = record.outputs.get(name) else { return Ok(None) };
        let found = sha256_file(&path).ok();
        if found.as_ref().map(|(sha256, _)| sha256) != Some(&expected.sha256) {
            build.ui.say(stage, &format!("{}: not what was put there; building it again", path.display()));
            return Ok(None);
        }
        artifacts.push(Artifact {
            path,
            sha256: expected.sha256.clone(),
            size: expected.size,
            key: key.to_owned(),
        });
    }
    Ok(<[Artifact; N]>::try_from(artifacts).ok())
}

fn note_inputs(last: &Path, inputs: &Inputs) -> Result<()> {
    write_whole(last, &serde_json::to_vec_pretty(&inputs.values)?)
}

/// Takes the lock called `name` until the returned file is dropped; says so, on behalf of `subject`, when it has to wait.
pub fn lock(build: &Build, subject: &str, name: &str) -> Result<File> {
    let (file, path) = lock_file(build, name)?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        build.ui.say(subject, "waiting: another run is at it");
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("{}: cannot lock", path.display()))?;
    }
    Ok(file)
}

/// Takes the lock on a result in the cache, whose folder is `<stage>/<key>` or `<stage>/unfinished-<key>`; none when
/// another run has it.
pub fn try_lock_result(build: &Build, folder: &Path) -> Result<Option<File>> {
    let name = |path: Option<&Path>| {
        path.and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned()
    };
    let (stage, key) = (name(folder.parent()), name(Some(folder)));
    let (file, _) = lock_file(build, &format!("{stage}-{}", key.trim_start_matches("unfinished-")))?;
    let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    Ok(locked.is_ok().then_some(file))
}

fn lock_file(build: &Build, name: &str) -> Result<(File, PathBuf)> {
    let dir = build.layout.locks();
    fs::create_dir_all(&dir).with_context(|| format!("{}: cannot create", dir.display()))?;
    let path = dir.join(name);
    let file = File::create(&path).with_context(|| format!("{}: cannot create", path.display()))?;
    Ok((file, path))
}

/// Writes `bytes` to `path` whole or not at all: a temporary name beside it, then a rename.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().with_context(|| format!("{}: has no parent folder", path.display()))?;
    fs::create_dir_all(parent).with_context(|| format!("{}: cannot create", parent.display()))?;
    let temporary = temporary_beside(path)?;
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    settle(written, &temporary, path)
}

/// Copies `from` to `to` whole or not at all; what was at `to` stays until the copy is complete.
pub fn copy_whole(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().with_context(|| format!("{}: has no parent folder", to.display()))?;
    fs::create_dir_all(parent).with_context(|| format!("{}: cannot create", parent.display()))?;
    // What can't be read is told from what can't be written.
    File::open(from).with_context(|| format!("{}: cannot read", from.display()))?;
    let temporary = temporary_beside(to)?;
    let copied = fs::copy(from, &temporary).and_then(|_| fs::rename(&temporary, to));
    settle(copied, &temporary, to)
}

/// A name beside `path` that is this process's own. What interrupted runs left under such names is removed.
fn temporary_beside(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else { bail!("{}: is not a file name", path.display()) };
    let prefix = format!(".{}.", name.to_string_lossy());
    for entry in path.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten() {
        let process =
            entry.file_name().to_str().and_then(|name| name.strip_prefix(&prefix)?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            // Another run may have removed it just now; one that stays does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(path.with_file_name(format!("{prefix}{}", std::process::id())))
}

fn settle(result: std::io::Result<()>, temporary: &Path, path: &Path) -> Result<()> {
    if result.is_err() {
        // The error below is the one that matters.
        let _ = fs::remove_file(temporary);
    }
    result.map_err(|error| {
        let mend = way_out(&error);
        anyhow::Error::new(error).context(format!(
            "{}: cannot write; what was there before is untouched; {mend} and run again",
            path.display()
        ))
    })
}

/// What to do about a file that can't be written.
pub fn way_out(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error.kind() {
        FileTooLarge | QuotaExceeded | StorageFull => "make room there",
        _ => "mend this",
    }
}

/// Removes `path` and all below it; that it is not there is fine.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}: cannot remove", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_that_change_while_a_stage_works_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (file, tree) = (dir.path().join("file"), dir.path().join("tree"));
        fs::write(&file, "one").unwrap();
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("part"), "one").unwrap();
        let inputs = Inputs::new("test", 1)
            .text("tool", "1")
            .file("file", &file)
            .unwrap()
            .tree("tree", &tree)
            .unwrap();
        inputs.check_unchanged().unwrap();
        fs::write(tree.join("part"), "two").unwrap();
        fs::write(tree.join("new"), "").unwrap();
        let said = inputs.check_unchanged().unwrap_err().to_string();
        assert_eq!(said, "tree/new is new, tree/part changed while it was built: run it again");
    }
}
