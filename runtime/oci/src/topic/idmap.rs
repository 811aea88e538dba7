//! Idmapped mounts: files of a bind mount with other owners than on disk. In: `uidMappings`, `gidMappings` or the option
//! `idmap` of a mount. Out: the mount, mapped and in no tree, made by the runtime, since only the owner of the file
//! system may do it. Must never: leave the process that a mapping needed for a moment.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::mounts::MountPlan;
use super::namespaces;
use super::namespaces::Namespaces;
use crate::report::Error;
use crate::report::Fails;
use crate::spec::Mount;
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
    use crate::spec::linux::NamespaceKind;
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

/// The runtime's side: makes the idmapped ones of `mounts`, each with its place in the list. `joined` is the user
/// namespace that the container joins.
///
/// # Errors
/// Each names the mount; EINVAL where the file system can't be idmapped.
pub fn prepare(
    mounts: &[MountPlan],
    namespaces: &Namespaces,
    joined: Option<BorrowedFd<'_>>,
) -> Result<Vec<(usize, OwnedFd)>, Error> {
    let mut made: Vec<((&str, &str), OwnedFd)> = Vec::new();
    let mut prepared = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        let Some(idmap) = &mount.idmap else { continue };
        let maps = match &idmap.maps {
            Some((uid_map, gid_map)) => (uid_map.as_str(), gid_map.as_str()),
            None => (namespaces.uid_map.as_str(), namespaces.gid_map.as_str()),
        };
        let user = match (
            idmap.maps.is_none().then_some(joined).flatten(),
            made.iter().position(|one| one.0 == maps),
        ) {
            (Some(joined), _) => joined,
            (None, Some(at)) => made[at].1.as_fd(),
            (None, None) => {
                made.push((maps, user_namespace(maps)?));
                made[made.len() - 1].1.as_fd()
            }
        };
        use std::os::fd::AsRawFd;
        let change = MountAttributes {
            set: MOUNT_ATTR_IDMAP,
            user_namespace: u64::from(user.as_raw_fd().unsigned_abs()),
            ..MountAttributes::default()
        };
        let detached = mount.detached_source()?;
        sys::mount::set_attributes(detached.as_fd(), &change, idmap.recursive)
            .step("map the ids of the mount", mount.name())?;
        prepared.push((index, detached));
    }
    Ok(prepared)
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
