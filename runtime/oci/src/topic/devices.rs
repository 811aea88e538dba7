//! Device nodes: the six that every container has, and `linux.devices`. In: the section. Out: nodes in the container's
//! /dev, made by fd. Where a user namespace may make none they are the host's, bound; what the host has not under that path
//! the runtime makes apart (`topic::sources`). Must never: follow a link of the root to a place outside it.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;

use super::inside;
use super::inside::Make;
use super::mounts;
use super::namespaces;
use super::sources::Asker;
use crate::report::Error;
use crate::report::Fails;
use spec::linux::Device;
use spec::resources::DeviceKind;
use spec::resources::DeviceRule;

/// A node to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    path: PathBuf,
    kind: FileType,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Node {
    /// Where it is inside.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

const DEV: &str = "/dev";

/// Default Devices of config-linux.md: name, major, minor.
const DEFAULTS: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links of /dev that programs expect (config-linux.md, "Dev symbolic links"), and the terminals' multiplexer.
pub const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Checks the section and puts the default devices in front.
///
/// # Errors
/// A kind or a number that is no device's.
pub fn plan(devices: &[Device]) -> Result<Vec<Node>, Error> {
    let mut nodes: Vec<Node> = DEFAULTS
        .iter()
        .map(|(name, major, minor)| Node {
            path: Path::new(DEV).join(name),
            kind: FileType::CharacterDevice,
            major: *major,
            minor: *minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    for (index, device) in devices.iter().enumerate() {
        let field = |name: &str| format!("linux.devices[{index}].{name}");
        let number = |name: &str, value: i64| {
            u32::try_from(value)
                .map_err(|_| Error::spec(field(name), format!("{value}: not a device number")))
        };
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            kind => return Err(Error::spec(field("type"), format!("{kind:?}: expected c, u, b or p"))),
        };
        let node = Node {
            path: inside::plain(Path::new(&device.path)),
            kind,
            major: number("major", device.major)?,
            minor: number("minor", device.minor)?,
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
        };
        nodes.retain(|other| other.path != node.path);
        // The container's multiplexer is that of its own devpts, whatever asks for the host's (config-linux.md, "Default
        // Devices"): a link.
        if node.path != Path::new(DEV).join("ptmx") {
            nodes.push(node);
        }
    }
    Ok(nodes)
}

/// What every container may do with devices, behind config.json's own rules: as runc's defaults.
pub fn default_rules() -> Vec<DeviceRule> {
    let rule = |kind: DeviceKind, major: Option<i64>, minor: Option<i64>, access: &str| DeviceRule {
        allow: true,
        kind: Some(kind),
        major,
        minor,
        access: Some(access.to_string()),
    };
    let mut rules = vec![
        rule(DeviceKind::Char, None, None, "m"),
        rule(DeviceKind::Block, None, None, "m"),
        // Pseudo-terminals, their multiplexer, the console.
        rule(DeviceKind::Char, Some(136), None, "rwm"),
        rule(DeviceKind::Char, Some(5), Some(2), "rwm"),
    ];
    for (_, major, minor) in DEFAULTS {
        rules.push(rule(DeviceKind::Char, Some(i64::from(major)), Some(i64::from(minor)), "rwm"));
    }
    rules
}

/// Whether there are nodes that not every host has.
pub fn has_more_than_defaults(nodes: &[Node]) -> bool {
    nodes.len() > DEFAULTS.len()
}

/// Makes nodes and links inside `root`. With `bind` each node is a mount: the host's, or one that `sources` is asked for.
///
/// # Errors
/// Each names the node.
pub fn apply(nodes: &[Node], root: BorrowedFd<'_>, bind: bool, sources: Option<Asker>) -> Result<(), Error> {
    let dev =
        inside::make(root, Path::new(DEV), Make::Folder, Mode::from_raw_mode(0o755)).step("open", DEV)?;
    // Nodes have the modes that they are to have.
    let umask = rustix::process::umask(Mode::empty());
    let made = make_nodes(nodes, root, dev.as_fd(), bind, sources);
    rustix::process::umask(umask);
    made?;
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).step("make the link", format!("/dev/{name}")),
        }
    }
    Ok(())
}

fn make_nodes(
    nodes: &[Node],
    root: BorrowedFd<'_>,
    dev: BorrowedFd<'_>,
    bind: bool,
    mut sources: Option<Asker>,
) -> Result<(), Error> {
    for (index, node) in nodes.iter().enumerate() {
        let name = node.path.display();
        let made = if bind { Err(Errno::PERM) } else { make_node(node, root, dev) };
        match made {
            // Root of the runtime's own user namespace, which no plan knows of, may make none either.
            Err(Errno::PERM) => {
                let mount = match (node_of_host(node), &mut sources) {
                    (Err(Errno::NOENT | Errno::EXIST), Some(sources)) => sources.ask_device(index)?,
                    (found, _) => found.step("bind the device", name)?,
                };
                bind_node(node, root, &mount).step("bind the device", node.path.display())?;
            }
            done => done.step("make the device", name)?,
        }
    }
    Ok(())
}

