//! Namespaces: new ones by clone3, existing ones by setns, id maps of a user namespace, offsets of a time namespace.
//! In: `linux.namespaces` and what goes with them. Out: flags, paths, map texts. Must never: mistake "absent" for "new":
//! a namespace that is not named is the runtime's own.

use std::fmt::Write;
use std::path::Path;
use std::path::PathBuf;

use rustix::process::Pid;

use crate::report::Error;
use crate::report::Fails;
use crate::spec::Spec;
use crate::spec::linux::IdMapping;
use crate::spec::linux::Namespace;
use crate::spec::linux::NamespaceKind;

/// As many lines as an id map may have (user_namespaces(7)).
const MAPPINGS_MAX: usize = 340;

/// What a container shares with nobody, and what it joins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// New ones.
    pub new: Vec<NamespaceKind>,
    /// Existing ones.
    pub join: Vec<(NamespaceKind, PathBuf)>,
    /// Text for /proc/PID/uid_map; for a user namespace that is joined, what it has to be, or empty.
    pub uid_map: String,
    /// Text for /proc/PID/gid_map.
    pub gid_map: String,
    /// Text for /proc/self/timens_offsets.
    pub time_offsets: String,
}

/// The name of a kind in /proc/PID/ns (namespaces(7)).
pub fn file_name(kind: NamespaceKind) -> &'static str {
    match kind {
        NamespaceKind::User => "user",
        NamespaceKind::Pid => "pid",
        NamespaceKind::Mount => "mnt",
        NamespaceKind::Network => "net",
        NamespaceKind::Uts => "uts",
        NamespaceKind::Ipc => "ipc",
        NamespaceKind::Cgroup => "cgroup",
        NamespaceKind::Time => "time",
    }
}

/// The CLONE_NEW* bit of a kind (clone(2)).
pub fn flag(kind: NamespaceKind) -> i32 {
    /// linux/sched.h; the libc crate lacks it.
    const CLONE_NEWTIME: i32 = 0x80;
    match kind {
        NamespaceKind::User => libc::CLONE_NEWUSER,
        NamespaceKind::Pid => libc::CLONE_NEWPID,
        NamespaceKind::Mount => libc::CLONE_NEWNS,
        NamespaceKind::Network => libc::CLONE_NEWNET,
        NamespaceKind::Uts => libc::CLONE_NEWUTS,
        NamespaceKind::Ipc => libc::CLONE_NEWIPC,
        NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
        NamespaceKind::Time => CLONE_NEWTIME,
    }
}

/// Checks the section.
///
/// # Errors
/// A kind twice; maps without a user namespace or the other way round; offsets without a time namespace.
pub fn plan(spec: &Spec) -> Result<Namespaces, Error> {
    let Some(linux) = &spec.linux else { return Ok(Namespaces::default()) };
    let mut plan = Namespaces::default();
    let mut seen = Vec::new();
    for (index, Namespace { kind, path }) in linux.namespaces.iter().enumerate() {
        if seen.contains(kind) {
            return Err(Error::spec(
                format!("linux.namespaces[{index}]"),
                format!("{kind:?} stands here a second time; keep one"),
            ));
        }
        seen.push(*kind);
        if path.is_empty() {
            plan.new.push(*kind);
        } else {
            plan.join.push((*kind, PathBuf::from(path)));
        }
    }
    let user = plan.new.contains(&NamespaceKind::User);
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if user && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
        return Err(Error::spec(
            "linux.uidMappings",
            "user namespaces enabled, but no uid and gid mappings found",
        ));
    }
    if mapped && !plan.is_own(NamespaceKind::User) {
        return Err(Error::spec(
            "linux.uidMappings",
            "mappings without a user namespace; add one, or remove them",
        ));
    }
    for (field, mappings) in [("uidMappings", &linux.uid_mappings), ("gidMappings", &linux.gid_mappings)] {
        if mappings.len() > MAPPINGS_MAX {
            return Err(Error::spec(
                format!("linux.{field}"),
                format!("{} mappings, the kernel takes at most {MAPPINGS_MAX}", mappings.len()),
            ));
        }
    }
    plan.uid_map = map_text(&linux.uid_mappings);
    plan.gid_map = map_text(&linux.gid_mappings);
    if !linux.time_offsets.is_empty() && !plan.new.contains(&NamespaceKind::Time) {
        return Err(Error::spec(
            "linux.timeOffsets",
            "offsets without a new time namespace; add one, or remove them",
        ));
    }
    for (clock, offset) in &linux.time_offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::spec(
                format!("linux.timeOffsets.{clock}"),
                "no such clock; expected monotonic or boottime",
            ));
        }
        // Writing to a String cannot fail.
        let _ = writeln!(plan.time_offsets, "{clock} {} {}", offset.secs, offset.nanosecs);
    }
    Ok(plan)
}

impl Namespaces {
    /// Whether there is a new one of `kind`.
    pub fn is_new(&self, kind: NamespaceKind) -> bool {
        self.new.contains(&kind)
    }

    /// Where the namespace of `kind` is that the container joins.
    pub fn joined(&self, kind: NamespaceKind) -> Option<&Path> {
        self.join.iter().find(|(joined, _)| *joined == kind).map(|(_, path)| path.as_path())
    }

    /// Whether the container has its own one of `kind`, new or joined.
    pub fn is_own(&self, kind: NamespaceKind) -> bool {
        self.is_new(kind) || self.joined(kind).is_some()
    }
}

/// Gives the user namespace of `pid` its maps.
///
/// # Errors
/// write(2)'s: EPERM for ids that the caller may not map.
pub fn write_maps(pid: Pid, uid_map: &str, gid_map: &str) -> Result<(), Error> {
    let write = |file: &str, text: &str| {
        let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
        std::fs::write(&path, text).step("write", path)
    };
    // An unprivileged writer of gid_map has to give setgroups up first (user_namespaces(7)).
    if !rustix::process::geteuid().is_root() {
        write("setgroups", "deny")?;
    }
    write("uid_map", uid_map)?;
    write("gid_map", gid_map)
}

/// The text of a uid_map or gid_map.
pub fn map_text(mappings: &[IdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, mapping| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", mapping.container_id, mapping.host_id, mapping.size);
        text
    })
}
