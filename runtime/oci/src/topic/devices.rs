//! Device nodes: the six that every container has, and `linux.devices`. In: the section. Out: nodes in the container's
//! /dev, made by fd, or bound from the host where a user namespace may make none. Must never: follow a link of the root
//! to a place outside it.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::inside;
use super::inside::Make;
use super::mounts;
use crate::report::Error;
use crate::report::Fails;
use crate::spec::linux::Device;
use crate::spec::resources::DeviceKind;
use crate::spec::resources::DeviceRule;

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

const DEV: &str = "/dev";

/// Default Devices of config-linux.md: name, major, minor.
const DEFAULTS: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links of /dev that programs expect (config-linux.md, "Dev symbolic links"), and the terminals' multiplexer.
const LINKS: [(&str, &str); 5] = [
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
        nodes.push(node);
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

/// Makes nodes and links inside `root`. With `bind` each node is the host's own, mounted.
///
/// # Errors
/// Each names the node.
pub fn apply(nodes: &[Node], root: BorrowedFd<'_>, bind: bool) -> Result<(), Error> {
    let dev =
        inside::make(root, Path::new(DEV), Make::Folder, Mode::from_raw_mode(0o755)).step("open", DEV)?;
    // Nodes have the modes that they are to have.
    let umask = rustix::process::umask(Mode::empty());
    let made = make_nodes(nodes, root, dev.as_fd(), bind);
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

fn make_nodes(nodes: &[Node], root: BorrowedFd<'_>, dev: BorrowedFd<'_>, bind: bool) -> Result<(), Error> {
    for node in nodes {
        let name = node.path.display();
        let made = if bind { Err(Errno::PERM) } else { make_node(node, root, dev) };
        match made {
            // Root of the runtime's own user namespace, which no plan knows of, may make none either.
            Err(Errno::PERM) => bind_node(node, root).step("bind the device", name)?,
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

fn bind_node(node: &Node, root: BorrowedFd<'_>) -> Result<(), Errno> {
    let mount = mounts::clone_tree(&node.path, false)?;
    is_that(node, &rustix::fs::statat(mount.as_fd(), c"", AtFlags::EMPTY_PATH)?)?;
    let target = inside::make(root, &node.path, Make::File, Mode::from_raw_mode(0o644))?;
    mounts::attach(&mount, &target)
}

/// The container's /dev/null, verified to be the real device (CVE-2025-31133), as O_PATH.
///
/// # Errors
/// It is something else, or not there.
pub fn verified_null(root: BorrowedFd<'_>) -> Result<std::os::fd::OwnedFd, Error> {
    let fd = inside::open(root, Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW)
        .step("open", "/dev/null")?;
    let stat = rustix::fs::statat(fd.as_fd(), c"", AtFlags::EMPTY_PATH).step("look at", "/dev/null")?;
    let real = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (1, 3);
    if real { Ok(fd) } else { Err(Error::new("/dev/null inside the container is not the null device (1:3)")) }
}
