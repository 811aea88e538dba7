//! `checkpoint`: images of a running container. In: the container, where the images go. Out: the images, and a container that
//! has ended, runs on, or has shown which of its pages it writes. Must never: lose a container of which there are no images.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Pid;

use super::DESCRIPTORS;
use super::Folders;
use super::Options;
use super::option;
use super::pair;
use super::peer::Kind;
use super::peer::Notice;
use super::peer::Peer;
use super::wire::Message;
use crate::report::Error;
use crate::report::Fails;
use crate::store::Container;
use crate::topic::devices;
use crate::topic::inside;
use crate::topic::mounts;
use crate::topic::namespaces;
use spec::linux::NamespaceKind;

const LOG: &str = "dump.log";

/// What a dump is asked for beyond `Options`.
#[derive(Debug, Default)]
pub struct DumpOptions {
    /// Images of an earlier dump, from the folder of the images on.
    pub parent: Option<PathBuf>,
    /// The container runs on.
    pub leave_running: bool,
    /// Only its memory, while it runs; a later dump that has this one as its parent saves what was written since.
    pub pre_dump: bool,
    /// Leave connections out that are not yet accepted.
    pub tcp_skip_in_flight: bool,
    /// Give files that were removed while they were open a name meanwhile.
    pub link_remap: bool,
    /// Where pages go, or with `lazy_pages` are asked from: address and port.
    pub page_server: Option<(String, u16)>,
    /// Gets a NUL byte when the lazy pages can be asked for.
    pub status: Option<File>,
}

/// Saves the container.
///
/// # Errors
/// Whatever failed; the container runs on then.
pub fn dump(container: &Container, options: &Options, own: &mut DumpOptions) -> Result<(), Error> {
    let gone = || Error::new("Container cannot be checkpointed in stopped state");
    let pid = container.process().ok_or_else(gone)?;
    super::make_images_folder(&options.images, &container.record.spec)?;
    options.work.as_deref().map_or(Ok(()), super::make_folder)?;
    if let Some(parent) = &own.parent {
        check_parent(&options.images, parent)?;
    }
    let folders = Folders::open(options, LOG, rustix::process::getpid())?;
    let message = message(container, pid, options, own, &folders)?;
    let kind = if own.pre_dump { Kind::PreDump } else { Kind::Dump };
    if !own.pre_dump {
        write_descriptors(pid, &options.images)?;
    }
    let done = Peer::start(0, None, &[], silence).and_then(|peer| {
        peer.ask(kind, &message, |Notice { script, .. }| {
            if script == "status-ready"
                && let Some(mut status) = own.status.take()
            {
                status.write_all(&[0]).step("write to", "--status-fd")?;
            }
            Ok(())
        })
    });
    done.map(drop).map_err(|error| super::with_log(&error, &folders.log))
}

/// In criu: all that matters it says in its log and its answers. After a pre-dump it complains that nobody asks for more.
fn silence() -> Result<(), Error> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let all = null.and_then(|null| {
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)
    });
    all.step("open", "/dev/null")
}

