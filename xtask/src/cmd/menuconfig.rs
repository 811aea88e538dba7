//! `menuconfig kernel|busybox`. In: the fragments, configured as a build would. Out: what the menu changed, as fragment
//! lines on stdout. Must never: write a fragment itself: where a symbol belongs, and why, only a person knows.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cli::Configured;
use crate::context::Build;
use crate::kconfig::Config;
use crate::stage::{busybox, kernel};
use crate::stamp::remove_tree;
use crate::ui::Log;

/// Shows the menu and prints what was changed in it.
pub fn run(build: &Build, which: Configured) -> Result<()> {
    let (name, folder) = match which {
        Configured::Kernel => ("kernel", build.layout.kernel_config()),
        Configured::Busybox => ("busybox", build.layout.busybox_config()),
    };
    let room = build.layout.notes().join("menuconfig").join(name);
    remove_tree(&room)?;
    std::fs::create_dir_all(&room).with_context(|| format!("{}: cannot create", room.display()))?;
    let mut log = Log::create(build.layout.stage_log("menuconfig"))?;
    let source = match which {
        Configured::Kernel => kernel::configured(build, &mut log, &room)?,
        Configured::Busybox => busybox::configured(build, &mut log, &room)?,
    };
    let config = source.join(".config");
    let read =
        || std::fs::read_to_string(&config).with_context(|| format!("{}: cannot read", config.display()));
    let before = Config::parse(&read()?);
    let status = Command::new(build.host.require("make")?)
        .args(["ARCH=x86_64", "--no-print-directory", "menuconfig"])
        .current_dir(&source)
        .status()
        .context("make: cannot run")?;
    if !status.success() {
        bail!("the menu did not start, or ended with an error; it needs a terminal");
    }
    let changes = before.changes_to(&Config::parse(&read()?));
    if changes.is_empty() {
        build.ui.say(name, "nothing was changed");
    } else {
        let what = format!("changed; put what you want to keep into a fragment in {}:", folder.display());
        build.ui.say(name, &what);
        println!("{}", changes.join("\n"));
    }
    // Last: a kernel's 80,000 files take a while to go.
    remove_tree(&room)
}
