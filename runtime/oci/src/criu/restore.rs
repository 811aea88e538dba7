//! `restore`: a container from its images. In: its plan, the folder of the images. Out: a container that runs, its first
//! process a child of this one; or nothing at all. Must never: mount anything in the host's mount namespace.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::mount::MountPropagationFlags;
use rustix::process::Pid;
use rustix::process::PidfdFlags;

use super::DESCRIPTORS;
use super::Folders;
use super::Options;
use super::option;
use super::pair;
use super::peer::Kind;
use super::peer::Notice;
use super::peer::Peer;
use super::wire::Message;
use crate::cgroup::own_path;
use crate::launch::parent;
use crate::launch::parent::Created;
use crate::launch::parent::StateAtHooks;
use crate::plan::Plan;
use crate::report::Error;
use crate::report::Fails;
use crate::store::Container;
use crate::store::Store;
use crate::topic::console;
use crate::topic::inside;
use crate::topic::inside::Make;
use crate::topic::mounts;
use crate::topic::mounts::Kind as MountKind;
use crate::topic::namespaces;
use crate::undo::Undo;
use spec::Spec;
use spec::linux::NamespaceKind;

const LOG: &str = "restore.log";
/// In the container's state folder: the root, mounted in criu's mount namespace alone.
const ROOT: &str = "criu-root";

/// What a restore is asked for beyond `Options`.
#[derive(Debug, Default)]
pub struct RestoreOptions {
    /// Socket that gets the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// File that gets the pid.
    pub pid_file: Option<PathBuf>,
    /// A profile of a security module in the place of the saved one, as criu reads it.
    pub lsm_profile: Option<String>,
    /// A mount label in the place of the saved one.
    pub lsm_mount_context: Option<String>,
}

/// Brings the container back.
///
/// # Errors
/// Whatever failed; nothing is left then.
pub fn restore(
    store: &Store,
    plan: &Plan,
    spec: Spec,
    options: &Options,
    own: &RestoreOptions,
) -> Result<Created, Error> {
    sys::process::close_on_exec_from(3).step("close", "file descriptors")?;
    super::check_images_folder(&options.images, &spec)?;
    if let Some(work) = &options.work {
        super::make_folder(work)?;
    }
    let console_socket = own.console_socket.as_deref().map(console::connect).transpose()?;
    let mut undo = Undo::default();
    let (folder, state_at_hooks) = parent::claim(store, plan, &mut undo)?;
    let root = folder.join(ROOT);
    std::fs::create_dir(&root).step("make", root.display())?;
    let cgroup = parent::make_cgroup(plan, &folder, store.rootless, &mut undo)?;
    let (external, kept) = namespaces_outside(plan)?;
    let (mount_points, streams) = (mount_points(plan)?, streams(&options.images)?);
    let mut container = Container { record: parent::record(plan, spec, cgroup.as_ref()), folder };
    let cgroup_fd = cgroup.as_ref().map(|cgroup| cgroup.dir_fd().as_fd());
    let flags = namespaces::flag(NamespaceKind::Mount).unsigned_abs().into();
    let peer = Peer::start(flags, cgroup_fd, &kept, || show_root(&plan.rootfs, &root))?;
    parent::enter_scope(plan, peer.pid, &container, &mut undo)?;
    let folders = Folders::open(options, LOG, peer.pid)?;
    let mut message = super::both(options, &folders, LOG, &container.record.spec);
    message
        .number(option::EVASIVE_DEVICES, true)
        .number(option::RST_SIBLING, true)
        .text(option::ROOT, root.as_os_str().as_encoded_bytes());
    for (field, part) in external.iter().chain(&mount_points).chain(&streams) {
        message.message(*field, part);
    }
    for (field, text) in
        [(option::LSM_PROFILE, &own.lsm_profile), (option::LSM_MOUNT_CONTEXT, &own.lsm_mount_context)]
    {
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
            message.text(field, text);
        }
    }
    if cgroup.is_some() || plan.cgroup.scope.is_some() {
        message.message(option::CG_ROOT, &pair("", cgroup_of(peer.pid)?));
    }
    let mut master = None;
    let restored = peer.ask(Kind::Restore, &message, |notice| {
        hear(notice, plan, &mut container, &mut master, &mut undo, &state_at_hooks)
    });
    let pid = restored.map_err(|error| super::with_log(&error, &folders.log))?;
    let pid = pid.ok_or_else(|| Error::new("criu restored the container and did not tell its process"))?;
    // What was mounted there went with criu.
    std::fs::remove_dir(container.folder.join(ROOT)).step("remove", "the folder of criu's root")?;
    if let (Some(socket), Some(terminal)) = (&console_socket, &master) {
        console::send_fd(socket, b"/dev/pts/ptmx", terminal.as_fd())?;
        master = None;
    }
    if let Some(path) = &own.pid_file {
        parent::write_pid_file(path, pid)?;
    }
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).step("open", "the restored process")?;
    Ok(Created { container, pid, pidfd, master, notify: None, undo })
}