fn check_parent(images: &Path, parent: &Path) -> Result<(), Error> {
    if parent.is_absolute() {
        return Err(Error::new(format!(
            "--parent-path {}: must be relative to --image-path",
            parent.display()
        )));
    }
    let path = images.join(parent);
    match std::fs::metadata(&path) {
        Ok(facts) if facts.is_dir() => Ok(()),
        Ok(_) => Err(Errno::NOTDIR),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
    .step("invalid --parent-path:", path.display())
}

fn message(
    container: &Container,
    pid: Pid,
    options: &Options,
    own: &DumpOptions,
    folders: &Folders,
) -> Result<Message, Error> {
    let record = &container.record;
    let mut message = super::both(options, folders, LOG, &record.spec);
    message
        .number(option::PID, record.pid)
        .text(option::ROOT, record.rootfs.as_os_str().as_encoded_bytes())
        .number(option::LEAVE_RUNNING, own.leave_running)
        .number(option::TCP_SKIP_IN_FLIGHT, own.tcp_skip_in_flight)
        .number(option::LINK_REMAP, own.link_remap);
    if !record.cgroup.as_os_str().is_empty() {
        message.text(option::FREEZE_CGROUP, record.cgroup.as_os_str().as_encoded_bytes());
    }
    if let Some((address, port)) = &own.page_server {
        let mut server = Message::default();
        server.text(1, address).number(2, *port);
        message.message(option::PAGE_SERVER, &server);
    }
    if let Some(parent) = &own.parent {
        message.text(option::PARENT_IMG, parent.as_os_str().as_encoded_bytes());
    }
    if own.parent.is_some() || own.pre_dump {
        message.number(option::TRACK_MEM, true);
    }
    for (kind, path) in namespaces::plan(&record.spec)?.join {
        if let Some(key) = super::external_key(kind) {
            let inode = std::fs::metadata(&path).step("look at the namespace", path.display())?.ino();
            message.text(option::EXTERNAL, format!("{}[{inode}]:{key}", namespaces::file_name(kind)));
        }
    }
    if !own.pre_dump {
        for external in external_mounts(container, pid)? {
            message.message(option::EXT_MNT, &external);
        }
    }
    Ok(message)
}

/// What was mounted from outside is not saved, but named: each bind mount, and each device of a user namespace, by its place
/// inside, and all masks alike by the null device.
fn external_mounts(container: &Container, pid: Pid) -> Result<Vec<Message>, Error> {
    let record = &container.record;
    let root_path = format!("/proc/{}/root", pid.as_raw_nonzero());
    let root =
        rustix::fs::open(&root_path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .step("open", &root_path)?;
    // A mount of another mount namespace is shown with its path from that one's root.
    let place_of = |path: &Path| match inside::open(root.as_fd(), path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).step("open in the container", path.display()),
        Ok(found) => {
            Ok(Some((super::path_of(&found)?, inside::is_folder(&found).step("look at", path.display())?)))
        }
    };
    let namespaces = namespaces::plan(&record.spec)?;
    let mut external = Vec::new();
    for (index, mount) in record.spec.mounts.iter().enumerate() {
        let plan = mounts::plan(index, mount, (&record.bundle, &record.rootfs), &namespaces)?;
        if plan.is_bind()
            && let Some((place, _)) = place_of(&plan.destination)?
        {
            let place = place.into_os_string();
            external.push(pair(place.as_encoded_bytes(), place.as_encoded_bytes()));
        }
    }
    if namespaces.is_own(NamespaceKind::User) {
        let devices = record.spec.linux.as_ref().map(|linux| &linux.devices[..]).unwrap_or_default();
        for node in devices::plan(devices)? {
            if let Some((place, _)) = place_of(node.path())? {
                let place = place.into_os_string();
                external.push(pair(place.as_encoded_bytes(), place.as_encoded_bytes()));
            }
        }
    }
    let masked = record.spec.linux.as_ref().map(|linux| &linux.masked_paths[..]).unwrap_or_default();
    for path in masked {
        if let Some((place, false)) = place_of(Path::new(path))? {
            external.push(pair(place.into_os_string().as_encoded_bytes(), "/dev/null"));
        }
    }
    Ok(external)
}

/// Where the standard streams lead to: a restore gives pipes of its own caller in the place of these.
fn write_descriptors(pid: Pid, images: &Path) -> Result<(), Error> {
    let stream = |number: u8| {
        let link = format!("/proc/{}/fd/{number}", pid.as_raw_nonzero());
        match std::fs::read_link(&link) {
            // The program has closed it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            target => Ok(target.step("read", link)?.to_string_lossy().into_owned()),
        }
    };
    let streams = [0, 1, 2].into_iter().map(stream).collect::<Result<Vec<String>, Error>>()?;
    let path = images.join(DESCRIPTORS);
    let text = spec::text(&path.display().to_string(), &streams)?;
    std::fs::write(&path, text).step("write", path.display())
}
