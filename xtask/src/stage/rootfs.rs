//! Overlay + built parts + bundles -> the image's file tree, in memory. In: rootfs-overlay/, artefacts, the
//! user's OCI bundles. Out: `Rootfs`, every entry with its final mode, owner and content.
//! Must never: take an owner, a mode bit beyond "executable" or a time from the checkout: git keeps none of them.
//! A bundle is the user's own tree: there, owners, modes, extended attributes and hard links are kept.

mod bundle;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::artifact::{BusyBox, Ip, RuntimeProgram, Tini};
use crate::cli::ImageArgs;
use crate::context::Build;
use crate::layout::Layout;

/// The parts that go into the image besides the overlay.
#[derive(Debug)]
pub struct Parts {
    /// BusyBox.
    pub busybox: BusyBox,
    /// Tini.
    pub tini: Tini,
    /// `ip`.
    pub ip: Ip,
    /// Our program.
    pub runtime: RuntimeProgram,
}

/// What goes into the image besides the system: the user's bundles, read and checked before anything is built.
#[derive(Debug, Default)]
pub struct Contents {
    bundles: Rootfs,
    names: Vec<String>,
}

impl Contents {
    /// Reads the bundles that the user named.
    pub fn resolve(layout: &Layout, args: &ImageArgs) -> Result<Self> {
        let mut bundles = Rootfs::default();
        let own = layout.rootfs_overlay().join("containers");
        for argument in &args.bundles {
            let taken = own.join(&argument.name).exists();
            bundle::add(&mut bundles, argument, taken)
                .with_context(|| format!("--bundle {}={}", argument.name, argument.dir.display()))?;
        }
        Ok(Self { bundles, names: args.bundles.iter().map(|argument| argument.name.clone()).collect() })
    }

