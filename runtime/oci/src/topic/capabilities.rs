//! Capabilities (capabilities(7)). In: five lists of names. Out: five sets, put on in two steps around the change of
//! user. Must never: leave an inheritable or ambient one that was not asked for (CVE-2022-27650, CVE-2022-29162).

use rustix::thread::CapabilitySet;
use rustix::thread::CapabilitySets;

use crate::report;
use crate::report::Error;
use crate::report::Fails;
use crate::report::errno_text;
use spec::process::Capabilities;

/// Names in the order of their numbers (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Five sets, a bit a capability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    bounding: u64,
    effective: u64,
    inheritable: u64,
    permitted: u64,
    ambient: u64,
}

/// Reads the section; names that no kernel knows are left out, as the specification says, and returned for the log.
pub fn plan(capabilities: &Capabilities) -> (Sets, Vec<String>) {
    let mut unknown = Vec::new();
    let mut set = |names: &[String]| {
        names.iter().fold(0, |set, name| match number(name) {
            Some(number) => set | 1 << number,
            None => {
                if !unknown.contains(name) {
                    unknown.push(name.clone());
                }
                set
            }
        })
    };
    let sets = Sets {
        bounding: set(&capabilities.bounding),
        effective: set(&capabilities.effective),
        inheritable: set(&capabilities.inheritable),
        permitted: set(&capabilities.permitted),
        ambient: set(&capabilities.ambient),
    };
    (sets, unknown)
}

/// The number of a name, with or without `CAP_`.
pub fn number(name: &str) -> Option<u32> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|known| *known == name).and_then(|number| u32::try_from(number).ok())
}

/// The name of each capability, for messages and `features`.
pub fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|name| format!("CAP_{name}"))
}

impl Sets {
    /// Drops what is outside the bounding set, and keeps the rest across the coming change of user.
    ///
    /// # Errors
    /// prctl(2)'s.
    pub fn before_user_change(&self) -> Result<(), Error> {
        for number in 0..64_u32 {
            if self.bounding & 1 << number != 0 {
                continue;
            }
            let bit = CapabilitySet::from_bits_retain(1 << number);
            match rustix::thread::remove_capability_from_bounding_set(bit) {
                Ok(()) => {}
                // The kernel has fewer.
                Err(rustix::io::Errno::INVAL) => break,
                Err(errno) => return Err(errno).step("drop from the bounding set capability", number),
            }
        }
        rustix::thread::set_keep_capabilities(true).step("keep", "capabilities")
    }

    /// Puts the sets on.
    ///
    /// # Errors
    /// capset(2)'s: EPERM for one that is not permitted.
    pub fn after_user_change(&self) -> Result<(), Error> {
        let set = CapabilitySet::from_bits_retain;
        let sets = CapabilitySets {
            effective: set(self.effective & self.permitted),
            permitted: set(self.permitted),
            inheritable: set(self.inheritable),
        };
        rustix::thread::set_capabilities(None, sets).step("set", "capabilities")?;
        rustix::thread::set_keep_capabilities(false).step("keep no more", "capabilities")?;
        rustix::thread::clear_ambient_capability_set().step("clear", "ambient capabilities")?;
        for number in (0..64_u32).filter(|number| self.ambient & 1 << number != 0) {
            let bit = CapabilitySet::from_bits_retain(1 << number);
            if let Err(errno) = rustix::thread::configure_capability_in_ambient_set(bit, true) {
                let name = names().nth(number as usize).unwrap_or_default();
                // As runc: the program runs with less than was asked for, which is safe.
                report::warn(&format!("can't raise ambient capability {name}: {}", errno_text(errno)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_with_and_without_prefix() {
        assert_eq!(
            (number("CAP_CHOWN"), number("kill"), number("CAP_CHECKPOINT_RESTORE")),
            (Some(0), Some(5), Some(40))
        );
        assert_eq!(number("CAP_FLY"), None);
    }

    #[test]
    fn unknown_names_are_left_out_and_told() {
        let capabilities = Capabilities {
            bounding: vec!["CAP_KILL".into(), "CAP_FLY".into()],
            effective: vec!["CAP_FLY".into()],
            ..Capabilities::default()
        };
        let (sets, unknown) = plan(&capabilities);
        assert_eq!((sets.bounding, unknown), (1 << 5, vec!["CAP_FLY".to_string()]));
    }
}
