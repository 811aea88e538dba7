//! Resource limits. In: `process.rlimits`. Out: limits of the container's process: raised from outside, where the right
//! to do so is, and lowered by itself at the end. Must never: take a name that the kernel doesn't have.

use rustix::process::Pid;

use crate::report::Error;
use crate::report::Fails;
use spec::process::Rlimit;

/// A limit: its number in linux/resource.h, soft and hard value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    resource: u32,
    soft: u64,
    hard: u64,
}

/// The names of getrlimit(2) in the order of their numbers.
const NAMES: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// Checks the section.
///
/// # Errors
/// A name that is no limit, or stands twice; a soft limit above the hard one.
pub fn plan(field: &str, rlimits: &[Rlimit]) -> Result<Vec<Limit>, Error> {
    let mut limits: Vec<Limit> = Vec::new();
    for (index, rlimit) in rlimits.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let name = rlimit.kind.strip_prefix("RLIMIT_").unwrap_or_default();
        let number =
            NAMES.iter().position(|known| *known == name).and_then(|number| u32::try_from(number).ok());
        let Some(resource) = number else {
            return Err(Error::spec(
                field,
                format!("{:?}: invalid rlimit type; expected a name like RLIMIT_NOFILE", rlimit.kind),
            ));
        };
        if limits.iter().any(|limit| limit.resource == resource) {
            return Err(Error::spec(field, format!("{} stands here a second time; keep one", rlimit.kind)));
        }
        if rlimit.soft > rlimit.hard {
            return Err(Error::spec(field, format!("soft {} is above hard {}", rlimit.soft, rlimit.hard)));
        }
        limits.push(Limit { resource, soft: rlimit.soft, hard: rlimit.hard });
    }
    Ok(limits)
}

/// The runtime's side: gives `pid`, a child that has this process's limits, what is above them. Only here is the right
/// to do so, and what is below would hinder the child's own steps.
///
/// # Errors
/// Each names the limit.
pub fn raise(limits: &[Limit], pid: Pid) -> Result<(), Error> {
    for limit in limits {
        let (soft, hard) = sys::process::limit(limit.resource).step("read", limit.name())?;
        if limit.soft > soft || limit.hard > hard {
            let (soft, hard) = (soft.max(limit.soft), hard.max(limit.hard));
            sys::process::set_limit(pid, limit.resource, soft, hard).step("raise", limit.name())?;
        }
    }
    Ok(())
}

/// The child's side, when it has all that it needs: sets the limits as they shall be, which is never above what it has.
///
/// # Errors
/// Each names the limit.
pub fn settle(limits: &[Limit]) -> Result<(), Error> {
    let own = rustix::process::getpid();
    for limit in limits {
        sys::process::set_limit(own, limit.resource, limit.soft, limit.hard).step("set", limit.name())?;
    }
    Ok(())
}

impl Limit {
    fn name(&self) -> String {
        format!("RLIMIT_{}", NAMES.get(self.resource as usize).copied().unwrap_or_default())
    }
}