/// What criu tells while it restores.
fn hear(
    notice: Notice,
    plan: &Plan,
    container: &mut Container,
    master: &mut Option<OwnedFd>,
    undo: &mut Undo,
    state_at_hooks: &StateAtHooks,
) -> Result<(), Error> {
    match (notice.script.as_str(), notice.pid) {
        ("setup-namespaces", Some(pid)) => {
            container.note_process(pid)?;
            parent::run_early_hooks(plan, container, state_at_hooks)
        }
        ("post-restore", Some(pid)) => {
            undo.push(move || parent::kill_and_reap(pid));
            container.note_process(pid)?;
            container.save()
        }
        ("orphan-pts-master", _) => {
            *master = notice.fd;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// In criu's mount namespace: criu wants the root as a mount of its own. What the host mounts later still arrives.
fn show_root(rootfs: &Path, at: &Path) -> Result<(), Error> {
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).step("set the propagation of", "/")?;
    let open = |path: &Path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .step("open", path.display())
    };
    let mount = mounts::clone_tree(rootfs, true).step("mount the root", rootfs.display())?;
    mounts::attach(&mount, &open(at)?).step("mount the root", at.display())
}

/// Fields of criu's options.
type Fields = Vec<(u32, Message)>;

/// Namespaces that exist: by an fd that criu inherits, or by their paths.
fn namespaces_outside(plan: &Plan) -> Result<(Fields, Vec<OwnedFd>), Error> {
    let (mut fields, mut kept) = (Fields::new(), Vec::new());
    for (kind, path) in &plan.namespaces.join {
        let Some(key) = super::external_key(*kind) else {
            if *kind == NamespaceKind::Cgroup {
                return Err(Error::spec(
                    "linux.namespaces",
                    "criu can't restore into a cgroup namespace that exists; leave its path out",
                ));
            }
            let path = path.as_os_str().as_encoded_bytes();
            fields.push((option::JOIN_NS, pair(namespaces::file_name(*kind), path)));
            continue;
        };
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .step("open the namespace", path.display())?;
        fields.push((option::INHERIT_FD, inherited(key, fd.as_raw_fd())));
        kept.push(fd);
    }
    Ok((fields, kept))
}

/// `inherit_fd`
fn inherited(key: &str, fd: i32) -> Message {
    let mut message = Message::default();
    message.text(1, key).number(2, fd);
    message
}

/// Pipes that the standard streams led to are now this caller's streams.
fn streams(images: &Path) -> Result<Fields, Error> {
    let path = images.join(DESCRIPTORS);
    let text = std::fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(format!(
            "no images of a container in {}: {DESCRIPTORS} is missing; `runc checkpoint` writes them, --image-path DIR names \
             another folder",
            images.display()
        )),
        _ => Error::new(format!("read {}: {error}", path.display())),
    })?;
    let streams: Vec<String> = spec::parse(&path.display().to_string(), &text)?;
    let pipes = streams.iter().zip(0..).filter(|(target, _)| target.contains("pipe:"));
    Ok(pipes.map(|(target, fd)| (option::INHERIT_FD, inherited(target, fd))).collect())
}

/// What lies at a place inside.
struct Place {
    destination: PathBuf,
    /// The same without links.
    real: PathBuf,
    /// Where mount points below it can be made; None: a file system that criu makes anew, with all that was in it.
    folder: Option<OwnedFd>,
}

/// Makes the mount points that are missing, and names what is mounted from outside by its place inside. Nothing is mounted
/// for that: what is below a bind mount is made in its source.
fn mount_points(plan: &Plan) -> Result<Fields, Error> {
    let name = plan.rootfs.display();
    let root =
        rustix::fs::open(&plan.rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| {
                let cause = crate::report::errno_text(errno);
                Error::new(format!("invalid rootfs: {name}: {cause}; config.json's root.path names it"))
            })?;
    let mut places = vec![Place { destination: "/".into(), real: "/".into(), folder: Some(root) }];
    let mut fields = Fields::new();
    for mount in &plan.mounts {
        if matches!(mount.kind, MountKind::Cgroup) {
            continue;
        }
        let source = match &mount.kind {
            MountKind::Bind { source, .. } => {
                let opened = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
                Some((source, opened.step("open the source of", mount.name())?))
            }
            _ => None,
        };
        let is_folder = match &source {
            Some((_, opened)) => inside::is_folder(opened).step("look at the source of", mount.name())?,
            None => true,
        };
        let what = if is_folder { Make::Folder } else { Make::File };
        let real = real_place(&places, &mount.destination, what, mount.name())?;
        if let Some((source, _)) = &source {
            // criu can't take a path that ends in a dot.
            let source: PathBuf = source.components().collect();
            let (real, source) = (real.as_os_str().as_encoded_bytes(), source.as_os_str().as_encoded_bytes());
            fields.push((option::EXT_MNT, pair(real, source)));
        }
        let folder = source.map(|(_, opened)| opened);
        places.push(Place { destination: mount.destination.clone(), real, folder });
    }
    // A user namespace has the host's devices, bound.
    for node in plan.devices.iter().flatten().filter(|_| plan.namespaces.is_own(NamespaceKind::User)) {
        let real = real_place(&places, node.path(), Make::File, &node.path().display().to_string())?;
        let (real, source) =
            (real.as_os_str().as_encoded_bytes(), node.path().as_os_str().as_encoded_bytes());
        fields.push((option::EXT_MNT, pair(real, source)));
    }
    if !plan.masked_paths.is_empty() {
        fields.push((option::EXT_MNT, pair("/dev/null", "/dev/null")));
    }
    Ok(fields)
}

