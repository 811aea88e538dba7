//! What the host offers by way of cgroups.
//!
//! In: /sys/fs/cgroup and /proc/self/cgroup, once. Out: `Facts`, plain values that tests can make up.
//! Must never: be asked while a container is set up.

use std::path::Path;
use std::path::PathBuf;

use super::systemd::Manager;
use crate::report::Error;
use crate::report::Fails;
use crate::unsupported;

/// Where systemd and everyone else mounts cgroups.
const MOUNT: &str = "/sys/fs/cgroup";
/// Where a hybrid layout has its v2 side.
const HYBRID_MOUNT: &str = "/sys/fs/cgroup/unified";
/// CGROUP2_SUPER_MAGIC (linux/magic.h)
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The host's cgroup v2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Whether cgroup v1 is mounted beside it and may have controllers that v2 then lacks.
    pub hybrid: bool,
    /// The controllers at its root.
    pub controllers: Vec<String>,
    /// The runtime's own cgroup, from the mount point on: `/user.slice/...`.
    pub own: String,
    /// The systemd that makes cgroups; none: the runtime does.
    pub manager: Option<Manager>,
}

impl Facts {
    /// Looks at the host.
    ///
    /// # Errors
    /// A host with cgroup v1 only, or with none mounted.
    pub fn probe() -> Result<Facts, Error> {
        let (mount, hybrid) = if is_cgroup2(Path::new(MOUNT)) {
            (MOUNT, false)
        } else if is_cgroup2(Path::new(HYBRID_MOUNT)) {
            (HYBRID_MOUNT, true)
        } else {
            let reason = unsupported::error(unsupported::CGROUP_V1);
            return Err(Error::new(format!("{MOUNT} is no cgroup v2 mount; {reason}")));
        };
        let read = |path: &Path| sys::kernel_file::read(path).step("read", path.display());
        let controllers = read(&Path::new(mount).join("cgroup.controllers"))?;
        let own = read(Path::new("/proc/self/cgroup"))?;
        Ok(Facts {
            mount: PathBuf::from(mount),
            hybrid,
            controllers: controllers.split_whitespace().map(str::to_string).collect(),
            own: own_path(&own).unwrap_or("/").to_string(),
            manager: None,
        })
    }
}

fn is_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as u64 == CGROUP2_MAGIC)
}

/// The v2 line of /proc/PID/cgroup (cgroups(7)).
pub fn own_path(proc_cgroup: &str) -> Option<&str> {
    proc_cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_path_is_the_v2_line() {
        assert_eq!(own_path("12:pids:/a\n1:name=systemd:/b\n0::/user.slice/x\n"), Some("/user.slice/x"));
        assert_eq!(own_path("0::/\n"), Some("/"));
        assert_eq!(own_path("12:pids:/a\n"), None);
    }
}
