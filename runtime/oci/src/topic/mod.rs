//! The topics of a container, one file each: its part of the plan, made from the spec without looking at the world,
//! and what does it, side by side.

pub mod capabilities;
pub mod conditions;
pub mod console;
pub mod copy_up;
pub mod devices;
pub mod hooks;
pub mod idmap;
pub mod inside;
pub mod intel_rdt;
pub mod labels;
pub mod landlock;
pub mod masks;
pub mod memory_policy;
pub mod mounts;
pub mod namespaces;
pub mod net_devices;
pub mod process;
pub mod rlimits;
pub mod rootfs;
pub mod schedule;
pub mod sources;
pub mod sysctl;
