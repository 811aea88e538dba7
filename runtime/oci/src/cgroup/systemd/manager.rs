//! Which systemd makes the scopes: the system's, or the user's own. In: whether the caller is rootless. Out: where its
//! units' cgroups lie. Must never: take a host for systemd's that another init has.

use std::path::Path;

use super::bus::Bus;
use crate::cgroup::own_path;
use crate::report::Error;
use crate::report::Fails;

/// A systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// Whether it is the user's.
    pub is_user: bool,
    /// The cgroup that holds its slices, from the mount point on.
    pub root: String,
}

impl Manager {
    /// Looks for it.
    ///
    /// # Errors
    /// systemd does not run here; the user's does not answer.
    pub fn find(is_user: bool) -> Result<Manager, Error> {
        // As sd_booted(3) has it.
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(Error::new(
                "systemd cgroup flag passed, but systemd support for managing cgroups is not available: /run/systemd/system is \
                 missing, so systemd is not the init here; without --systemd-cgroup cgroups are made directly",
            ));
        }
        let root = if is_user {
            let property = Bus::connect(true)?.manager_property("ControlGroup");
            property.map_err(|failure| failure.on("find", "the cgroup of the user's systemd"))?
        } else {
            let text = sys::kernel_file::read("/proc/1/cgroup").step("read", "/proc/1/cgroup")?;
            // systemd has moved itself there, out of its slices' way.
            let own = own_path(&text).unwrap_or("/");
            own.strip_suffix("/init.scope").unwrap_or(own).to_string()
        };
        Ok(Manager { is_user, root })
    }
}