/// Where a mount lies without links, made if it is missing. Errors call it `name`.
fn real_place(places: &[Place], destination: &Path, what: Make, name: &str) -> Result<PathBuf, Error> {
    // The last one that covers it: the root covers all.
    let Some((place, rest)) = places
        .iter()
        .rev()
        .find_map(|place| Some((place, destination.strip_prefix(&place.destination).ok()?)))
    else {
        return Ok(destination.to_path_buf());
    };
    let Some(folder) = place.folder.as_ref().filter(|_| !rest.as_os_str().is_empty()) else {
        return Ok(inside::plain(&place.real.join(rest)));
    };
    let mode = Mode::from_raw_mode(if what == Make::Folder { 0o755 } else { 0o644 });
    let made = inside::make(folder.as_fd(), rest, what, mode).step("make the mount point of", name)?;
    let (made, folder) = (super::path_of(&made)?, super::path_of(folder)?);
    Ok(place.real.join(made.strip_prefix(&folder).unwrap_or(rest)))
}

/// The cgroup of a process (cgroups(7), /proc/PID/cgroup).
fn cgroup_of(pid: Pid) -> Result<String, Error> {
    let path = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
    let text = sys::kernel_file::read(&path).step("read", &path)?;
    own_path(&text).map(str::to_string).ok_or_else(|| Error::new(format!("{path}: no line of cgroup v2")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Facts;
    use crate::cli::spec::default_spec;
    use spec::Mount;
    use spec::linux::IdMapping;
    use spec::linux::Namespace;

    #[test]
    fn mount_points_are_made_in_the_sources_and_named_without_links() {
        let bundle = std::env::temp_dir().join(format!("coracle-restore-{}", std::process::id()));
        for folder in ["rootfs/real/conf", "one", "two"] {
            std::fs::create_dir_all(bundle.join(folder)).unwrap();
        }
        std::os::unix::fs::symlink("/real/conf", bundle.join("rootfs/conf")).unwrap();
        let mut spec = default_spec();
        let bind = |source: &str, destination: &str| Mount {
            destination: destination.into(),
            kind: "bind".into(),
            source: source.into(),
            ..Mount::default()
        };
        spec.mounts.extend([bind("one", "/conf"), bind("two", "/conf/in/it"), bind("two/.", "/dev/x")]);
        let facts = Facts {
            mount: "/sys/fs/cgroup".into(),
            hybrid: false,
            controllers: Vec::new(),
            own: "/".into(),
            manager: None,
        };
        let plan = Plan::resolve(&spec, "box", &bundle, &facts, None).unwrap();
        let fields = mount_points(&plan).unwrap();
        let expected: Vec<Message> = [
            ("/real/conf", bundle.join("one")),
            ("/real/conf/in/it", bundle.join("two")),
            ("/dev/x", bundle.join("two")),
            ("/dev/null", "/dev/null".into()),
        ]
        .map(|(place, source)| pair(place, source.as_os_str().as_encoded_bytes()))
        .to_vec();
        assert_eq!(fields.into_iter().map(|(_, message)| message).collect::<Vec<_>>(), expected);
        assert!(bundle.join("one/in/it").is_dir() && !bundle.join("rootfs/dev/x").exists());
        // In a user namespace the devices are the host's.
        let linux = spec.linux.get_or_insert_default();
        linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: String::new() });
        linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: 1000, size: 1 }];
        linux.gid_mappings = linux.uid_mappings.clone();
        let plan = Plan::resolve(&spec, "box", &bundle, &facts, None).unwrap();
        let fields = mount_points(&plan).unwrap();
        assert!(fields.contains(&(option::EXT_MNT, pair("/dev/full", "/dev/full"))), "{fields:?}");
        std::fs::remove_dir_all(bundle).unwrap();
    }

    #[test]
    fn only_pipes_are_handed_on() {
        let images = std::env::temp_dir().join(format!("coracle-streams-{}", std::process::id()));
        std::fs::create_dir_all(&images).unwrap();
        std::fs::write(images.join(DESCRIPTORS), r#"["/dev/null", "pipe:[7]", ""]"#).unwrap();
        assert_eq!(streams(&images).unwrap(), [(option::INHERIT_FD, inherited("pipe:[7]", 1))]);
        std::fs::remove_dir_all(images).unwrap();
    }
}
