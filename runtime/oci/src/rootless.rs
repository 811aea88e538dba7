//! Whether the caller has the host's privileges. In: user id, user namespace, environment. Out: where its containers are
//! noted down, and whether they can do without a cgroup of their own. Must never: take root of a user namespace for the
//! host's root.

use std::ffi::OsString;
use std::path::PathBuf;

use super::report::Error;

/// Where the host's root has its containers.
const STATE_ROOT: &str = "/run/runc";

/// Who calls the runtime.
#[derive(Debug)]
pub struct Caller {
    is_root: bool,
    in_user_namespace: bool,
    runtime_dir: Option<OsString>,
    user: Option<OsString>,
}

impl Caller {
    /// Looks at this process.
    pub fn probe() -> Caller {
        let map = sys::kernel_file::read("/proc/self/uid_map").unwrap_or_default();
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Caller {
            is_root: rustix::process::geteuid().is_root(),
            in_user_namespace: !map.is_empty() && !is_whole(&map),
            runtime_dir: variable("XDG_RUNTIME_DIR"),
            user: variable("USER"),
        }
    }

    /// Whether it lacks the host's privileges.
    pub fn is_rootless(&self) -> bool {
        !self.is_root || self.in_user_namespace
    }

    /// Where its containers are noted down. Root of a user namespace is, as runc has it, a user whose name is not root's.
    ///
    /// # Errors
    /// A user without XDG_RUNTIME_DIR.
    pub fn state_root(&self) -> Result<PathBuf, Error> {
        let is_user =
            !self.is_root || self.in_user_namespace && self.user.as_ref().is_none_or(|user| user != "root");
        match &self.runtime_dir {
            Some(dir) if is_user => Ok(PathBuf::from(dir).join("runc")),
            _ if self.is_root => Ok(PathBuf::from(STATE_ROOT)),
            _ => Err(Error::new("XDG_RUNTIME_DIR is not set; name a folder with --root DIR")),
        }
    }
}

/// Whether a uid_map is the initial namespace's: every id is itself (user_namespaces(7)).
fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(is_root: bool, in_user_namespace: bool, dir: &str, user: &str) -> Caller {
        let some = |text: &str| (!text.is_empty()).then(|| OsString::from(text));
        Caller { is_root, in_user_namespace, runtime_dir: some(dir), user: some(user) }
    }

    #[test]
    fn states_are_where_runc_has_them() {
        let root = |caller: Caller| caller.state_root().map(|path| path.display().to_string());
        assert_eq!(root(caller(true, false, "/run/user/0", "root")).unwrap(), "/run/runc");
        assert_eq!(root(caller(false, false, "/run/user/7", "me")).unwrap(), "/run/user/7/runc");
        assert_eq!(root(caller(true, true, "/run/user/7", "me")).unwrap(), "/run/user/7/runc");
        assert_eq!(root(caller(true, true, "/run/user/0", "root")).unwrap(), "/run/runc");
        assert_eq!(root(caller(true, true, "", "me")).unwrap(), "/run/runc");
        assert!(root(caller(false, false, "", "me")).unwrap_err().to_string().contains("--root"));
    }

    #[test]
    fn root_of_a_user_namespace_is_rootless() {
        assert!(is_whole("         0          0 4294967295\n"));
        assert!(!is_whole("         0       1000          1\n"));
        assert!(caller(true, true, "", "").is_rootless() && caller(false, false, "", "").is_rootless());
        assert!(!caller(true, false, "", "").is_rootless());
    }
}
