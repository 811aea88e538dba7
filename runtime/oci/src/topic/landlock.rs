//! Landlock, by an annotation; experimental: no specification has it. In: JSON in `org.coracle.landlock`. Out: a ruleset on
//! each process of the container, put on before its filter. Must never: allow what a kernel can't watch: it is an error.
//!
//! ```json
//! {"read": ["/usr", "/etc"], "write": ["/tmp"], "connectTcp": [443], "bindTcp": [8080]}
//! ```
//! With `read` or `write`, all other paths can't be opened; with `connectTcp` or `bindTcp`, all other ports not be used
//! so. A list that is absent restricts nothing, an empty one everything.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::Deserialize;

use super::inside;
use crate::report::Error;
use crate::report::Fails;

/// The annotation's name.
pub const ANNOTATION: &str = "org.coracle.landlock";

/// LANDLOCK_ACCESS_FS_EXECUTE, READ_FILE and READ_DIR.
const FS_READ: u64 = 0b1101;
/// What a file that is no folder can have: EXECUTE, WRITE_FILE, READ_FILE, TRUNCATE, IOCTL_DEV.
const FS_OF_FILES: u64 = 0b111 | 1 << 14 | 1 << 15;
const NET_BIND_TCP: u64 = 1;
const NET_CONNECT_TCP: u64 = 2;
/// The first version that knows ports.
const VERSION_OF_NET: u32 = 4;

/// The annotation's text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Rules {
    read: Option<Vec<String>>,
    write: Option<Vec<String>>,
    connect_tcp: Option<Vec<u16>>,
    bind_tcp: Option<Vec<u16>>,
}

/// Reads the annotation, if it is there.
///
/// # Errors
/// It is no such JSON; a path that is not absolute.
pub fn plan(annotations: &BTreeMap<String, String>) -> Result<Option<Rules>, Error> {
    let Some(text) = annotations.get(ANNOTATION) else { return Ok(None) };
    let name = format!("annotations.{ANNOTATION}");
    let rules: Rules = spec::parse(&name, text.as_bytes())?;
    let mut paths = rules.read.iter().chain(&rules.write).flatten();
    match paths.find(|path| !path.starts_with('/')) {
        Some(path) => Err(Error::spec(name, format!("{path:?}: expected an absolute path"))),
        None => Ok(Some(rules)),
    }
}

/// All bits of the file system that a version knows.
fn all_fs(version: u32) -> u64 {
    let bits = match version {
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << bits) - 1
}

impl Rules {
    /// Puts the rules on the calling process, in the container's root.
    ///
    /// # Errors
    /// A kernel without Landlock, or with one that knows no ports; a path that can't be opened.
    pub fn apply(&self) -> Result<(), Error> {
        let version = match sys::landlock::version() {
            Err(Errno::NOSYS | Errno::OPNOTSUPP) => {
                return Err(Error::spec(ANNOTATION, "this kernel has no Landlock, or has it switched off"));
            }
            version => version.step("ask for the version of", "Landlock")?,
        };
        let net = [(&self.bind_tcp, NET_BIND_TCP), (&self.connect_tcp, NET_CONNECT_TCP)];
        let handled_net =
            net.iter().filter(|(ports, _)| ports.is_some()).fold(0, |bits, (_, bit)| bits | bit);
        if handled_net != 0 && version < VERSION_OF_NET {
            return Err(Error::spec(ANNOTATION, "this kernel's Landlock knows no ports; Linux 6.7 does"));
        }
        let paths = [(&self.read, FS_READ), (&self.write, all_fs(version))];
        let handled_fs = if paths.iter().any(|(paths, _)| paths.is_some()) { all_fs(version) } else { 0 };
        if (handled_fs, handled_net) == (0, 0) {
            return Ok(());
        }
        let ruleset = sys::landlock::create(handled_fs, handled_net).step("make", "a Landlock ruleset")?;
        for (paths, access) in paths {
            for path in paths.iter().flatten() {
                let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
                let fd = fd.step("Landlock: open", path)?;
                let folder = inside::is_folder(&fd).step("Landlock: look at", path)?;
                let access = if folder { access } else { access & FS_OF_FILES };
                sys::landlock::allow_path(ruleset.as_fd(), access, fd.as_fd())
                    .step("Landlock: allow", path)?;
            }
        }
        for (ports, access) in net {
            for port in ports.iter().flatten() {
                sys::landlock::allow_port(ruleset.as_fd(), access, *port)
                    .step("Landlock: allow port", port)?;
            }
        }
        sys::landlock::restrict(ruleset.as_fd()).step("put on", "the Landlock ruleset")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Option<Rules>, Error> {
        plan(&BTreeMap::from([(ANNOTATION.to_string(), text.to_string())]))
    }

    #[test]
    fn the_annotation_is_read_whole_or_refused() {
        let rules = of(r#"{"read":["/usr"],"connectTcp":[443]}"#).unwrap().unwrap();
        assert_eq!((rules.read, rules.write), (Some(vec!["/usr".to_string()]), None));
        assert_eq!(plan(&BTreeMap::new()).unwrap(), None);
        for text in ["", r#"{"reed":[]}"#, r#"{"read":["usr"]}"#, r#"{"bindTcp":[65536]}"#] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.starts_with("annotations.org.coracle.landlock:"), "{error}");
        }
    }

    #[test]
    fn each_version_knows_its_bits() {
        assert_eq!((all_fs(1), all_fs(3), all_fs(6)), (0x1fff, 0x7fff, 0xffff));
    }
}
