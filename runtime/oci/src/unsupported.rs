//! What of the specification and of runc's command line is not done, with the reason. In: its name. Out: the error of
//! whoever asks for it, and what `features` says of it. Must never: be passed over in silence, here or there.

use super::report::Error;

/// Something that is not done.
#[derive(Debug, Clone, Copy)]
pub struct Unsupported {
    /// A verb, a flag, the path of a field in config.json, or a part of the kernel.
    pub name: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// The older of the kernel's two kinds of cgroups.
pub const CGROUP_V1: &str = "cgroup v1";

const fn only_v1(name: &'static str) -> Unsupported {
    Unsupported { name, reason: "cgroup v2 has no such limit" }
}

/// All of them: cgroup v1, and with it the fields that mean nothing elsewhere. Every other field of runtime-spec 1.3.0 for
/// Linux is done, or refused by name where the kernel lacks it.
pub const LIST: [Unsupported; 9] = [
    Unsupported {
        name: CGROUP_V1,
        reason: "not supported: boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 at /sys/fs/cgroup",
    },
    Unsupported {
        name: "linux.resources.memory.swappiness",
        reason: "cgroup v2 has no such limit; memory.swap.max in `unified` limits swapping",
    },
    Unsupported {
        name: "linux.resources.memory.disableOOMKiller",
        reason: "cgroup v2 has no such limit; memory.high in `unified` throttles instead of killing",
    },
    only_v1("linux.resources.cpu.realtimeRuntime"),
    only_v1("linux.resources.cpu.realtimePeriod"),
    only_v1("linux.resources.blockIO.leafWeight"),
    only_v1("linux.resources.blockIO.weightDevice[].leafWeight"),
    only_v1("linux.resources.network.classID"),
    only_v1("linux.resources.network.priorities"),
];

/// Whether `name` is done.
pub fn is_done(name: &str) -> bool {
    LIST.iter().all(|unsupported| unsupported.name != name)
}

/// The error for one of them; of a list's element it names which.
pub fn error(name: &str) -> Error {
    let listed: String =
        name.chars().filter(|letter| !letter.is_ascii_digit() || !name.contains('[')).collect();
    let found = LIST.iter().find(|unsupported| unsupported.name == listed);
    Error::spec(name, found.map_or("not supported", |unsupported| unsupported.reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_one_is_an_error_with_its_reason() {
        assert!(error(CGROUP_V1).to_string().starts_with("cgroup v1: not supported: boot with"));
        assert!(!is_done(CGROUP_V1) && is_done("checkpoint") && is_done("linux.intelRdt"));
        assert_eq!(
            error("linux.resources.blockIO.weightDevice[12].leafWeight").to_string(),
            "linux.resources.blockIO.weightDevice[12].leafWeight: cgroup v2 has no such limit"
        );
    }
}
