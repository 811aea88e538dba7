//! What every process of a container runs under, the first one and those of exec: memory policy, execution domain,
//! Landlock's rules, system call filter.
//! In: a spec. Out: the checked conditions, and their parts put on by the process itself. Must never: differ between
//! `create` and `exec`: both plan them here, from the same spec.

use std::os::fd::OwnedFd;

use super::landlock;
use super::memory_policy;
use crate::report::Error;
use crate::report::Fails;
use crate::seccomp;
use spec::Spec;
use spec::linux::Personality;
use spec::linux::PersonalityDomain;
use spec::seccomp::Text;

/// Flags of an execution domain (linux/personality.h). The specification names none; these are the kernel's names.
const FLAGS: [(&str, u64); 11] = [
    ("UNAME26", 0x002_0000),
    ("ADDR_NO_RANDOMIZE", 0x004_0000),
    ("FDPIC_FUNCPTRS", 0x008_0000),
    ("MMAP_PAGE_ZERO", 0x010_0000),
    ("ADDR_COMPAT_LAYOUT", 0x020_0000),
    ("READ_IMPLIES_EXEC", 0x040_0000),
    ("ADDR_LIMIT_32BIT", 0x080_0000),
    ("SHORT_INODE", 0x100_0000),
    ("WHOLE_SECONDS", 0x200_0000),
    ("STICKY_TIMEOUTS", 0x400_0000),
    ("ADDR_LIMIT_3GB", 0x800_0000),
];
/// PER_LINUX32 of linux/personality.h.
const PER_LINUX32: u64 = 8;

/// Checked conditions.
#[derive(Debug, Default)]
pub struct Conditions {
    personality: Option<u64>,
    memory_policy: Option<memory_policy::Policy>,
    landlock: Option<landlock::Rules>,
    /// Whether the container has only some processors: there is no SCHED_DEADLINE then.
    pub has_cpuset: bool,
    /// The system call filter.
    pub seccomp: Option<seccomp::Filter>,
}

/// Checks and converts them. `kept` is the filter that was made of the spec's section before.
///
/// # Errors
/// What is wrong or not supported, by the path of its field.
pub fn plan(spec: &Spec, kept: Option<seccomp::Filter>) -> Result<Conditions, Error> {
    let landlock = landlock::plan(&spec.annotations)?;
    let Some(linux) = &spec.linux else { return Ok(Conditions { landlock, ..Conditions::default() }) };
    let compile = |text: &Text| seccomp::compile(&text.read()?);
    let seccomp = match kept {
        Some(filter) => Some(filter),
        None => linux.seccomp.as_ref().map(compile).transpose()?,
    };
    let cpu = linux.resources.as_ref().and_then(|resources| resources.cpu.as_ref());
    Ok(Conditions {
        landlock,
        memory_policy: linux.memory_policy.as_ref().map(memory_policy::plan).transpose()?.flatten(),
        personality: linux.personality.as_ref().map(personality).transpose()?,
        has_cpuset: cpu.is_some_and(|cpu| !cpu.cpus.is_empty()),
        seccomp,
    })
}

fn personality(wanted: &Personality) -> Result<u64, Error> {
    let mut persona = match wanted.domain {
        PersonalityDomain::Linux => 0,
        PersonalityDomain::Linux32 => PER_LINUX32,
    };
    for (index, flag) in wanted.flags.iter().enumerate() {
        let Some((_, bit)) = FLAGS.iter().find(|(name, _)| name == flag) else {
            return Err(Error::spec(
                format!("linux.personality.flags[{index}]"),
                format!("{flag:?}: expected a flag of personality(2), like ADDR_NO_RANDOMIZE"),
            ));
        };
        persona |= bit;
    }
    Ok(persona)
}

impl Conditions {
    /// Puts on what a filter may forbid to put on later.
    ///
    /// # Errors
    /// Each names the step.
    pub fn enter(&self) -> Result<(), Error> {
        if let Some(policy) = &self.memory_policy {
            policy.apply()?;
        }
        match self.personality {
            Some(persona) => sys::process::personality(persona).step("set", "the execution domain"),
            None => Ok(()),
        }
    }

    /// Puts on Landlock's rules, then the filter, which may forbid to do so. Gives the fd for its listener, when it has one: see `Filter::install`.
    ///
    /// # Errors
    /// Landlock's, seccomp(2)'s.
    pub fn confine(&self) -> Result<Option<OwnedFd>, Error> {
        if let Some(landlock) = &self.landlock {
            landlock.apply()?;
        }
        let Some(filter) = &self.seccomp else { return Ok(None) };
        filter.install().step("load", "the seccomp filter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_an_execution_domain_are_the_kernels() {
        let persona = |json: &str| personality(&spec::parse("personality", json.as_bytes()).unwrap());
        assert_eq!(persona(r#"{"domain":"LINUX32","flags":["ADDR_NO_RANDOMIZE","UNAME26"]}"#), Ok(0x6_0008));
        let error = persona(r#"{"domain":"LINUX","flags":["SHORT_INODE","FLY"]}"#).unwrap_err().to_string();
        assert!(error.starts_with("linux.personality.flags[1]: \"FLY\""), "{error}");
    }
}
