//! Sources of bind mounts that the runtime opens: where the container has a user namespace, since its root may have no way
//! to them; and idmapped ones, since only the owner of the file system may map them. And device nodes that such a container
//! asks for and the host has not: its root may make none.
//!
//! In: the container's process, which has its mount namespace and asks for one after the other: a source may lie on what
//! was mounted just before; devices come last. Out: each in no tree, handed to that process. Must never: take them from the
//! runtime's own mount namespace: there the host's flags (nodev, nosuid, ...) are not locked, and the container's root could
//! clear them.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::process::Pid;

use super::console;
use super::devices;
use super::devices::Node;
use super::idmap::UserNamespaces;
use super::mounts::MountPlan;
use super::namespaces::Namespaces;
use crate::launch::channel::Channel;
use crate::launch::channel::Message;
use crate::launch::parent;
use crate::plan::Plan;
use crate::report::Error;
use crate::report::Fails;
use spec::linux::NamespaceKind;
use sys::mount::MountAttributes;
use sys::mount::set_attributes;
use sys::process::Side;

/// The container's end: it asks, for mounts by their places in the plan, for devices by theirs behind all mounts.
#[derive(Debug)]
pub struct Asker {
    channel: Channel,
    mount_count: usize,
    is_privileged: bool,
}

/// The runtime's end, which answers once it is started.
#[derive(Debug)]
pub struct Opener {
    channel: Channel,
    user_namespaces: UserNamespaces,
}

/// The process that answers; it ends with this value.
#[derive(Debug)]
pub struct Helper(Pid);

impl Drop for Helper {
    fn drop(&mut self) {
        parent::kill_and_reap(self.0);
    }
}

/// Whether the runtime opens the source of `mount`. A caller without privileges can't join the container's mount namespace,
/// and need not: the container's root is that very user, with every way that it has.
fn is_opened(mount: &MountPlan, namespaces: &Namespaces, is_privileged: bool) -> bool {
    let apart =
        is_privileged && namespaces.is_own(NamespaceKind::User) && namespaces.is_new(NamespaceKind::Mount);
    mount.idmap.is_some() || apart && mount.is_bind()
}

/// Both ends, where one of the mounts or devices needs them. `joined` is the user namespace that the container joins.
///
/// # Errors
/// No user namespace for an idmapped mount.
pub fn prepare(plan: &Plan, joined: Option<BorrowedFd<'_>>) -> Result<Option<(Opener, Asker)>, Error> {
    let Plan { mounts, namespaces, .. } = plan;
    let is_privileged = rustix::process::geteuid().is_root();
    let makes_devices = is_privileged
        && namespaces.is_own(NamespaceKind::User)
        && devices::has_more_than_defaults(nodes_of(plan));
    if !makes_devices && !mounts.iter().any(|mount| is_opened(mount, namespaces, is_privileged)) {
        return Ok(None);
    }
    let user_namespaces = UserNamespaces::make(mounts, namespaces, joined)?;
    let (channel, asker) = Channel::pair()?;
    let asker = Asker { channel: asker, mount_count: mounts.len(), is_privileged };
    Ok(Some((Opener { channel, user_namespaces }, asker)))
}

fn nodes_of(plan: &Plan) -> &[Node] {
    plan.devices.as_deref().unwrap_or_default()
}

impl Opener {
    /// Answers the process `pid` from now on, by a process of its own: whoever has been in another mount namespace has
    /// lost its root and its working directory.
    ///
    /// # Errors
    /// clone3(2)'s.
    pub fn start(mut self, plan: &Plan, pid: Pid) -> Result<Helper, Error> {
        match sys::process::clone3(0, None).step("start", "a process that opens mounts")? {
            Side::Child => {
                if let Err(error) = self.answer_all(plan, pid) {
                    // Without a reader the container is gone.
                    let _ = self.channel.say(&Message::Failed(error.to_string()));
                }
                sys::process::exit_now(0)
            }
            Side::Parent(helper, _) => Ok(Helper(helper)),
        }
    }

