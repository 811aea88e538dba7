//! `linux.seccomp` of config.json (runtime-spec 1.3.0, config-linux.md, "Seccomp").
//!
//! In: JSON. Out: the section as it is written there; names that are not of the spec are errors at their field.
//! Must never: give a default or judge a combination, which is `seccomp::compile`'s work.

use serde::Deserialize;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::Error;

/// The section `linux.seccomp` as it is written: it is the largest of a usual config.json, and most starts find the filter
/// that was made of it before.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(Box<RawValue>);

impl Text {
    /// JSON.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// What is written there.
    ///
    /// # Errors
    /// It is no such section, by the path of the field.
    pub fn read(&self) -> Result<Seccomp, Error> {
        super::read(self.as_str().as_bytes()).map_err(|(path, message)| {
            // The line is one of the section's, and nobody has that text.
            let message = message.split(" at line ").next().unwrap_or_default();
            let dot = if path == "." { "" } else { "." };
            Error::new(format!("linux.seccomp{dot}{}: {message}", path.trim_start_matches('.')))
        })
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.as_str() == other.as_str()
    }
}

/// The section `linux.seccomp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    /// What happens to a call that no rule matches.
    pub default_action: Action,
    /// The errno that goes with `default_action`; EPERM where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// The ABIs that the filter is made for, beside the native one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<Arch>,
    /// Flags of seccomp(2). Absent and empty differ: absent means runc's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<Flag>>,
    /// The Unix socket that gets the notification fd.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_path: String,
    /// Opaque text for the listener.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_metadata: String,
    /// The rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<Rule>,
}

/// One entry of `syscalls`: the same verdict for some calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Names of system calls.
    pub names: Vec<String>,
    /// The verdict.
    pub action: Action,
    /// The errno that goes with the verdict; EPERM where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions on the arguments; none: the rule always matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Arg>,
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arg {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// What it is compared with; the mask for `MaskedEqual`.
    pub value: u64,
    /// What the masked argument is compared with.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub value_two: u64,
    /// How.
    pub op: Operator,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A verdict, by libseccomp's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// The old name of `KillThread`.
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    /// The process dies of SIGSYS.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// The calling thread dies of SIGSYS.
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// The thread gets a SIGSYS that it can handle.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// The call fails with an errno.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// A tracer decides; without one the call fails with ENOSYS.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// The call is carried out.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// The call is carried out and logged.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// A listener decides.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// How an argument is compared; all comparisons are unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    /// `arg != value`
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    /// `arg < value`
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// `arg <= value`
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    /// `arg == value`
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// `arg >= value`
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// `arg > value`
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// `arg & value == valueTwo & value`
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// A flag of seccomp(2)'s SECCOMP_SET_MODE_FILTER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flag {
    /// All threads get the filter.
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
    /// Verdicts other than allow are logged.
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    /// Speculative store bypass stays on.
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
    /// A notification that was received can only be interrupted by fatal signals.
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillableRecv,
}

