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
use spec::Mount;
use sys::mount::MountAttributes;
use sys::mount::set_attributes;

// MOUNT_ATTR_* of linux/mount.h.
const RDONLY: u64 = 0x1;
/// MOUNT_ATTR_NOSUID.
pub const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
/// MOUNT_ATTR_NOEXEC.
pub const NOEXEC: u64 = 0x8;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;
/// No bit of the kernel's, for which it is the value 0 of three.
const RELATIME: u64 = 1 << 63;
/// MOUNT_ATTR__ATIME: the bits of which one value is set.
const ATIME_MASK: u64 = 0x70;
const ATIMES: u64 = NOATIME | STRICTATIME | RELATIME | NODIRATIME;
/// What a user namespace may not take from a mount of its parent (mount_namespaces(7), "Restrictions").
const LOCKABLE: u64 = RDONLY | NOSUID | NODEV | NOEXEC;
/// What a mount has or has not, each by itself.
const SINGLE: u64 = LOCKABLE | NOSYMFOLLOW;
/// Options that are attributes of a mount: name, the bit, whether it is set. With an `r` in front they hold for the mounts
/// below it too.
const ATTRIBUTES: [(&str, u64, bool); 18] = [
    ("ro", RDONLY, true),
    ("rw", RDONLY, false),
    ("nosuid", NOSUID, true),
    ("suid", NOSUID, false),
    ("nodev", NODEV, true),
    ("dev", NODEV, false),
    ("noexec", NOEXEC, true),
    ("exec", NOEXEC, false),
    ("noatime", NOATIME, true),
    ("atime", NOATIME, false),
    ("relatime", RELATIME, true),
    ("norelatime", RELATIME, false),
    ("strictatime", STRICTATIME, true),
    ("nostrictatime", STRICTATIME, false),
    ("nodiratime", NODIRATIME, true),
    ("diratime", NODIRATIME, false),
    ("nosymfollow", NOSYMFOLLOW, true),
    ("symfollow", NOSYMFOLLOW, false),
];
/// How the error begins, in runc's words, where a mount can't be made.
const MOUNTING: &str = "error during container init: error mounting";
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
    asked: Asked,
    recursive: Asked,
    propagation: Vec<(u64, bool)>,
    /// How messages name it.
    name: String,
}

/// What the options ask of a mount's attributes; of two contrary words the last one counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Asked {
    set: u64,
    cleared: u64,
}

impl Asked {
    fn word(&mut self, bit: u64, set: bool) {
        let (to, from) =
            if set { (&mut self.set, &mut self.cleared) } else { (&mut self.cleared, &mut self.set) };
        *to |= bit;
        *from &= !bit;
    }

    fn is_empty(self) -> bool {
        self.set | self.cleared == 0
    }

    /// As the options of mount(8) and runc mean it: with one word said, all that is not said is cleared, but for the kind
    /// of access times, which stays unless one is said.
    fn whole(self) -> MountAttributes {
        let mut change = MountAttributes {
            set: self.set & SINGLE,
            clear: SINGLE & !self.set,
            ..MountAttributes::default()
        };
        if self.set & ATIMES != 0 {
            change.set |= self.atime() | self.set & NODIRATIME;
            change.clear |= ATIME_MASK | NODIRATIME & !self.set;
        }
        change
    }

    /// For a mount with `present` attributes that may not be taken from it: what is said is added. None: it can't be had.
    fn added_to(self, present: u64) -> Option<MountAttributes> {
        let refused = present & self.cleared & LOCKABLE != 0;
        let other_times = self.set & ATIMES != 0 && self.set & ATIMES != present & ATIMES;
        let change = MountAttributes {
            set: self.set & SINGLE,
            clear: NOSYMFOLLOW & !self.set,
            ..MountAttributes::default()
        };
        (!refused && !other_times).then_some(change)
    }

