//! Folders of what was worked out before, from which only the caller's own work may be taken.
//!
//! In: a path. Out: the folder, opened, if it is one. Must never: follow a link at its end, or make anything.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;

/// The folder, if it is there, the caller's own and nobody else's to write.
pub fn open(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&folder).ok()?;
    let is_own = stat.st_uid == rustix::process::geteuid().as_raw();
    let writers = Mode::WGRP | Mode::WOTH;
    (is_own && !Mode::from_raw_mode(stat.st_mode).intersects(writers)).then_some(folder)
}