    /// The bundles' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// The image's file tree: absolute path (without the leading slash) -> entry. Sorted, so that its order is fixed.
#[derive(Debug, Default)]
pub struct Rootfs {
    entries: BTreeMap<String, Entry>,
}

/// One file, folder, link or device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub node: Node,
    /// Permission bits with set-id and sticky bits (octal, as in chmod(1)).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Kinds of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Folder,
    /// A file with the content of this file of the host.
    File(PathBuf),
    /// A file with this content.
    Bytes(Vec<u8>),
    /// A symbolic link to this target.
    Symlink(String),
    /// Another name of the entry at this path.
    Hardlink(String),
    /// A character device (major, minor).
    CharDevice(u32, u32),
    /// A block device (major, minor).
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Folders that the system mounts on or writes into; git keeps no empty ones.
const FOLDERS: [(&str, u32); 32] = [
    ("bin", 0o755),
    ("containers/mycontainer/rootfs", 0o755),
    ("containers/shell/rootfs", 0o755),
    ("dev", 0o755),
    ("etc/cni/net.d", 0o755),
    ("mnt", 0o755),
    ("mnt/share", 0o755),
    ("opt/cni/bin", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("sysroot", 0o755),
    ("tmp", 0o1777),
    ("usr/bin", 0o755),
    ("usr/lib/coracle/rootfs/dev", 0o755),
    ("usr/lib/coracle/rootfs/proc", 0o555),
    ("usr/lib/coracle/rootfs/root", 0o700),
    ("usr/lib/coracle/rootfs/sys", 0o555),
    ("usr/lib/coracle/rootfs/tmp", 0o1777),
    ("usr/lib/coracle/rootfs/var", 0o755),
    ("usr/lib/coracle/sealed", 0o755),
    ("usr/sbin", 0o755),
    ("var/cache", 0o755),
    ("var/empty", 0o755),
    ("var/lib/coracle/mycontainer/upper", 0o755),
    ("var/lib/coracle/mycontainer/work", 0o755),
    ("var/lib/coracle/shell/upper", 0o755),
    ("var/lib/coracle/shell/work", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

/// Symbolic links that every program expects.
const SYMLINKS: [(&str, &str); 6] = [
    ("etc/mtab", "../proc/self/mounts"),
    ("etc/resolv.conf", "../run/resolv.conf"),
    ("lib", "usr/lib"),
    ("sbin/init", "tini"),
    ("var/run", "../run"),
    ("var/lock", "../run/lock"),
];

/// The two devices that /init needs before it has mounted devtmpfs.
const DEVICES: [(&str, u32, u32, u32); 2] = [("dev/console", 0o600, 5, 1), ("dev/null", 0o666, 1, 3)];

/// The example bundles' lower layer: the system's BusyBox and ip by hard link, so that it costs next to nothing.
const EXAMPLE_ROOT: &str = "usr/lib/coracle/rootfs";

/// The names by which our one program is called. Kept equal to the program's own list by a test in `runtime`.
const FACES: [&str; 3] = ["init", "usr/bin/runc", "usr/bin/cni"];

/// The plugins whose names the program answers to.
const PLUGINS: &[&str] = &[
    "bandwidth",
    "bridge",
    "dhcp",
    "dummy",
    "firewall",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "sbr",
    "static",
    "tap",
    "tuning",
    "vlan",
    "vrf",
];

/// Overlay + parts + bundles -> the tree.
pub fn run(build: &Build, parts: &Parts, contents: &Contents) -> Result<Rootfs> {
    let mut rootfs = Rootfs::default();
    for (path, mode) in FOLDERS {
        rootfs.folder(path, mode);
    }
    rootfs.add_overlay(&build.layout.rootfs_overlay(), "")?;
    for (path, target) in SYMLINKS {
        rootfs.symlink(path, target)?;
    }
    for (path, mode, major, minor) in DEVICES {
        rootfs.add(path, Entry::root(Node::CharDevice(major, minor), mode))?;
    }
    rootfs.file("bin/busybox", &parts.busybox.program.path, 0o755)?;
    let applets = std::fs::read_to_string(&parts.busybox.links.path)
        .with_context(|| format!("{}: cannot read", parts.busybox.links.path.display()))?;
    // Hard links, which take no inode of memory each, and which /init moves in less time than symbolic ones.
    let busybox = Entry::root(Node::Hardlink("bin/busybox".to_owned()), 0o755);
    rootfs.add(&format!("{EXAMPLE_ROOT}/bin/busybox"), busybox.clone())?;
    for applet in applets.lines().map(|line| line.trim_start_matches('/')).filter(|line| !line.is_empty()) {
        for path in [applet.to_owned(), format!("{EXAMPLE_ROOT}/{applet}")] {
            // What the overlay brings under that name wins.
            if !rootfs.entries.contains_key(&path) {
                rootfs.add(&path, busybox.clone())?;
            }
        }
    }
    rootfs.file("sbin/tini", &parts.tini.0.path, 0o755)?;
    rootfs.file("sbin/ip", &parts.ip.0.path, 0o755)?;
    // So that a container can show its own addresses.
    let ip = Node::Hardlink("sbin/ip".to_owned());
    rootfs.add(&format!("{EXAMPLE_ROOT}/sbin/ip"), Entry::root(ip, 0o755))?;
    rootfs.file("usr/bin/coracle", &parts.runtime.program.path, 0o755)?;
    for name in FACES
        .iter()
        .map(|&name| name.to_owned())
        .chain(PLUGINS.iter().map(|name| format!("opt/cni/bin/{name}")))
    {
        rootfs.add(&name, Entry::root(Node::Hardlink("usr/bin/coracle".to_owned()), 0o755))?;
    }
    for (path, entry) in contents.bundles.entries() {
        // The folders above a bundle are the system's.
        let system = rootfs.entries.get(path).is_some_and(|there| there.node == Node::Folder);
        if !(system && entry.node == Node::Folder) {
            rootfs.add(path, entry.clone())?;
        }
    }
    Ok(rootfs)
}

impl Entry {
    fn root(node: Node, mode: u32) -> Self {
        Self { node, mode, uid: 0, gid: 0 }
    }
}

impl Rootfs {
    /// All entries in the order of their paths: a folder comes before what is in it.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// Adds an entry; a path that is taken by something else is an error.
    pub fn add(&mut self, path: &str, entry: Entry) -> Result<()> {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent, 0o755);
        }
        if self.entries.insert(path.to_owned(), entry).is_some() {
            bail!("/{path}: two parts of the image bring it");
        }
        Ok(())
    }

    /// Makes sure that a folder and those above it are there; one that is there keeps its mode.
    fn folder(&mut self, path: &str, mode: u32) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent, 0o755);
        }
        self.entries.entry(path.to_owned()).or_insert_with(|| Entry::root(Node::Folder, mode));
    }

    fn file(&mut self, path: &str, from: &Path, mode: u32) -> Result<()> {
        self.add(path, Entry::root(Node::File(from.to_owned()), mode))
    }

    fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(path, Entry::root(Node::Symlink(target.to_owned()), 0o777))
    }

    fn add_overlay(&mut self, dir: &Path, prefix: &str) -> Result<()> {
        let listing = std::fs::read_dir(dir).with_context(|| format!("{}: cannot list", dir.display()))?;
        for item in listing {
            let path = item.with_context(|| format!("{}: cannot list", dir.display()))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.with_context(|| format!("{}: its name is not UTF-8", path.display()))?;
            let inside = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            let facts =
                path.symlink_metadata().with_context(|| format!("{}: cannot look at", path.display()))?;
            if facts.is_dir() {
                self.folder(&inside, 0o755);
                self.add_overlay(&path, &inside)?;
            } else if facts.is_symlink() {
                let target = path.read_link().with_context(|| format!("{}: cannot read", path.display()))?;
                self.symlink(&inside, &target.to_string_lossy())?;
            } else {
                let executable = facts.permissions().mode() & 0o100 != 0;
                self.file(&inside, &path, if executable { 0o755 } else { 0o644 })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_are_the_names_that_the_program_answers_to() {
        let face = include_str!("../../../runtime/src/face.rs");
        let rest = face
            .split_once("pub const PLUGINS")
            .unwrap()
            .1
            .split_once("] = &[")
            .unwrap()
            .1
            .split_once("];")
            .unwrap()
            .0;
        let names: Vec<&str> = rest
            .split(',')
            .map(|name| name.trim().trim_matches('"'))
            .filter(|name| !name.is_empty())
            .collect();
        assert_eq!(names, PLUGINS);
    }
}
