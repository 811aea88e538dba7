//! Checkpoint and restore, which the program `criu` does: this asks it by its RPC (criu.org/RPC, images/rpc.proto of criu).
//!
//! In: a container or a bundle, the folder of the images. Out: images of a container, or the container again. Must never:
//! take criu from anywhere but $PATH, or leave it running when the command ends.

pub mod dump;
mod peer;
pub mod restore;
mod wire;

use std::fmt::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::process::Pid;

use crate::report::Error;
use crate::report::Fails;
use crate::topic::inside;
use crate::topic::namespaces;
use spec::Spec;
use wire::Message;

/// In the folder of the images: where the standard streams of the container's first process led to, as runc writes it.
const DESCRIPTORS: &str = "descriptors.json";
/// The annotation that names a configuration file of criu's, which comes before what is asked here.
const CONFIG_ANNOTATION: &str = "org.criu.config";
/// criu reads it where no annotation says otherwise; so runc has it.
const CONFIG_FILE: &str = "/etc/criu/runc.conf";
/// criu's log of all that it does, without the contents of packets and pages.
const LOG_LEVEL: i32 = 4;

/// Fields of `criu_opts`.
mod option {
    pub const IMAGES_DIR_FD: u32 = 1;
    pub const PID: u32 = 2;
    pub const LEAVE_RUNNING: u32 = 3;
    pub const EXT_UNIX_SK: u32 = 4;
    pub const TCP_ESTABLISHED: u32 = 5;
    pub const EVASIVE_DEVICES: u32 = 6;
    pub const SHELL_JOB: u32 = 7;
    pub const FILE_LOCKS: u32 = 8;
    pub const LOG_LEVEL: u32 = 9;
    pub const LOG_FILE: u32 = 10;
    pub const PAGE_SERVER: u32 = 11;
    pub const NOTIFY_SCRIPTS: u32 = 12;
    pub const ROOT: u32 = 13;
    pub const PARENT_IMG: u32 = 14;
    pub const TRACK_MEM: u32 = 15;
    pub const AUTO_DEDUP: u32 = 16;
    pub const WORK_DIR_FD: u32 = 17;
    pub const LINK_REMAP: u32 = 18;
    pub const EXT_MNT: u32 = 23;
    pub const MANAGE_CGROUPS: u32 = 24;
    pub const CG_ROOT: u32 = 25;
    pub const RST_SIBLING: u32 = 26;
    pub const INHERIT_FD: u32 = 27;
    pub const MANAGE_CGROUPS_MODE: u32 = 34;
    pub const EXTERNAL: u32 = 37;
    pub const EMPTY_NS: u32 = 38;
    pub const JOIN_NS: u32 = 39;
    pub const FREEZE_CGROUP: u32 = 44;
    pub const TCP_SKIP_IN_FLIGHT: u32 = 46;
    pub const LAZY_PAGES: u32 = 48;
    pub const ORPHAN_PTS_MASTER: u32 = 50;
    pub const CONFIG_FILE: u32 = 51;
    pub const LSM_PROFILE: u32 = 53;
    pub const LSM_MOUNT_CONTEXT: u32 = 63;
}

/// What is asked for of both, dump and restore.
#[derive(Debug, Default)]
pub struct Options {
    /// Folder of the images.
    pub images: PathBuf,
    /// Folder of logs and of what criu needs meanwhile; None: that of the images.
    pub work: Option<PathBuf>,
    /// Keep TCP connections.
    pub tcp_established: bool,
    /// Keep sockets of which one end is outside.
    pub ext_unix_sk: bool,
    /// Allow a session or a terminal that begins outside.
    pub shell_job: bool,
    /// Keep file locks.
    pub file_locks: bool,
    /// Free the pages in older images that newer ones replace.
    pub auto_dedup: bool,
    /// Bring pages when they are touched.
    pub lazy_pages: bool,
    /// What becomes of cgroups.
    pub cgroups: CgroupMode,
}

/// `criu_cg_mode`: what criu itself restores of cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CgroupMode {
    /// Those that are missing, with their properties.
    Soft,
    /// All, with their properties.
    Full,
    /// All, and it is an error where one is there.
    Strict,
    /// None.
    Ignore,
    /// As criu does it unless told.
    #[default]
    #[value(skip)]
    Default,
}

