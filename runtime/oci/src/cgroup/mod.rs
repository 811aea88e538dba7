//! Control groups, version 2: where a container's processes are counted, limited, frozen and killed.
//!
//! In: `cgroupsPath` and `resources` of config.json, the host's `Facts`. Out: a `CgroupPlan`, checked whole before
//! anything is done; then a `Cgroup`, the directory made of it. Must never: keep a state of its own (the kernel has it),
//! or touch a cgroup above the container's but to make the way to it.

mod create;
pub mod devices;
mod dir;
mod events;
mod facts;
mod fs;
pub mod limits;
mod plan;
mod programs;
mod stats;
pub mod systemd;

pub use events::Event;
pub use events::Watch;
pub use facts::Facts;
pub use facts::own_path;
pub use fs::Cgroup;
pub use fs::destroy;
pub use fs::not_added;
pub use plan::CgroupPlan;
pub use stats::Stats;