    /// Until the container has closed its end.
    fn answer_all(&mut self, plan: &Plan, pid: Pid) -> Result<(), Error> {
        sys::process::set_parent_death_signal(libc::SIGKILL).step("tie a process to", "the runtime")?;
        let process = format!("/proc/{}", pid.as_raw_nonzero());
        let maps = match devices::has_more_than_defaults(nodes_of(plan)) {
            // Read by the host's procfs, before another one can be in its place.
            true => (id_map(&process, "uid_map")?, id_map(&process, "gid_map")?),
            false => Default::default(),
        };
        let path = format!("{process}/ns/mnt");
        let namespace =
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step("open", &path)?;
        sys::process::setns(namespace.as_fd(), libc::CLONE_NEWNS).step("join", &path)?;
        let mut number = [0; 4];
        let mut place_of_devices = None;
        loop {
            match self.channel.0.read_exact(&mut number) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                done => done.step("listen to", "the container's process")?,
            }
            let index = u32::from_le_bytes(number) as usize;
            let source = match plan.mounts.get(index) {
                Some(mount) => self.open(index, mount)?,
                None => {
                    let index = index - plan.mounts.len();
                    let node = nodes_of(plan).get(index).ok_or_else(nonsense)?;
                    let place = match &place_of_devices {
                        Some(place) => place,
                        None => place_of_devices
                            .insert(devices::place_apart().step("make", "a place for device nodes")?),
                    };
                    devices::make_apart(node, index, place.as_fd(), (&maps.0, &maps.1))?
                }
            };
            self.channel.say(&Message::Source)?;
            console::send_fd(&self.channel.0, b"m", source.as_fd())?;
        }
    }

    fn open(&self, index: usize, mount: &MountPlan) -> Result<OwnedFd, Error> {
        let source = mount.detached_source()?;
        if let Some(idmap) = &mount.idmap {
            let user = self.user_namespaces.of(index).ok_or_else(nonsense)?;
            idmap.apply(source.as_fd(), user, mount.name())?;
        }
        Ok(source)
    }
}

fn nonsense() -> Error {
    Error::new("the container's process said nonsense")
}

fn id_map(process: &str, file: &str) -> Result<String, Error> {
    let path = format!("{process}/{file}");
    std::fs::read_to_string(&path).step("read", &path)
}

impl Asker {
    /// The source of `mount`, the one with this place in the plan, with the namespace's `propagation`; None: it is for
    /// the container's process to open.
    ///
    /// # Errors
    /// Each names the mount.
    pub fn ask(
        &mut self,
        index: usize,
        mount: &MountPlan,
        namespaces: &Namespaces,
        propagation: Option<(u64, bool)>,
    ) -> Result<Option<OwnedFd>, Error> {
        if !is_opened(mount, namespaces, self.is_privileged) {
            return Ok(None);
        }
        let source = self.request(index, mount.name())?;
        if let Some((propagation, recursive)) = propagation {
            let change = MountAttributes { propagation, ..MountAttributes::default() };
            set_attributes(source.as_fd(), &change, recursive)
                .step("set the propagation of", mount.name())?;
        }
        Ok(Some(source))
    }

    /// The device node with this place in the plan.
    ///
    /// # Errors
    /// It can't be made.
    pub fn ask_device(&mut self, index: usize) -> Result<OwnedFd, Error> {
        self.request(self.mount_count + index, "a device")
    }

    fn request(&mut self, index: usize, name: &str) -> Result<OwnedFd, Error> {
        let number = u32::try_from(index).unwrap_or(u32::MAX).to_le_bytes();
        // Where the helper has ended, its last word is still there to be heard.
        let _ = self.channel.0.write_all(&number);
        match self.channel.hear()? {
            Some(Message::Source) => console::receive_fd(&self.channel.0),
            Some(Message::Failed(text)) => Err(Error::new(text)),
            _ => Err(Error::new(format!("mount {name}: the runtime is gone"))),
        }
    }
}