impl CgroupMode {
    fn number(self) -> i32 {
        match self {
            CgroupMode::Ignore => 0,
            CgroupMode::Soft => 3,
            CgroupMode::Full => 4,
            CgroupMode::Strict => 5,
            CgroupMode::Default => 6,
        }
    }
}

/// The open folders of one dump or restore. criu opens them by their numbers in this process.
struct Folders {
    images: OwnedFd,
    work: Option<OwnedFd>,
    /// criu's log.
    log: PathBuf,
}

impl Folders {
    /// Opens them as the process `viewer` sees them: criu mounts something in the one that it works in, and can only do so in
    /// its own mount namespace.
    fn open(options: &Options, log: &str, viewer: Pid) -> Result<Folders, Error> {
        let root_path = format!("/proc/{}/root", viewer.as_raw_nonzero());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&root_path, flags, Mode::empty()).step("open", &root_path)?;
        let open = |path: &PathBuf| {
            inside::open(root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)
                .step("open the folder", path.display())
        };
        Ok(Folders {
            images: open(&options.images)?,
            work: options.work.as_ref().map(open).transpose()?,
            log: options.work.as_ref().unwrap_or(&options.images).join(log),
        })
    }
}

fn make_folder(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(path).step("make", path.display())
}

/// The folder that images go to. In a user namespace the container's root is who opens them at `restore`: its group may search a
/// folder that is made here; criu lets everybody read the files themselves.
fn make_images_folder(path: &Path, spec: &Spec) -> Result<(), Error> {
    let was_there = path.is_dir();
    make_folder(path)?;
    let Some((_, gid)) = root_outside(spec).filter(|_| !was_there) else { return Ok(()) };
    rustix::fs::chown(path, None, Some(rustix::fs::Gid::from_raw(gid)))
        .and_then(|()| rustix::fs::chmod(path, Mode::from_raw_mode(0o710)))
        .step("let the container's root into", path.display())
}

/// That who opens the images at `restore` can: see `make_images_folder`. A folder that is not there is told of where it is read.
fn check_images_folder(path: &Path, spec: &Spec) -> Result<(), Error> {
    let Some((uid, gid)) = root_outside(spec) else { return Ok(()) };
    let Ok(stat) = rustix::fs::stat(path) else { return Ok(()) };
    let may_search = if stat.st_uid == uid {
        stat.st_mode & 0o100
    } else if stat.st_gid == gid {
        stat.st_mode & 0o010
    } else {
        stat.st_mode & 0o001
    };
    if may_search != 0 {
        return Ok(());
    }
    Err(Error::new(format!(
        "{}: the container's root, on this host user {uid} of group {gid}, opens the images and may not search the folder: \
         chgrp {gid} and chmod g+x let it",
        path.display()
    )))
}

/// User and group of the container's root on the host, where it is another's.
fn root_outside(spec: &Spec) -> Option<(u32, u32)> {
    let namespaces = namespaces::plan(spec).ok()?;
    let user = namespaces::id_outside(&namespaces.uid_map, 0);
    user.zip(namespaces::id_outside(&namespaces.gid_map, 0)).filter(|ids| *ids != (0, 0))
}

/// `criu_opts` with what holds for both. Of the network nothing is saved but the container's sockets: whoever has set it up
/// does so again; so runc has it.
fn both(options: &Options, folders: &Folders, log: &str, spec: &Spec) -> Message {
    let mut message = Message::default();
    message
        .number(option::IMAGES_DIR_FD, folders.images.as_raw_fd())
        .number(option::LOG_LEVEL, LOG_LEVEL)
        .text(option::LOG_FILE, log)
        .number(option::NOTIFY_SCRIPTS, true)
        .number(option::MANAGE_CGROUPS, true)
        .number(option::MANAGE_CGROUPS_MODE, options.cgroups.number())
        .number(option::TCP_ESTABLISHED, options.tcp_established)
        .number(option::EXT_UNIX_SK, options.ext_unix_sk)
        .number(option::SHELL_JOB, options.shell_job)
        .number(option::FILE_LOCKS, options.file_locks)
        .number(option::AUTO_DEDUP, options.auto_dedup)
        .number(option::LAZY_PAGES, options.lazy_pages)
        .number(option::ORPHAN_PTS_MASTER, true)
        .number(option::EMPTY_NS, libc::CLONE_NEWNET);
    if let Some(work) = &folders.work {
        message.number(option::WORK_DIR_FD, work.as_raw_fd());
    }
    match spec.annotations.get(CONFIG_ANNOTATION) {
        Some(path) if path.is_empty() => {}
        Some(path) => drop(message.text(option::CONFIG_FILE, path)),
        None if Path::new(CONFIG_FILE).exists() => drop(message.text(option::CONFIG_FILE, CONFIG_FILE)),
        None => {}
    }
    message
}

