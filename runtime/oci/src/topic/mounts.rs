//! Mounts of a container, by the fd-based mount API. In: `mounts`. Out: a checked list; then mounts inside the root.
//! Must never: name a target by path once it is resolved, or leave a mount half configured: it is attached last.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::FsMountFlags;
use rustix::mount::FsOpenFlags;
use rustix::mount::MountAttrFlags;
use rustix::mount::MoveMountFlags;
use rustix::mount::OpenTreeFlags;

use super::copy_up;
use super::idmap;
use super::idmap::IdMap;
use super::inside;
use super::inside::Make;
use super::namespaces::Namespaces;
use crate::report::Error;
use crate::report::Fails;
use crate::spec::Mount;
use sys::mount::MountAttributes;
use sys::mount::set_attributes;

/// MOUNT_ATTR__ATIME of linux/mount.h: the bits of which one value is set.
const ATIME_MASK: u64 = 0x70;
/// Options that are attributes of a mount: name, MOUNT_ATTR_* bits that it sets, bits that it clears. With an `r` in
/// front they hold for the mounts below it too.
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", 0x1, 0),
    ("rw", 0, 0x1),
    ("nosuid", 0x2, 0),
    ("suid", 0, 0x2),
    ("nodev", 0x4, 0),
    ("dev", 0, 0x4),
    ("noexec", 0x8, 0),
    ("exec", 0, 0x8),
    ("noatime", 0x10, ATIME_MASK),
    ("atime", 0, ATIME_MASK),
    ("relatime", 0, ATIME_MASK),
    ("norelatime", 0, ATIME_MASK),
    ("strictatime", 0x20, ATIME_MASK),
    ("nostrictatime", 0, ATIME_MASK),
    ("nodiratime", 0x80, 0),
    ("diratime", 0, 0x80),
    ("nosymfollow", 0x20_0000, 0),
    ("symfollow", 0, 0x20_0000),
];
/// Options that say what holds anyway.
const IGNORED: [&str; 5] = ["defaults", "async", "loud", "nomand", "norecursive"];
/// Propagations, each also with an `r` in front (mount(2)).
const PROPAGATIONS: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];
/// Options with a meaning of their own.
const SPECIAL: [&str; 5] = ["bind", "rbind", "idmap", "ridmap", "tmpcopyup"];

/// The options that are known here, for `features`; a file system has more of its own.
pub fn option_names() -> Vec<String> {
    let both = |name: &str| [name.to_string(), format!("r{name}")];
    let mut names: Vec<String> = ATTRIBUTES.iter().flat_map(|(name, ..)| both(name)).collect();
    names.extend(PROPAGATIONS.iter().flat_map(|(name, _)| both(name)));
    names.extend(IGNORED.iter().chain(&SPECIAL).map(|name| name.to_string()));
    names.sort();
    names
}

/// A checked mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// Where, inside.
    pub destination: PathBuf,
    /// What.
    pub kind: Kind,
    /// How its owners are mapped.
    pub idmap: Option<IdMap>,
    copies_up: bool,
    attributes: MountAttributes,
    recursive: MountAttributes,
    propagation: Vec<(u64, bool)>,
    /// How messages name it.
    name: String,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file or folder of the host; with all mounts below it if `recursive`.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Whether the mounts below it come along.
        recursive: bool,
    },
    /// The container's cgroup.
    Cgroup,
    /// A new instance of a file system with its own options.
    FileSystem {
        /// Its type.
        name: String,
        /// Device, or whatever the type takes for one.
        source: String,
        /// Its own options.
        options: Vec<String>,
    },
}

