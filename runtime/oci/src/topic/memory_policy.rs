//! On which memory nodes a container's memory lies. In: `linux.memoryPolicy`. Out: set_mempolicy(2) by each of its
//! processes, which their children inherit. Must never: be passed over by a kernel that has no memory nodes.

use rustix::io::Errno;

use super::schedule;
use crate::report::Error;
use crate::report::Fails;
use spec::linux::MemoryPolicy;

/// Modes by their number (linux/mempolicy.h).
pub const MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
/// Flags by their bit, counted from the first.
pub const FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];
const FIRST_FLAG: usize = 13;
/// As many nodes as any kernel can be built for (MAX_NUMNODES).
const NODES_MAX: usize = 1024;

/// A checked policy: mode with flags, and the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    mode: i32,
    nodes: Vec<u64>,
}

/// Checks the section; an empty one asks for nothing, as runc has it.
///
/// # Errors
/// runc's sentences: a mode, flag or list of nodes that is none.
pub fn plan(wanted: &MemoryPolicy) -> Result<Option<Policy>, Error> {
    if *wanted == MemoryPolicy::default() {
        return Ok(None);
    }
    let wrong = |field: &str, message: String| Error::spec(format!("linux.memoryPolicy.{field}"), message);
    let number = |at: Option<usize>| at.and_then(|at| i32::try_from(at).ok());
    let mode = number(MODES.iter().position(|mode| *mode == wanted.mode)).ok_or_else(|| {
        wrong("mode", format!("invalid memory policy mode: {:?}: expected one like MPOL_BIND", wanted.mode))
    })?;
    let mut flags = 0;
    for (index, flag) in wanted.flags.iter().enumerate() {
        flags |= match FLAGS.iter().position(|known| known == flag) {
            Some(bit) => 1 << (FIRST_FLAG + bit),
            None => {
                return Err(wrong(
                    &format!("flags[{index}]"),
                    format!("invalid memory policy flag: {flag:?}: expected one like MPOL_F_STATIC_NODES"),
                ));
            }
        };
    }
    let nodes = schedule::number_set(&wanted.nodes, NODES_MAX).map_err(|cause| {
        wrong("nodes", format!("invalid memory policy node: {:?}: {cause}", wanted.nodes))
    })?;
    Ok(Some(Policy { mode: mode | flags, nodes }))
}

impl Policy {
    /// Sets it for the calling process and its children.
    ///
    /// # Errors
    /// set_mempolicy(2)'s: EINVAL for nodes that are not there; ENOSYS in a kernel without memory nodes.
    pub fn apply(&self) -> Result<(), Error> {
        match sys::schedule::set_memory_policy(self.mode, &self.nodes) {
            Err(Errno::NOSYS) => Err(Error::spec(
                "linux.memoryPolicy",
                "this kernel has no memory nodes (it was built without CONFIG_NUMA); remove the policy",
            )),
            done => done.step("set_mempolicy:", "linux.memoryPolicy"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Option<Policy>, Error> {
        plan(&spec::parse("policy", json.as_bytes()).unwrap())
    }

    #[test]
    fn names_become_the_kernels_numbers() {
        let json = r#"{"mode":"MPOL_BIND","nodes":"0-1,65","flags":["MPOL_F_STATIC_NODES","MPOL_F_NUMA_BALANCING"]}"#;
        assert_eq!(of(json).unwrap(), Some(Policy { mode: 0xa002, nodes: vec![3, 2] }));
        assert_eq!(of("{}").unwrap(), None);
        assert_eq!(of(r#"{"mode":"MPOL_LOCAL"}"#).unwrap(), Some(Policy { mode: 4, nodes: vec![] }));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        for (json, start) in [
            (r#"{"nodes":"0-7"}"#, "linux.memoryPolicy.mode: invalid memory policy mode"),
            (r#"{"mode":"BIND"}"#, "linux.memoryPolicy.mode: invalid memory policy mode"),
            (
                r#"{"mode":"MPOL_BIND","flags":["x"]}"#,
                "linux.memoryPolicy.flags[0]: invalid memory policy flag",
            ),
            (
                r#"{"mode":"MPOL_BIND","nodes":"0-9876543210"}"#,
                "linux.memoryPolicy.nodes: invalid memory policy node",
            ),
        ] {
            let error = of(json).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        }
    }
}