/// Where an open file lies, without links (proc_pid_fd(5)).
fn path_of(fd: &OwnedFd) -> Result<PathBuf, Error> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(&link).step("read", link)
}

/// Two strings: `ext_mount_map`, `cgroup_root`, `join_namespace`.
fn pair(one: impl AsRef<[u8]>, other: impl AsRef<[u8]>) -> Message {
    let mut message = Message::default();
    message.text(1, one).text(2, other);
    message
}

/// The key by which a dump and a restore know a namespace that is not the container's own. Others than these two are joined
/// by their paths.
fn external_key(kind: spec::linux::NamespaceKind) -> Option<&'static str> {
    use spec::linux::NamespaceKind;
    match kind {
        NamespaceKind::Network => Some("extRootNetNS"),
        NamespaceKind::Pid => Some("extRootPidNS"),
        _ => None,
    }
}

/// Older criu say in their log alone what went wrong: the first line of it that tells of an error comes along then.
fn with_log(error: &Error, log: &Path) -> Error {
    const MARK: &str = "Error (";
    let mut sentence = error.to_string();
    let text = std::fs::read(log).unwrap_or_default();
    // What this runtime could not do, or a hook of it, is not in that log.
    if text.is_empty() || !["criu could", "criu ended"].iter().any(|start| sentence.starts_with(start)) {
        return Error::new(sentence);
    }
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(MARK)).filter(|_| !sentence.contains(MARK));
    let cause = line.map(|line| format!(": {}", line.trim())).unwrap_or_default();
    // A string takes all that is written to it.
    let _ = write!(sentence, "{cause}; its log is {}", log.display());
    Error::new(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::linux::IdMapping;
    use spec::linux::Namespace;
    use spec::linux::NamespaceKind;

    #[test]
    fn the_root_of_a_user_namespace_may_search_the_images() {
        let folder = std::env::temp_dir().join(format!("coracle-criu-images-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut spec = crate::cli::spec::default_spec();
        let closed = || rustix::fs::chmod(&folder, Mode::from_raw_mode(0o700)).unwrap();
        closed();
        check_images_folder(&folder, &spec).unwrap();
        let linux = spec.linux.get_or_insert_default();
        linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: String::new() });
        linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: 4_000_000, size: 10 }];
        linux.gid_mappings = vec![IdMapping { container_id: 0, host_id: 4_000_001, size: 10 }];
        let refused = check_images_folder(&folder, &spec).unwrap_err().to_string();
        assert!(refused.contains("user 4000000 of group 4000001"), "{refused}");
        rustix::fs::chmod(&folder, Mode::from_raw_mode(0o701)).unwrap();
        check_images_folder(&folder, &spec).unwrap();
        check_images_folder(&folder.join("missing"), &spec).unwrap();
        std::fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn the_log_tells_what_went_wrong() {
        let log = std::env::temp_dir().join(format!("coracle-criu-log-{}", std::process::id()));
        let error = Error::new("criu could not dump");
        assert_eq!(with_log(&error, &log), error);
        std::fs::write(&log, "(00.1) Dumping\n(00.2) Error (criu/tty.c:1): no\n(00.3) Error (x): b\n")
            .unwrap();
        let told = with_log(&error, &log).to_string();
        assert!(
            told.starts_with("criu could not dump: (00.2) Error (criu/tty.c:1): no; its log is "),
            "{told}"
        );
        let known = with_log(&Error::new("criu could not dump: Error (criu/tty.c:1): no"), &log).to_string();
        assert_eq!(known.matches("Error").count(), 1);
        assert_eq!(with_log(&Error::new("a hook failed"), &log), Error::new("a hook failed"));
        std::fs::remove_file(&log).unwrap();
    }
}