/// Checks one entry of `mounts`.
///
/// # Errors
/// A destination that is missing, an option that is not supported.
pub fn plan(index: usize, mount: &Mount, bundle: &Path, namespaces: &Namespaces) -> Result<MountPlan, Error> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    if mount.destination.is_empty() {
        return Err(Error::spec(field("destination"), "is empty; expected an absolute path"));
    }
    let mut plan = MountPlan {
        destination: inside::plain(Path::new(&mount.destination)),
        kind: Kind::Cgroup,
        idmap: None,
        copies_up: false,
        attributes: MountAttributes::default(),
        recursive: MountAttributes::default(),
        propagation: Vec::new(),
        name: format!(
            "{:?} to {:?}",
            if mount.source.is_empty() { &mount.kind } else { &mount.source },
            mount.destination
        ),
    };
    let mut idmap = None;
    let mut bind = (mount.kind == "bind").then_some(false);
    let mut data = Vec::new();
    for option in &mount.options {
        match option.as_str() {
            "bind" => bind = bind.or(Some(false)),
            "rbind" => bind = Some(true),
            "idmap" | "ridmap" => idmap = Some(option.as_str()),
            "tmpcopyup" => plan.copies_up = true,
            option => plan.option(option, &mut data),
        }
    }
    plan.idmap = idmap::plan(&format!("mounts[{index}]"), mount, idmap, namespaces)?;
    if plan.idmap.is_some() && bind.is_none() {
        return Err(Error::spec(field("uidMappings"), "id-mapped mounts are only supported for bind-mounts"));
    }
    if plan.copies_up && (bind.is_some() || mount.kind != "tmpfs") {
        return Err(Error::spec(field("options"), "tmpcopyup: only a tmpfs can begin with a copy"));
    }
    plan.kind = match (bind, mount.kind.as_str()) {
        (Some(recursive), _) => {
            if mount.source.is_empty() {
                return Err(Error::spec(field("source"), "is empty; a bind mount needs a path"));
            }
            Kind::Bind { source: bundle.join(&mount.source), recursive }
        }
        (None, "cgroup" | "cgroup2") => Kind::Cgroup,
        (None, "") => {
            return Err(Error::spec(field("type"), "is empty; expected a file system, or the option bind"));
        }
        (None, name) => {
            Kind::FileSystem { name: name.to_string(), source: mount.source.clone(), options: data }
        }
    };
    Ok(plan)
}

impl MountPlan {
    /// With an SELinux label for the files of a new file system; those that label files by themselves have no such option.
    pub fn labelled(mut self, label: &str) -> MountPlan {
        if let Kind::FileSystem { name, options, .. } = &mut self.kind
            && !label.is_empty()
            && !matches!(name.as_str(), "proc" | "sysfs" | "mqueue")
        {
            options.push(format!("context={label}"));
        }
        self
    }

    /// One option: a mount attribute, a propagation, or else the file system's own.
    fn option(&mut self, option: &str, data: &mut Vec<String>) {
        let find = |word: &str| ATTRIBUTES.iter().find(|(name, ..)| *name == word);
        let (found, attributes) = match (find(option), option.strip_prefix('r').and_then(find)) {
            (Some(found), _) => (found, &mut self.attributes),
            (None, Some(found)) => (found, &mut self.recursive),
            (None, None) => {
                match propagation(option) {
                    Some(change) => self.propagation.push(change),
                    None if IGNORED.contains(&option) => {}
                    None => data.push(option.to_string()),
                }
                return;
            }
        };
        // The last word counts.
        let (_, set, clear) = *found;
        attributes.set = attributes.set & !(set | clear) | set;
        attributes.clear = attributes.clear & !set | clear;
    }

    /// Mounts it inside `root`; `prepared` is the mount, where the runtime has made it.
    ///
    /// # Errors
    /// Each names the mount and what failed.
    pub fn apply(
        &self,
        root: BorrowedFd<'_>,
        cgroup: &CgroupView<'_>,
        prepared: Option<&OwnedFd>,
    ) -> Result<(), Error> {
        let made;
        let detached = match prepared {
            Some(prepared) => prepared,
            None => {
                made = self.detached(cgroup, self.covered_mode(root)).step("mount", &self.name)?;
                &made
            }
        };
        let target = match self.target(root, detached) {
            Err(Errno::LOOP) if self.is_proc_or_sys() => {
                return Err(Error::new(format!(
                    "mount {}: it must be mounted on ordinary directory, and there is a link",
                    self.name
                )));
            }
            target => target.step("make the mount point of", &self.name)?,
        };
        if self.copies_up {
            copy_up::copy(target.as_fd(), detached.as_fd())
                .step("tmpcopyup: copy what is at the mount point of", &self.name)?;
        }
        for (attributes, recursive) in [(&self.attributes, false), (&self.recursive, true)] {
            if attributes.set | attributes.clear != 0 {
                set_attributes(detached.as_fd(), attributes, recursive).step("mount", &self.name)?;
            }
        }
        attach(detached, &target).step("mount", &self.name)?;
        // Flags are attached to the mount's own root.
        for (propagation, recursive) in &self.propagation {
            let change = MountAttributes { propagation: *propagation, ..MountAttributes::default() };
            set_attributes(detached.as_fd(), &change, *recursive)
                .step("set the propagation of", &self.name)?;
        }
        Ok(())
    }