/// An ABI, by libseccomp's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are all there is to say
pub enum Arch {
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X86_64,
    #[serde(rename = "SCMP_ARCH_X32")]
    X32,
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    #[serde(rename = "SCMP_ARCH_MIPS")]
    Mips,
    #[serde(rename = "SCMP_ARCH_MIPS64")]
    Mips64,
    #[serde(rename = "SCMP_ARCH_MIPS64N32")]
    Mips64N32,
    #[serde(rename = "SCMP_ARCH_MIPSEL")]
    Mipsel,
    #[serde(rename = "SCMP_ARCH_MIPSEL64")]
    Mipsel64,
    #[serde(rename = "SCMP_ARCH_MIPSEL64N32")]
    Mipsel64N32,
    #[serde(rename = "SCMP_ARCH_PPC")]
    Ppc,
    #[serde(rename = "SCMP_ARCH_PPC64")]
    Ppc64,
    #[serde(rename = "SCMP_ARCH_PPC64LE")]
    Ppc64Le,
    #[serde(rename = "SCMP_ARCH_S390")]
    S390,
    #[serde(rename = "SCMP_ARCH_S390X")]
    S390x,
    #[serde(rename = "SCMP_ARCH_PARISC")]
    Parisc,
    #[serde(rename = "SCMP_ARCH_PARISC64")]
    Parisc64,
    #[serde(rename = "SCMP_ARCH_RISCV64")]
    Riscv64,
    #[serde(rename = "SCMP_ARCH_LOONGARCH64")]
    Loongarch64,
    #[serde(rename = "SCMP_ARCH_M68K")]
    M68k,
    #[serde(rename = "SCMP_ARCH_SH")]
    Sh,
    #[serde(rename = "SCMP_ARCH_SHEB")]
    Sheb,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        let mut json = serde_json::Deserializer::from_str(json);
        let error = serde_path_to_error::deserialize::<_, Seccomp>(&mut json).unwrap_err();
        format!("{}: {}", error.path(), error.inner())
    }

    /// Properties that are not of the spec are ignored, as docker's own file format has some.
    #[test]
    fn a_section_is_read_as_it_stands() {
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86","SCMP_ARCH_SHEB"],
            "archMap":[{}],"listenerPath":"/run/s","listenerMetadata":"m","flags":[],
            "syscalls":[{"names":["getcwd","chmod"],"action":"SCMP_ACT_NOTIFY","comment":"",
                         "args":[{"index":1,"value":18446744073709551615,"valueTwo":2,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#;
        let section: Seccomp = serde_json::from_str(json).unwrap();
        assert_eq!(section.flags, Some(vec![]));
        assert_eq!(section.architectures, [Arch::X86, Arch::Sheb]);
        assert_eq!(
            section.syscalls[0].args[0],
            Arg { index: 1, value: u64::MAX, value_two: 2, op: Operator::MaskedEqual }
        );
        let again: Seccomp = serde_json::from_str(&serde_json::to_string(&section).unwrap()).unwrap();
        assert_eq!(again, section);
        assert_eq!(
            serde_json::from_str::<Seccomp>(r#"{"defaultAction":"SCMP_ACT_KILL"}"#).unwrap().flags,
            None
        );
    }

    #[test]
    fn a_text_is_read_when_it_is_needed_and_errors_name_the_whole_path() {
        let text = |json: &str| serde_json::from_str::<Text>(json).unwrap();
        let section = text(r#"{"defaultAction": "SCMP_ACT_LOG"}"#).read().unwrap();
        assert_eq!(section.default_action, Action::Log);
        for (json, expected) in [
            ("5", "linux.seccomp: invalid type: integer `5`, expected struct Seccomp"),
            ("{}", "linux.seccomp: missing field `defaultAction`"),
            (
                r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":[7]}]}"#,
                "linux.seccomp.syscalls[0].names[0]: invalid type: integer `7`, expected a string",
            ),
        ] {
            assert_eq!(text(json).read().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn values_that_are_not_of_the_spec_are_errors_at_their_field() {
        for (json, path) in [
            ("{}", ".: missing field `defaultAction`"),
            (r#"{"defaultAction":"ALLOW"}"#, "defaultAction: unknown variant `ALLOW`"),
            (
                r#"{"defaultAction":"SCMP_ACT_LOG","architectures":["SCMP_ARCH_Z80"]}"#,
                "architectures[0]: unknown variant",
            ),
            (r#"{"defaultAction":"SCMP_ACT_LOG","flags":["X"]}"#, "flags[0]: unknown variant"),
            (
                r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":[],"action":"SCMP_ACT_LOG","errnoRet":-1}]}"#,
                "syscalls[0].errnoRet: ",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":[],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":0,"op":"=="}]}]}"#,
                "syscalls[0].args[0].op: unknown variant",
            ),
        ] {
            assert!(error(json).starts_with(path), "{}", error(json));
        }
    }
}
