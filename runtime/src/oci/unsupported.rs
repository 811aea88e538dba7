//! What of the specification is not done, with the reason. In: a spec. Out: an error that names the field, for the first
//! such thing that is asked for. Must never: pass over one in silence.

use super::report::Error;
use super::spec::Spec;

/// A property that is not done.
#[derive(Debug, Clone, Copy)]
pub struct Unsupported {
    /// Path of the field in config.json.
    pub field: &'static str,
    /// Why.
    pub reason: &'static str,
    asked_for: fn(&Spec) -> bool,
}

/// All of them. Single options (idmapped mounts, `tmpcopyup`, user namespaces by path) are refused where they are read.
pub const LIST: [Unsupported; 6] = [
    Unsupported {
        field: "process.apparmorProfile",
        reason: "the kernel of the image has no AppArmor, and other hosts' labels are not applied yet",
        asked_for: |spec| spec.process.as_ref().is_some_and(|process| !process.apparmor_profile.is_empty()),
    },
    Unsupported {
        field: "process.selinuxLabel",
        reason: "the kernel of the image has no SELinux, and other hosts' labels are not applied yet",
        asked_for: |spec| spec.process.as_ref().is_some_and(|process| !process.selinux_label.is_empty()),
    },
    Unsupported {
        field: "linux.mountLabel",
        reason: "SELinux labels of mounts are not applied yet",
        asked_for: |spec| spec.linux.as_ref().is_some_and(|linux| !linux.mount_label.is_empty()),
    },
    Unsupported {
        field: "linux.intelRdt",
        reason: "cache and bandwidth allocation is not applied yet",
        asked_for: |spec| spec.linux.as_ref().is_some_and(|linux| linux.intel_rdt.is_some()),
    },
    Unsupported {
        field: "linux.memoryPolicy",
        reason: "memory placement is not applied yet",
        asked_for: |spec| spec.linux.as_ref().is_some_and(|linux| linux.memory_policy.is_some()),
    },
    Unsupported {
        field: "linux.netDevices",
        reason: "interfaces are not moved into containers yet; a CNI network or a hook can",
        asked_for: |spec| spec.linux.as_ref().is_some_and(|linux| !linux.net_devices.is_empty()),
    },
];

/// Refuses a spec that asks for one of them.
///
/// # Errors
/// The first that is asked for.
pub fn check(spec: &Spec) -> Result<(), Error> {
    match LIST.iter().find(|unsupported| (unsupported.asked_for)(spec)) {
        Some(unsupported) => {
            Err(Error::spec(unsupported.field, format!("not supported: {}", unsupported.reason)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_one_is_an_error_with_its_reason() {
        let json = br#"{"ociVersion":"1.2.0","linux":{"intelRdt":{"closID":"a"}}}"#;
        let spec = crate::oci::spec::parse("config.json", json).unwrap();
        let message = check(&spec).unwrap_err().to_string();
        assert!(message.starts_with("linux.intelRdt: not supported:"), "{message}");
    }
}
