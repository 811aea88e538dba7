//! Idmapped mounts: files of a bind mount with other owners than on disk. In: `uidMappings`, `gidMappings` or the option
//! `idmap` of a mount. Out: the mount, mapped and in no tree, made by the runtime, since only the owner of the file
//! system may do it. Must never: leave the process that a mapping needed for a moment.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::mounts::MountPlan;
use super::namespaces;
use super::namespaces::Namespaces;
use crate::report::Error;
use crate::report::Fails;
use spec::Mount;
use sys::mount::MountAttributes;
use sys::process::Side;

/// MOUNT_ATTR_IDMAP of linux/mount.h.
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// How the owners of a mount are mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// Texts of a uid_map and a gid_map; None: as the container's user namespace.
    maps: Option<(String, String)>,
    /// Whether the mounts below are mapped too.
    recursive: bool,
}

/// Checks what a mount says of it; `option` is `idmap` or `ridmap` where that is among its options.
///
/// # Errors
/// One kind of map without the other; no map and no user namespace to take it from.
pub fn plan(
    field: &str,
    mount: &Mount,
    option: Option<&str>,
    namespaces: &Namespaces,
) -> Result<Option<IdMap>, Error> {
    use spec::linux::NamespaceKind;
    let recursive = option == Some("ridmap");
    match (mount.uid_mappings.is_empty(), mount.gid_mappings.is_empty()) {
        (true, true) => match option {
            None => Ok(None),
            Some(_) if namespaces.is_own(NamespaceKind::User) => Ok(Some(IdMap { maps: None, recursive })),
            Some(option) => Err(Error::spec(
                format!("{field}.options"),
                format!(
                    "{option}: without uidMappings and gidMappings it needs a user namespace, and there is none"
                ),
            )),
        },
        (false, false) => {
            let maps = (namespaces::map_text(&mount.uid_mappings), namespaces::map_text(&mount.gid_mappings));
            Ok(Some(IdMap { maps: Some(maps), recursive }))
        }
        _ => Err(Error::spec(
            format!("{field}.uidMappings"),
            "id-mapped mounts need both uidMappings and gidMappings",
        )),
    }
}

impl IdMap {
    /// Maps the owners of a mount that is in no tree by the user namespace `user`.
    ///
    /// # Errors
    /// EINVAL where the file system can't be idmapped.
    pub fn apply(&self, mount: BorrowedFd<'_>, user: BorrowedFd<'_>, name: &str) -> Result<(), Error> {
        let change = MountAttributes {
            set: MOUNT_ATTR_IDMAP,
            user_namespace: u64::from(user.as_raw_fd().unsigned_abs()),
            ..MountAttributes::default()
        };
        sys::mount::set_attributes(mount, &change, self.recursive).step("map the ids of the mount", name)
    }
}

/// The user namespaces that stand for the maps of idmapped mounts, by the place of a mount in the plan.
#[derive(Debug, Default)]
pub struct UserNamespaces(Vec<(usize, Rc<OwnedFd>)>);

impl UserNamespaces {
    /// Makes one for each pair of maps. `joined` is the user namespace that the container joins.
    ///
    /// # Errors
    /// One can't be made, or does not take the maps.
    pub fn make(
        mounts: &[MountPlan],
        namespaces: &Namespaces,
        joined: Option<BorrowedFd<'_>>,
    ) -> Result<UserNamespaces, Error> {
        let mut made: Vec<((&str, &str), Rc<OwnedFd>)> = Vec::new();
        let mut all = Vec::new();
        for (index, mount) in mounts.iter().enumerate() {
            let Some(idmap) = &mount.idmap else { continue };
            let maps = match (&idmap.maps, joined) {
                (Some((uid_map, gid_map)), _) => (uid_map.as_str(), gid_map.as_str()),
                (None, Some(joined)) => {
                    let joined = joined.try_clone_to_owned().step("hold", "the user namespace")?;
                    all.push((index, Rc::new(joined)));
                    continue;
                }
                (None, None) => (namespaces.uid_map.as_str(), namespaces.gid_map.as_str()),
            };
            let user = match made.iter().find(|one| one.0 == maps) {
                Some((_, user)) => user.clone(),
                None => {
                    let user = Rc::new(user_namespace(maps)?);
                    made.push((maps, user.clone()));
                    user
                }
            };
            all.push((index, user));
        }
        Ok(UserNamespaces(all))
    }

    /// The one of the mount with this place.
    pub fn of(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.0.iter().find(|(at, _)| *at == index).map(|(_, user)| user.as_fd())
    }
}

/// A user namespace with these maps: it needs a process only until somebody holds it open.
fn user_namespace((uid_map, gid_map): (&str, &str)) -> Result<OwnedFd, Error> {
    let side = sys::process::clone3(libc::CLONE_NEWUSER.unsigned_abs().into(), None);
    match side.step("make", "a user namespace for an idmapped mount")? {
        Side::Child => {
            // An error leaves a process that the runtime kills all the same.
            let _ = sys::process::set_parent_death_signal(libc::SIGKILL);
            loop {
                rustix::event::pause();
            }
        }
        Side::Parent(pid, _) => {
            let path = format!("/proc/{}/ns/user", pid.as_raw_nonzero());
            let opened = namespaces::write_maps(pid, uid_map, gid_map).and_then(|()| {
                rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step("open", &path)
            });
            crate::launch::parent::kill_and_reap(pid);
            opened
        }
    }
}