    /// What a bind mount shows, in no tree yet: the runtime's side of an idmapped one.
    ///
    /// # Errors
    /// open_tree(2)'s.
    pub fn detached_source(&self) -> Result<OwnedFd, Error> {
        match &self.kind {
            Kind::Bind { source, recursive } => clone_tree(source, *recursive),
            _ => Err(Errno::INVAL),
        }
        .step("mount", &self.name)
    }

    /// How messages name it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A tmpfs that does not say its mode has that of the folder which it covers; a new mount point has none to give.
    fn covered_mode(&self, root: BorrowedFd<'_>) -> Option<Mode> {
        let is_tmpfs = matches!(&self.kind, Kind::FileSystem { name, .. } if name == "tmpfs");
        if !is_tmpfs || self.has_mode() {
            return None;
        }
        let covered = inside::open(root, &self.destination, OFlags::PATH).ok()?;
        let stat = rustix::fs::fstat(&covered).ok()?;
        Some(Mode::from_raw_mode(stat.st_mode & 0o7777))
    }

    fn has_mode(&self) -> bool {
        matches!(&self.kind, Kind::FileSystem { options, .. } if options.iter().any(|option| option.starts_with("mode=")))
    }

    /// The mount with its file system's options, not yet in any tree.
    fn detached(&self, cgroup: &CgroupView<'_>, mode: Option<Mode>) -> Result<OwnedFd, Errno> {
        let mount = match &self.kind {
            Kind::Bind { source, recursive } => clone_tree(source, *recursive)?,
            Kind::Cgroup => match cgroup {
                CgroupView::Namespace => match new_file_system("cgroup2", "cgroup", &[]) {
                    // In a user namespace that does not own the cgroup namespace.
                    Err(Errno::PERM | Errno::BUSY) => clone_tree(Path::new("/sys/fs/cgroup"), true)?,
                    done => done?,
                },
                CgroupView::Folder(path) => clone_tree(path, false)?,
            },
            Kind::FileSystem { name, source, options } => {
                let mode = mode.map(|mode| format!("mode={:o}", mode.as_raw_mode()));
                let options: Vec<String> = options.iter().cloned().chain(mode).collect();
                match new_file_system(name, source, &options) {
                    // A user namespace without its own network may not mount a new sysfs; runc binds the host's.
                    Err(Errno::PERM) if name == "sysfs" => clone_tree(Path::new("/sys"), true)?,
                    done => done?,
                }
            }
        };
        Ok(mount)
    }

    fn target(&self, root: BorrowedFd<'_>, mount: &OwnedFd) -> Result<OwnedFd, Errno> {
        let what = if inside::is_folder(mount)? { Make::Folder } else { Make::File };
        let mode = Mode::from_raw_mode(if what == Make::Folder { 0o755 } else { 0o644 });
        let target = inside::make(root, &self.destination, what, mode)?;
        if self.is_proc_or_sys() {
            // A link there would put the real one where nobody masks it (CVE-2019-19921, CVE-2023-27561).
            let relative = self.destination.strip_prefix("/").unwrap_or(&self.destination);
            return inside::open_without_links(root, relative, OFlags::PATH | OFlags::DIRECTORY);
        }
        Ok(target)
    }

    fn is_proc_or_sys(&self) -> bool {
        matches!(&self.kind, Kind::FileSystem { name, .. } if name == "proc" || name == "sysfs")
    }

    /// Whether it is a bind mount.
    pub fn is_bind(&self) -> bool {
        matches!(self.kind, Kind::Bind { .. })
    }
}

/// What the container sees of the cgroup tree.
#[derive(Debug)]
pub enum CgroupView<'a> {
    /// Its own cgroup as the root: it has a cgroup namespace.
    Namespace,
    /// The folder of its cgroup.
    Folder(&'a Path),
}

/// A copy of the mount at `source`, in no tree.
///
/// # Errors
/// open_tree(2)'s.
pub fn clone_tree(source: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(rustix::fs::CWD, source, flags)
}

