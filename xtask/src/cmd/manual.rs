//! `manual`: man pages and shell completions of our programs. In: this checkout. Out: a folder. Must never: hold a word of
//! its own on what a program does; runtime/examples/manual.rs asks the command lines.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::cli::ManualArgs;
use crate::context::Build;
use crate::stage::runtime;

/// Writes them.
pub fn run(build: &Build, args: &ManualArgs) -> Result<()> {
    let out = std::path::absolute(&args.out)
        .with_context(|| format!("--out {}: is not a path", args.out.display()))?;
    let shell = Shell::new()?;
    shell.change_dir(build.layout.root());
    let offline = runtime::cargo_offline(build);
    cmd!(shell, "cargo run --quiet --locked {offline...} --package runtime --example manual -- {out}")
        .quiet()
        .run()
        .context("the example `manual` of runtime/ failed; its message is above")?;
    build.ui.say("manual", &out.display().to_string());
    Ok(())
}