    /// Only what is said, for the mounts below too.
    fn only(self) -> MountAttributes {
        let mut change = MountAttributes {
            set: self.set & (SINGLE | NODIRATIME),
            clear: self.cleared & (SINGLE | NODIRATIME),
            ..MountAttributes::default()
        };
        if (self.set | self.cleared) & ATIMES & !NODIRATIME != 0 {
            change.set |= self.atime();
            change.clear |= ATIME_MASK;
        }
        change
    }

    /// The kernel's value for the kind of access times.
    fn atime(self) -> u64 {
        if self.set & STRICTATIME != 0 { STRICTATIME } else { self.set & NOATIME }
    }
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

/// Checks one entry of `mounts`. As in runc a destination may also be told by its path on the host, below `rootfs`.
///
/// # Errors
/// A destination that is missing, an option that is not supported.
pub fn plan(
    index: usize,
    mount: &Mount,
    (bundle, rootfs): (&Path, &Path),
    namespaces: &Namespaces,
) -> Result<MountPlan, Error> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    if mount.destination.is_empty() {
        return Err(Error::spec(field("destination"), "is empty; expected an absolute path"));
    }
    let mut plan = MountPlan {
        destination: {
            let plain = inside::plain(Path::new(&mount.destination));
            plain.strip_prefix(rootfs).map_or_else(|_| plain.clone(), |inside| Path::new("/").join(inside))
        },
        kind: Kind::Cgroup,
        idmap: None,
        copies_up: false,
        asked: Asked::default(),
        recursive: Asked::default(),
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
        let (found, asked) = match (find(option), option.strip_prefix('r').and_then(find)) {
            (Some(found), _) => (found, &mut self.asked),
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
        let (_, bit, set) = *found;
        asked.word(bit, set);
    }

    /// Mounts it inside `root`; `source` is what a bind mount shows, where the runtime has opened it. Gives the mount where
    /// it is to become read-only at the end: others are mounted in it, devices are made in it.
    ///
    /// # Errors
    /// Each names the mount and what failed.
    pub fn apply(
        &self,
        root: BorrowedFd<'_>,
        cgroup: &CgroupView<'_>,
        source: Option<OwnedFd>,
    ) -> Result<Option<OwnedFd>, Error> {
        let (is_late, mut asked) = (self.is_read_only_late(), self.asked);
        if is_late {
            asked.set &= !RDONLY;
        }
        let Detached { mount: detached, is_new } = match source {
            Some(source) => Detached { mount: source, is_new: false },
            None => self.detached(cgroup, self.covered_mode(root), asked).step(MOUNTING, &self.name)?,
        };
        let target = match self.target(root, &detached, is_new) {
            Err(Errno::LOOP) if self.is_proc_or_sys() => {
                return Err(Error::new(format!(
                    "{MOUNTING} {}: it must be mounted on ordinary directory, and there is a link",
                    self.name
                )));
            }
            target => target.step("make the mount point of", &self.name)?,
        };
        if self.copies_up {
            copy_up::copy(target.as_fd(), detached.as_fd())
                .step("tmpcopyup: copy what is at the mount point of", &self.name)?;
        }
        if !is_new && !asked.is_empty() {
            self.set_asked(detached.as_fd(), asked).step(MOUNTING, &self.name)?;
        }
        if !self.recursive.is_empty() {
            set_attributes(detached.as_fd(), &self.recursive.only(), true).step(MOUNTING, &self.name)?;
        }
        attach(&detached, &target).step(MOUNTING, &self.name)?;
        // Flags are attached to the mount's own root.
        for (propagation, recursive) in &self.propagation {
            let change = MountAttributes { propagation: *propagation, ..MountAttributes::default() };
            set_attributes(detached.as_fd(), &change, *recursive)
                .step("set the propagation of", &self.name)?;
        }
        Ok(is_late.then_some(detached))
    }

    fn set_asked(&self, mount: BorrowedFd<'_>, asked: Asked) -> Result<(), Errno> {
        match set_attributes(mount, &asked.whole(), false) {
            // What the host forbids in it is locked in a user namespace: it stays, unless it was said that it must not.
            Err(Errno::PERM) if self.is_bind() => {
                let change = asked.added_to(attributes_of(mount)?).ok_or(Errno::PERM)?;
                set_attributes(mount, &change, false)
            }
            done => done,
        }
    }

    fn is_read_only_late(&self) -> bool {
        let is_tmpfs = matches!(&self.kind, Kind::FileSystem { name, .. } if name == "tmpfs");
        self.asked.set & RDONLY != 0 && (is_tmpfs || self.destination == Path::new("/dev"))
    }

    /// What a bind mount shows, in no tree yet.
    ///
    /// # Errors
    /// open_tree(2)'s.
    pub fn detached_source(&self) -> Result<OwnedFd, Error> {
        match &self.kind {
            Kind::Bind { source, recursive } => clone_tree(source, *recursive),
            _ => Err(Errno::INVAL),
        }
        .step(MOUNTING, &self.name)
    }

    /// Whether it is mounted to be written to.
    pub fn is_writable(&self) -> bool {
        (self.asked.set | self.recursive.set) & RDONLY == 0
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

    /// The mount with its file system's options, not yet in any tree. What is `asked` of its attributes a new one has.
    fn detached(&self, cgroup: &CgroupView<'_>, mode: Option<Mode>, asked: Asked) -> Result<Detached, Errno> {
        let attributes = if asked.is_empty() { 0 } else { asked.whole().set };
        let new = |name: &str, source: &str, options: &[String]| {
            new_file_system(name, source, options, attributes).map(|mount| Detached { mount, is_new: true })
        };
        let old = |path: &Path, recursive| {
            clone_tree(path, recursive).map(|mount| Detached { mount, is_new: false })
        };
        match &self.kind {
            Kind::Bind { source, recursive } => old(source, *recursive),
            Kind::Cgroup => match cgroup {
                CgroupView::Namespace => match new("cgroup2", "cgroup", &[]) {
                    // In a user namespace that does not own the cgroup namespace.
                    Err(Errno::PERM | Errno::BUSY) => old(Path::new("/sys/fs/cgroup"), true),
                    done => done,
                },
                CgroupView::Folder(path) => old(path, false),
            },
            Kind::FileSystem { name, source, options } => {
                let mode = mode.map(|mode| format!("mode={:o}", mode.as_raw_mode()));
                let options: Vec<String> = options.iter().cloned().chain(mode).collect();
                match new(name, source, &options) {
                    // A user namespace without its own network may not mount a new sysfs; runc binds the host's.
                    Err(Errno::PERM) if name == "sysfs" => old(Path::new("/sys"), true),
                    done => done,
                }
            }
        }
    }

    /// `is_new`: a file system that was made just now, whose root is a folder.
    fn target(&self, root: BorrowedFd<'_>, mount: &OwnedFd, is_new: bool) -> Result<OwnedFd, Errno> {
        let what = if is_new || inside::is_folder(mount)? { Make::Folder } else { Make::File };
        let mode = Mode::from_raw_mode(if what == Make::Folder { 0o755 } else { 0o644 });
        if !self.is_proc_or_sys() {
            return inside::make(root, &self.destination, what, mode);
        }
        // A link there would put the real one where nobody masks it (CVE-2019-19921, CVE-2023-27561).
        let relative = self.destination.strip_prefix("/").unwrap_or(&self.destination);
        let open = || inside::open_without_links(root, relative, OFlags::PATH | OFlags::DIRECTORY);
        match open() {
            Err(Errno::NOENT) => {
                inside::make(root, &self.destination, what, mode)?;
                open()
            }
            done => done,
        }
    }

    fn is_proc_or_sys(&self) -> bool {
        matches!(&self.kind, Kind::FileSystem { name, .. } if name == "proc" || name == "sysfs")
    }

    /// Whether it is a bind mount.
    pub fn is_bind(&self) -> bool {
        matches!(self.kind, Kind::Bind { .. })
    }
}

/// A mount in no tree.
struct Detached {
    mount: OwnedFd,
    /// Whether it is a new file system's, with all attributes that were asked for.
    is_new: bool,
}

/// What the container sees of the cgroup tree.
#[derive(Debug)]
pub enum CgroupView<'a> {
    /// Its own cgroup as the root: it has a cgroup namespace.
    Namespace,
    /// The folder of its cgroup.
    Folder(&'a Path),
}

/// Makes the mounts that `apply` gave back read-only.
///
/// # Errors
/// mount_setattr(2)'s.
pub fn make_read_only(mounts: &[OwnedFd]) -> Result<(), Error> {
    let change = MountAttributes { set: RDONLY, ..MountAttributes::default() };
    for mount in mounts {
        set_attributes(mount.as_fd(), &change, false).step("make read-only", "a mount")?;
    }
    Ok(())
}

/// The attributes that a mount has (statfs(2), `f_flags`).
fn attributes_of(mount: BorrowedFd<'_>) -> Result<u64, Errno> {
    let flags = rustix::fs::fstatvfs(mount)?.f_flag.bits();
    let bits = [
        (libc::ST_RDONLY, RDONLY),
        (libc::ST_NOSUID, NOSUID),
        (libc::ST_NODEV, NODEV),
        (libc::ST_NOEXEC, NOEXEC),
        (libc::ST_NOATIME, NOATIME),
        (libc::ST_NODIRATIME, NODIRATIME),
        (libc::ST_RELATIME, RELATIME),
    ];
    let mut present = bits.iter().filter(|(flag, _)| flags & flag != 0).fold(0, |bits, (_, bit)| bits | bit);
    if present & (NOATIME | RELATIME) == 0 {
        present |= STRICTATIME;
    }
    Ok(present)
}

/// A copy of the mount at `source`, in no tree.
///
/// # Errors
/// open_tree(2)'s.
pub fn clone_tree(source: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    clone_tree_at(rustix::fs::CWD, source, recursive)
}

/// The same, of a path that begins at `folder`.
///
/// # Errors
/// open_tree(2)'s.
pub fn clone_tree_at(folder: BorrowedFd<'_>, source: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(folder, source, flags)
}

/// A new instance of a file system, in no tree; `attributes` are MOUNT_ATTR_* bits.
///
/// # Errors
/// fsopen(2)'s, fsconfig(2)'s and fsmount(2)'s.
pub fn new_file_system(
    name: &str,
    source: &str,
    options: &[String],
    attributes: u64,
) -> Result<OwnedFd, Errno> {
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
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).map_err(|_| Errno::INVAL)?);
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug)]
pub struct Mounted<'a> {
    /// Which folder of the file system is shown.
    pub root: &'a str,
    /// Where.
    pub place: PathBuf,
    /// The file system's type.
    pub kind: &'a str,
}

