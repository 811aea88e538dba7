//! `runc features`: what this runtime knows, whatever the host has (features.md, features-linux.md). In: the tables by
//! which config.json is read. Out: JSON. Must never: promise what `unsupported` refuses.

use std::io::Write;

use serde_json::Value;
use serde_json::json;

use crate::SPEC_VERSION;
use crate::report::Error;
use crate::report::Fails;
use crate::topic::capabilities;
use crate::topic::landlock;
use crate::topic::memory_policy;
use crate::topic::mounts;
use crate::unsupported;

const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
const ACTIONS: [&str; 9] =
    ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "NOTIFY", "TRACE", "TRAP"];
const OPERATORS: [&str; 7] = ["EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"];
const FLAGS: [&str; 4] = ["LOG", "SPEC_ALLOW", "TSYNC", "WAIT_KILLABLE_RECV"];
const ARCHITECTURES: [&str; 23] = [
    "AARCH64",
    "ARM",
    "LOONGARCH64",
    "M68K",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PARISC",
    "PARISC64",
    "PPC",
    "PPC64",
    "PPC64LE",
    "RISCV64",
    "S390",
    "S390X",
    "SH",
    "SHEB",
    "X32",
    "X86",
    "X86_64",
];

fn names(prefix: &str, table: &[&str]) -> Vec<String> {
    table.iter().map(|name| format!("{prefix}{name}")).collect()
}

/// The whole document.
fn document() -> Value {
    let flags = names("SECCOMP_FILTER_FLAG_", &FLAGS);
    let enabled = json!({ "enabled": true });
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": HOOKS,
        "mountOptions": mounts::option_names(),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": capabilities::names().collect::<Vec<_>>(),
            "cgroup": {
                "v1": unsupported::is_done(unsupported::CGROUP_V1),
                "v2": true,
                "systemd": true,
                "systemdUser": true,
                "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": names("SCMP_ACT_", &ACTIONS),
                "operators": names("SCMP_CMP_", &OPERATORS),
                "archs": names("SCMP_ARCH_", &ARCHITECTURES),
                "knownFlags": flags,
                "supportedFlags": flags,
            },
            "apparmor": enabled,
            "selinux": enabled,
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": { "modes": memory_policy::MODES, "flags": memory_policy::FLAGS },
            "mountExtensions": { "idmap": enabled },
            "netDevices": enabled,
        },
        "annotations": {
            "org.coracle.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
        "potentiallyUnsafeConfigAnnotations": [landlock::ANNOTATION],
    })
}

/// Writes the document to standard output.
///
/// # Errors
/// It can't be written.
pub fn show() -> Result<(), Error> {
    let text = spec::text("features", &document())?;
    std::io::stdout().write_all(&text).step("write", "standard output")
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::Spec;

    /// What the reader of config.json says it expected instead of a name that is none.
    fn expected(config: Value) -> Vec<String> {
        let spec = spec::parse::<Spec>("config.json", config.to_string().as_bytes());
        let read = spec.and_then(|spec| spec.seccomp().unwrap().read().map(drop));
        let error = read.unwrap_err().to_string();
        let names: Vec<String> = error.split('`').skip(3).step_by(2).map(str::to_string).collect();
        assert!(names.len() > 1, "{error}");
        sorted(names)
    }

    fn sorted(mut names: Vec<String>) -> Vec<String> {
        names.sort();
        names
    }

    fn shown(pointer: &str) -> Vec<String> {
        sorted(serde_json::from_value(document().pointer(pointer).unwrap().clone()).unwrap())
    }

    fn seccomp(section: Value) -> Value {
        json!({"ociVersion": "1.3.0", "linux": {"seccomp": section}})
    }

    /// The lists are those that config.json is read by, no name more and none less.
    #[test]
    fn the_lists_agree_with_what_is_read() {
        let rule = |rule: Value| seccomp(json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": [rule]}));
        let flags = seccomp(json!({"defaultAction": "SCMP_ACT_LOG", "flags": ["x"]}));
        for (pointer, config) in [
            ("/linux/namespaces", json!({"ociVersion": "1.3.0", "linux": {"namespaces": [{"type": "x"}]}})),
            ("/linux/seccomp/actions", seccomp(json!({"defaultAction": "x"}))),
            (
                "/linux/seccomp/operators",
                rule(
                    json!({"names": [], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 0, "op": "x"}]}),
                ),
            ),
            (
                "/linux/seccomp/archs",
                seccomp(json!({"defaultAction": "SCMP_ACT_LOG", "architectures": ["x"]})),
            ),
            ("/linux/seccomp/knownFlags", flags.clone()),
            ("/linux/seccomp/supportedFlags", flags),
        ] {
            assert_eq!(shown(pointer), expected(config), "{pointer}");
        }
    }

    #[test]
    fn what_is_promised_is_not_refused() {
        for (pointer, name) in [
            ("/linux/cgroup/v1", unsupported::CGROUP_V1),
            ("/linux/cgroup/systemd", "--systemd-cgroup"),
            ("/linux/cgroup/systemdUser", "--systemd-cgroup"),
            ("/linux/intelRdt/enabled", "linux.intelRdt"),
            ("/linux/netDevices/enabled", "linux.netDevices"),
            ("/linux/apparmor/enabled", "process.apparmorProfile"),
            ("/linux/selinux/enabled", "process.selinuxLabel"),
            ("/linux/mountExtensions/idmap/enabled", "mounts.uidMappings"),
        ] {
            let promised = document().pointer(pointer).unwrap().as_bool().unwrap();
            assert_eq!(promised, unsupported::is_done(name), "{name}");
        }
    }

    /// Options that are listed are words of this runtime: they never reach a file system.
    #[test]
    fn listed_mount_options_are_known() {
        use crate::topic::namespaces::Namespaces;
        let namespaces = Namespaces { new: vec![spec::linux::NamespaceKind::User], ..Namespaces::default() };
        for option in mounts::option_names() {
            let json = if ["bind", "rbind", "idmap", "ridmap"].contains(&option.as_str()) {
                json!({"destination": "/a", "source": "/b", "options": ["bind", option]})
            } else {
                json!({"destination": "/a", "type": "tmpfs", "options": [option]})
            };
            let mount = spec::parse("mount", json.to_string().as_bytes()).unwrap();
            let plan =
                mounts::plan(0, &mount, (std::path::Path::new("/"), std::path::Path::new("/r")), &namespaces)
                    .unwrap();
            if let mounts::Kind::FileSystem { options, .. } = plan.kind {
                assert!(options.is_empty(), "{options:?}");
            }
        }
    }
}
