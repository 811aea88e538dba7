//! The seccomp filter: rules of config.json -> a classic BPF program -> the kernel.
//!
//! In: `spec::Seccomp`. Out: a `Filter`, whole before anything is done, and its loading in the container's init.
//! Must never: guess. What the spec doesn't allow is an error that names the field; where the spec says nothing, what
//! runc does (through libseccomp) holds, so that a profile means the same under both.

mod arch;
mod cache;
#[cfg(any(test, feature = "fuzzing"))]
pub mod oracle;
mod program;
mod rules;
mod tables;

pub use cache::Cache;

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::report::Error;
use spec::seccomp::Action;
use spec::seccomp::Arch;
use spec::seccomp::Flag;
use spec::seccomp::Rule;
use spec::seccomp::Seccomp;
use sys::seccomp::Instruction;

/// The largest errno that the kernel passes on (MAX_ERRNO).
const ERRNO_MAX: u32 = 4095;
/// System calls have six arguments.
const ARG_INDEX_MAX: u32 = 5;

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    program: Vec<Instruction>,
    flags: u32,
    unknown: Vec<String>,
    listener: Option<Listener>,
}

/// Whom a filter with SCMP_ACT_NOTIFY asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The Unix socket that gets the notification fd.
    pub path: String,
    /// What it is told beside.
    pub metadata: String,
}

impl Filter {
    /// Loads the filter into the calling thread, which needs no_new_privs or CAP_SYS_ADMIN. One system call, no
    /// allocation. The fd is the notification fd of a filter with SCMP_ACT_NOTIFY; the caller may only use write(2)
    /// until it has handed that on, since every other call may wait for the listener.
    ///
    /// # Errors
    /// seccomp(2)'s.
    pub fn install(&self) -> Result<Option<OwnedFd>, Errno> {
        sys::seccomp::set_mode_filter(self.flags, &self.program)
    }

    /// Who gets the notification fd that `install` gives.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// The flags of seccomp(2), for the debug log.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Names in the rules that are no system call on any architecture; their rules are left out, as runc does. A filter
    /// from the cache has none.
    pub fn unknown_names(&self) -> &[String] {
        &self.unknown
    }
}

/// Compiles the section for the machine that this program was built for.
///
/// # Errors
/// What the spec forbids, and a program larger than the kernel takes; each names the field.
pub fn compile(seccomp: &Seccomp) -> Result<Filter, Error> {
    compile_for(seccomp, arch::NATIVE)
}

fn compile_for(seccomp: &Seccomp, native: Arch) -> Result<Filter, Error> {
    let listener = validate(seccomp)?;
    let mut architectures = vec![native];
    for arch in &seccomp.architectures {
        if !architectures.contains(arch) {
            architectures.push(*arch);
        }
    }
    let mentions = rules::Mentions::new(seccomp);
    let program = program::assemble(&mentions.sections(&architectures));
    if program.len() > program::INSTRUCTIONS_MAX {
        return Err(invalid(
            "syscalls",
            format!(
                "these rules make a filter of {} instructions, and the kernel takes at most {}: use fewer rules with \
                 conditions, or fewer architectures",
                program.len(),
                program::INSTRUCTIONS_MAX
            ),
        ));
    }
    let flags = flags(seccomp, listener.is_some());
    Ok(Filter { program, flags, unknown: mentions.unknown(), listener })
}

/// Checks every field, and says who listens, if there is something to listen for.
fn validate(seccomp: &Seccomp) -> Result<Option<Listener>, Error> {
    if seccomp.default_action == Action::Notify {
        return Err(invalid(
            "defaultAction",
            "SCMP_ACT_NOTIFY: it can't be the default, since the calls that hand the notification fd on would wait for it"
                .to_string(),
        ));
    }
    validate_errno("defaultErrnoRet", seccomp.default_action, seccomp.default_errno_ret)?;
    for (at, rule) in seccomp.syscalls.iter().enumerate() {
        validate_rule(at, rule)?;
    }
    let listens = seccomp.syscalls.iter().any(|rule| rule.action == Action::Notify);
    if listens && seccomp.listener_path.is_empty() {
        return Err(invalid("listenerPath", "missing, and SCMP_ACT_NOTIFY needs it".to_string()));
    }
    if seccomp.listener_path.is_empty() && !seccomp.listener_metadata.is_empty() {
        return Err(invalid("listenerMetadata", "set without listenerPath".to_string()));
    }
    let (path, metadata) = (&seccomp.listener_path, &seccomp.listener_metadata);
    Ok(listens.then(|| Listener { path: path.clone(), metadata: metadata.clone() }))
}

fn validate_rule(at: usize, rule: &Rule) -> Result<(), Error> {
    for (name_at, name) in rule.names.iter().enumerate() {
        if name.is_empty() {
            return Err(invalid(
                &format!("syscalls[{at}].names[{name_at}]"),
                "an empty string is no system call".to_string(),
            ));
        }
    }
    if rule.action == Action::Notify && rule.names.iter().any(|name| name == "write") {
        return Err(invalid(
            &format!("syscalls[{at}].action"),
            "SCMP_ACT_NOTIFY cannot be used for the write syscall, which hands the notification fd on"
                .to_string(),
        ));
    }
    validate_errno(&format!("syscalls[{at}].errnoRet"), rule.action, rule.errno_ret)?;
    for (arg_at, arg) in rule.args.iter().enumerate() {
        if arg.index > ARG_INDEX_MAX {
            return Err(invalid(
                &format!("syscalls[{at}].args[{arg_at}].index"),
                format!("{}: expected 0 to {ARG_INDEX_MAX}", arg.index),
            ));
        }
    }
    Ok(())
}

fn validate_errno(field: &str, action: Action, errno: Option<u32>) -> Result<(), Error> {
    let Some(errno) = errno else { return Ok(()) };
    let max = match action {
        Action::Errno => ERRNO_MAX,
        Action::Trace => u32::from(u16::MAX),
        _ => return Err(invalid(field, format!("{errno}: only SCMP_ACT_ERRNO and SCMP_ACT_TRACE take one"))),
    };
    if errno > max {
        return Err(invalid(field, format!("{errno}: expected 0 to {max}")));
    }
    Ok(())
}

/// The flags of seccomp(2). TSYNC is left out: init has one thread. Without a `flags` field runc asks for SPEC_ALLOW.
fn flags(seccomp: &Seccomp, listens: bool) -> u32 {
    const LOG: u32 = 1 << 1;
    const SPEC_ALLOW: u32 = 1 << 2;
    const WAIT_KILLABLE_RECV: u32 = 1 << 5;
    let mut bits = if listens { sys::seccomp::NEW_LISTENER } else { 0 };
    match &seccomp.flags {
        None => bits |= SPEC_ALLOW,
        Some(flags) => {
            for flag in flags {
                bits |= match flag {
                    Flag::Tsync => 0,
                    Flag::Log => LOG,
                    Flag::SpecAllow => SPEC_ALLOW,
                    // The kernel refuses it without a listener.
                    Flag::WaitKillableRecv => {
                        if listens {
                            WAIT_KILLABLE_RECV
                        } else {
                            0
                        }
                    }
                };
            }
        }
    }
    bits
}

fn invalid(field: &str, message: String) -> Error {
    Error::spec(format!("linux.seccomp.{field}"), message)
}
