//! `clean`: makes room. In: what to remove. Out: nothing. Must never: remove a source tarball, or a built thing that
//! another run has locked.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::cli::CleanArgs;
use crate::context::Build;
use crate::stamp::{remove_tree, try_lock_result};

/// Removes dist/ and this checkout's notes; with `--cache` the built things too, but for the newest of each stage.
pub fn run(build: &Build, args: &CleanArgs) -> Result<()> {
    for dir in [
        build.layout.dist(),
        build.layout.notes(),
        build.layout.target().join("static"),
        build.layout.target().join("static-tests"),
        build.layout.target().join("static-symbols"),
    ] {
        remove_tree(&dir)?;
    }
    if !args.cache {
        return Ok(());
    }
    let built = build.layout.cache().join("built");
    for stage in folders(&built)? {
        let mut entries = Vec::new();
        for dir in folders(&stage)? {
            let made = fs::metadata(dir.join("record.json"))
                .and_then(|facts| facts.modified())
                .unwrap_or(SystemTime::UNIX_EPOCH);
            entries.push((made, dir));
        }
        entries.sort();
        entries.reverse();
        for (_, dir) in entries.into_iter().skip(args.keep) {
            let Some(_lock) = try_lock_result(build, &dir)? else {
                build.ui.say("clean", &format!("{}: another run is at work on it; it stays", dir.display()));
                continue;
            };
            build.ui.detail("clean", &dir.display().to_string());
            remove_tree(&dir)?;
        }
    }
    Ok(())
}

fn folders(dir: &PathBuf) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("{}: cannot list", dir.display())),
        Ok(entries) => Ok(entries
            .filter_map(|entry| entry.ok())
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()),
    }
}
