//! Namespaces: new ones by clone3, existing ones by setns, id maps of a user namespace, offsets of a time namespace.
//! In: `linux.namespaces` and what goes with them. Out: flags, paths, map texts. Must never: mistake "absent" for "new":
//! a namespace that is not named is the runtime's own.

use std::fmt::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use rustix::process::Pid;

use crate::report::Error;
use crate::report::Fails;
use spec::Spec;
use spec::linux::IdMapping;
use spec::linux::Namespace;
use spec::linux::NamespaceKind;

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
    /// Sets the clocks of the new time namespace, which the caller has made and nobody has entered.
    ///
    /// # Errors
    /// write(2)'s: ERANGE for a clock before the host's beginning.
    pub fn write_time_offsets(&self) -> Result<(), Error> {
        if self.time_offsets.is_empty() {
            return Ok(());
        }
        let path = "/proc/self/timens_offsets";
        std::fs::write(path, &self.time_offsets).step("write", path)
    }

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

/// Gives the user namespace of `pid` its maps: by itself, or, for what a user may not map himself, by newuidmap(1) and
/// newgidmap(1), which look into subuid(5) and subgid(5).
///
/// # Errors
/// write(2)'s: EPERM for ids that the caller may not map. What the programs say.
pub fn write_maps(pid: Pid, uid_map: &str, gid_map: &str) -> Result<(), Error> {
    write_map(pid, "uid_map", uid_map, "newuidmap")?;
    // An unprivileged writer of gid_map has to give setgroups up first (user_namespaces(7)). newgidmap needs not, where
    // subgid(5) gives the group to the user.
    if !rustix::process::geteuid().is_root() && is_alone(gid_map, rustix::process::getegid().as_raw()) {
        let path = format!("/proc/{}/setgroups", pid.as_raw_nonzero());
        std::fs::write(&path, "deny").step("write", path)?;
    }
    write_map(pid, "gid_map", gid_map, "newgidmap")
}

/// Whether a map has one line, for `id` alone.
fn is_alone(map: &str, id: u32) -> bool {
    let mut words = map.split_whitespace().skip(1);
    words.next().is_some_and(|outside| outside.parse() == Ok(id))
        && words.next() == Some("1")
        && words.next().is_none()
}

fn write_map(pid: Pid, file: &str, map: &str, program: &str) -> Result<(), Error> {
    let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
    match std::fs::write(&path, map) {
        Err(error)
            if error.kind() == std::io::ErrorKind::PermissionDenied
                && !rustix::process::geteuid().is_root() => {}
        done => return done.step("write", path),
    }
    let mut command = Command::new(program);
    command.arg(pid.as_raw_nonzero().to_string()).args(map.split_whitespace());
    let field = if file == "uid_map" { "linux.uidMappings" } else { "linux.gidMappings" };
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(Error::spec(field, format!("{program} refused it: {}", said.trim())))
        }
        Err(error) => Err(Error::spec(
            field,
            format!(
                "a user may map no other ids without the program {program} (Debian's package uidmap): {error}"
            ),
        )),
    }
}

/// The text of a uid_map or gid_map.
pub fn map_text(mappings: &[IdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, mapping| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", mapping.container_id, mapping.host_id, mapping.size);
        text
    })
}

/// What a user namespace's `id` is outside (user_namespaces(7), "User and group ID mappings").
pub fn id_outside(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map_while(|number| number.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let offset = id.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_line_by_line() {
        let map = "         0     100000         10\n        10       5000          1\n";
        assert_eq!(id_outside(map, 0), Some(100_000));
        assert_eq!(id_outside(map, 9), Some(100_009));
        assert_eq!(id_outside(map, 10), Some(5000));
        assert_eq!(id_outside(map, 11), None);
        assert_eq!(id_outside("0 0 4294967295", 4_294_967_294), Some(4_294_967_294));
        assert_eq!(id_outside("", 0), None);
    }

    #[test]
    fn a_map_of_one_id_is_told_from_others() {
        assert!(is_alone("0 1000 1\n", 1000));
        for map in ["0 1000 2\n", "0 1001 1\n", "0 1000 1\n1 100000 65536\n", ""] {
            assert!(!is_alone(map, 1000), "{map}");
        }
    }
}