fn make_node(node: &Node, root: BorrowedFd<'_>, dev: BorrowedFd<'_>) -> Result<(), Errno> {
    let (Some(parent), Some(name)) = (node.path.parent(), node.path.file_name()) else {
        return Err(Errno::INVAL);
    };
    let elsewhere = if parent == Path::new(DEV) {
        None
    } else {
        Some(inside::make(root, parent, Make::Folder, Mode::from_raw_mode(0o755))?)
    };
    let parent = elsewhere.as_ref().map_or(dev, AsFd::as_fd);
    let device = rustix::fs::makedev(node.major, node.minor);
    match rustix::fs::mknodat(parent, name, node.kind, Mode::from_raw_mode(node.mode), device) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            return is_that(node, &rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?);
        }
        Err(errno) => return Err(errno),
    }
    if (node.uid, node.gid) == (0, 0) {
        return Ok(());
    }
    let (uid, gid) = (rustix::fs::Uid::from_raw(node.uid), rustix::fs::Gid::from_raw(node.gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// A node that the root brings counts only if it is the same device.
fn is_that(node: &Node, stat: &rustix::fs::Stat) -> Result<(), Errno> {
    let same = FileType::from_raw_mode(stat.st_mode) == node.kind
        && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (node.major, node.minor);
    if same { Ok(()) } else { Err(Errno::EXIST) }
}

/// The host's node, in no tree. EXIST: it is another device.
fn node_of_host(node: &Node) -> Result<OwnedFd, Errno> {
    let mount = mounts::clone_tree(&node.path, false)?;
    is_that(node, &rustix::fs::statat(mount.as_fd(), c"", AtFlags::EMPTY_PATH)?)?;
    Ok(mount)
}

fn bind_node(node: &Node, root: BorrowedFd<'_>, mount: &OwnedFd) -> Result<(), Errno> {
    let target = inside::make(root, &node.path, Make::File, Mode::from_raw_mode(0o644))?;
    mounts::attach(mount, &target)
}

/// A place for nodes that are bound into a user namespace: a new file system in a mount namespace that nobody else has, so
/// that it goes with this process, however that ends.
///
/// # Errors
/// Those of unshare(2), fsmount(2) and move_mount(2).
pub fn place_apart() -> Result<OwnedFd, Errno> {
    sys::process::unshare(libc::CLONE_NEWNS)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let place = mounts::new_file_system("tmpfs", "tmpfs", &[], mounts::NOSUID | mounts::NOEXEC)?;
    // Only what is in a tree can be copied (open_tree(2)); where it is there does not matter.
    let target = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mounts::attach(&place, &target)?;
    rustix::process::umask(Mode::empty());
    Ok(place)
}

/// Makes the node with this number at `place`, and gives it in no tree. `maps` are those of the container's user namespace, by
/// which its owner is meant.
///
/// # Errors
/// Its owner is not mapped; it can't be made.
pub fn make_apart(
    node: &Node,
    number: usize,
    place: BorrowedFd<'_>,
    (uid_map, gid_map): (&str, &str),
) -> Result<OwnedFd, Error> {
    let name = node.path.display();
    let (Some(uid), Some(gid)) =
        (namespaces::id_outside(uid_map, node.uid), namespaces::id_outside(gid_map, node.gid))
    else {
        return Err(Error::new(format!(
            "make the device {name}: its owner, {}:{}, is not mapped in the user namespace",
            node.uid, node.gid
        )));
    };
    let own_name = number.to_string();
    let apart = Node { path: Path::new(DEV).join(&own_name), uid, gid, ..node.clone() };
    make_node(&apart, place, place)
        .and_then(|()| mounts::clone_tree_at(place, Path::new(&own_name), false))
        .step("make the device", name)
}

/// The container's /dev/null, verified to be the real device (CVE-2025-31133), as O_PATH.
///
/// # Errors
/// It is something else, or not there.
pub fn verified_null(root: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let fd = inside::open(root, Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW)
        .step("open", "/dev/null")?;
    let stat = rustix::fs::statat(fd.as_fd(), c"", AtFlags::EMPTY_PATH).step("look at", "/dev/null")?;
    if is_null(&stat) {
        Ok(fd)
    } else {
        Err(Error::new("/dev/null inside the container is not the null device (1:3)"))
    }
}

/// Whether it is the null device.
pub fn is_null(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (1, 3)
}

/// The null device of `root`, to be read and written.
///
/// # Errors
/// ENODEV: it is something else; openat2(2)'s.
pub fn open_null(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // What else could be there is no more than the container may have: its device filter holds already.
    let null = inside::open(root, Path::new("/dev/null"), OFlags::RDWR | OFlags::NOFOLLOW)?;
    if is_null(&rustix::fs::fstat(&null)?) { Ok(null) } else { Err(Errno::NODEV) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_multiplexer_is_the_containers_own() {
        let device = |path: &str| -> Device {
            serde_json::from_str(&format!(r#"{{"path":"{path}","type":"c","major":5,"minor":2}}"#)).unwrap()
        };
        assert_eq!(plan(&[device("/dev/ptmx"), device("/dev/../dev/ptmx")]).unwrap().len(), DEFAULTS.len());
        assert_eq!(plan(&[device("/dev/other")]).unwrap().len(), DEFAULTS.len() + 1);
    }
}