/// A new instance of a file system, in no tree.
///
/// # Errors
/// fsopen(2)'s, fsconfig(2)'s and fsmount(2)'s.
pub fn new_file_system(name: &str, source: &str, options: &[String]) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if !source.is_empty() {
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", source)?;
    }
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?,
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), option.as_str())?,
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Puts a detached mount onto `target`.
///
/// # Errors
/// move_mount(2)'s.
pub fn attach(mount: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount.as_fd(), c"", target.as_fd(), c"", flags)
}

/// A propagation's MS_* bit and whether it is recursive (mount(2)).
pub fn propagation(word: &str) -> Option<(u64, bool)> {
    let (word, recursive) = word.strip_prefix('r').map_or((word, false), |rest| (rest, true));
    let (_, bit) = PROPAGATIONS.iter().find(|(name, _)| *name == word)?;
    Some((*bit, recursive))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::linux::NamespaceKind;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        Mount {
            destination: "/a/../b".into(),
            kind: kind.into(),
            source: "src".into(),
            options: options.iter().map(|option| option.to_string()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn options_are_attributes_propagation_or_the_file_systems_own() {
        let plan = plan(
            0,
            &mount("tmpfs", &["nosuid", "strictatime", "mode=755", "rprivate", "ro"]),
            Path::new("/"),
            &Namespaces::default(),
        )
        .unwrap();
        assert_eq!(plan.attributes.set, 0x2 | 0x20 | 0x1);
        assert_eq!(plan.attributes.clear, ATIME_MASK & !0x20 | 0x20 & plan.attributes.clear);
        assert_eq!(plan.propagation, [(libc::MS_PRIVATE, true)]);
        assert_eq!(plan.destination, Path::new("/b"));
        let Kind::FileSystem { options, .. } = plan.kind else { panic!() };
        assert_eq!(options, ["mode=755"]);
    }

    #[test]
    fn a_relative_bind_counts_from_the_bundle() {
        let plan =
            plan(0, &mount("", &["rbind", "rro"]), Path::new("/bundle"), &Namespaces::default()).unwrap();
        assert_eq!(plan.kind, Kind::Bind { source: "/bundle/src".into(), recursive: true });
        assert_eq!((plan.attributes.set, plan.recursive.set), (0, 1));
    }

    #[test]
    fn the_last_of_two_contrary_words_counts() {
        let plan = plan(0, &mount("bind", &["ro", "rw"]), Path::new("/"), &Namespaces::default()).unwrap();
        assert_eq!((plan.attributes.set, plan.attributes.clear), (0, 1));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = plan(3, &mount("", &[]), Path::new("/"), &Namespaces::default()).unwrap_err().to_string();
        assert!(error.starts_with("mounts[3].type:"), "{error}");
    }

    #[test]
    fn ids_are_mapped_for_bind_mounts_with_both_maps_or_a_user_namespace() {
        let map = vec![crate::spec::linux::IdMapping { container_id: 0, host_id: 1000, size: 1 }];
        let one = Mount { uid_mappings: map.clone(), ..mount("bind", &[]) };
        let both = Mount { gid_mappings: map.clone(), ..one.clone() };
        let user = Namespaces { new: vec![NamespaceKind::User], ..Namespaces::default() };
        let planned = |mount: &Mount, namespaces: &Namespaces| {
            plan(0, mount, Path::new("/"), namespaces)
                .map(|plan| plan.idmap.is_some())
                .map_err(|error| error.to_string())
        };
        assert_eq!(planned(&both, &Namespaces::default()), Ok(true));
        assert_eq!(planned(&mount("bind", &["ridmap"]), &user), Ok(true));
        assert!(planned(&one, &user).unwrap_err().starts_with("mounts[0].uidMappings:"));
        assert!(
            planned(&mount("bind", &["idmap"]), &Namespaces::default())
                .unwrap_err()
                .contains("user namespace")
        );
        let tmpfs = Mount { kind: "tmpfs".into(), ..both };
        assert!(planned(&tmpfs, &user).unwrap_err().contains("only supported for bind-mounts"));
        assert!(planned(&mount("proc", &["tmpcopyup"]), &user).unwrap_err().contains("only a tmpfs"));
    }
}