/// Reads the lines of a mountinfo; what is none is passed over.
pub fn mounted(mountinfo: &str) -> impl Iterator<Item = Mounted<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        // A path with a space in it is told with \040.
        let place = PathBuf::from(place.replace("\\040", " "));
        Some(Mounted { root, place, kind: after.split(' ').next()? })
    })
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
    use spec::linux::NamespaceKind;

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
            (Path::new("/"), Path::new("/r")),
            &Namespaces::default(),
        )
        .unwrap();
        assert_eq!(plan.asked, Asked { set: NOSUID | STRICTATIME | RDONLY, cleared: 0 });
        assert_eq!(plan.propagation, [(libc::MS_PRIVATE, true)]);
        assert_eq!(plan.destination, Path::new("/b"));
        let Kind::FileSystem { options, .. } = plan.kind else { panic!() };
        assert_eq!(options, ["mode=755"]);
    }

    #[test]
    fn a_relative_bind_counts_from_the_bundle() {
        let plan = plan(
            0,
            &mount("", &["rbind", "rro"]),
            (Path::new("/bundle"), Path::new("/r")),
            &Namespaces::default(),
        )
        .unwrap();
        assert_eq!(plan.kind, Kind::Bind { source: "/bundle/src".into(), recursive: true });
        assert_eq!((plan.asked.set, plan.recursive.set), (0, RDONLY));
    }

    #[test]
    fn the_last_of_two_contrary_words_counts() {
        let plan =
            plan(0, &mount("bind", &["ro", "rw"]), (Path::new("/"), Path::new("/r")), &Namespaces::default())
                .unwrap();
        assert_eq!(plan.asked, Asked { set: 0, cleared: RDONLY });
    }

    #[test]
    fn a_destination_may_be_told_by_its_path_on_the_host() {
        for (told, expected) in [("/r/mnt/x", "/mnt/x"), ("/r", "/"), ("/rx", "/rx"), ("/mnt/r", "/mnt/r")] {
            let mount = Mount { destination: told.into(), ..mount("tmpfs", &[]) };
            let plan = plan(0, &mount, (Path::new("/"), Path::new("/r")), &Namespaces::default()).unwrap();
            assert_eq!(plan.destination, Path::new(expected));
        }
    }

    fn asked(words: &[&str]) -> Asked {
        let mut asked = Asked::default();
        for word in words {
            let (_, bit, set) = ATTRIBUTES.iter().find(|(name, ..)| name == word).unwrap();
            asked.word(*bit, *set);
        }
        asked
    }

    #[test]
    fn what_is_not_said_is_cleared_but_for_access_times() {
        let of = |words: &[&str]| {
            let change = asked(words).whole();
            (change.set, change.clear)
        };
        assert_eq!(of(&["dev"]), (0, SINGLE));
        assert_eq!(of(&["ro", "nosuid"]), (RDONLY | NOSUID, SINGLE & !(RDONLY | NOSUID)));
        assert_eq!(of(&["noatime"]), (NOATIME, SINGLE | ATIME_MASK | NODIRATIME));
        assert_eq!(of(&["atime"]), (0, SINGLE));
        assert_eq!(of(&["nodiratime", "strictatime"]), (NODIRATIME | STRICTATIME, SINGLE | ATIME_MASK));
        assert_eq!(of(&["relatime"]), (0, SINGLE | ATIME_MASK | NODIRATIME));
    }

    #[test]
    fn what_is_locked_stays_unless_it_must_not() {
        let of =
            |words: &[&str], present| asked(words).added_to(present).map(|change| (change.set, change.clear));
        assert_eq!(of(&["nosuid"], RDONLY | RELATIME), Some((NOSUID, NOSYMFOLLOW)));
        assert_eq!(of(&["rw", "nosuid"], RDONLY | RELATIME), None);
        assert_eq!(of(&["relatime"], NOATIME), None);
        assert_eq!(of(&["relatime"], RELATIME), Some((0, NOSYMFOLLOW)));
        assert_eq!(of(&["nosymfollow", "dev"], NOATIME), Some((NOSYMFOLLOW, 0)));
    }

    #[test]
    fn below_only_what_is_said_changes() {
        let of = |words: &[&str]| {
            let change = asked(words).only();
            (change.set, change.clear)
        };
        assert_eq!(of(&["ro"]), (RDONLY, 0));
        assert_eq!(of(&["atime"]), (0, ATIME_MASK));
        assert_eq!(of(&["strictatime", "suid"]), (STRICTATIME, ATIME_MASK | NOSUID));
        assert_eq!(of(&["diratime"]), (0, NODIRATIME));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = plan(3, &mount("", &[]), (Path::new("/"), Path::new("/r")), &Namespaces::default())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("mounts[3].type:"), "{error}");
    }

    #[test]
    fn ids_are_mapped_for_bind_mounts_with_both_maps_or_a_user_namespace() {
        let map = vec![spec::linux::IdMapping { container_id: 0, host_id: 1000, size: 1 }];
        let one = Mount { uid_mappings: map.clone(), ..mount("bind", &[]) };
        let both = Mount { gid_mappings: map.clone(), ..one.clone() };
        let user = Namespaces { new: vec![NamespaceKind::User], ..Namespaces::default() };
        let planned = |mount: &Mount, namespaces: &Namespaces| {
            plan(0, mount, (Path::new("/"), Path::new("/r")), namespaces)
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
