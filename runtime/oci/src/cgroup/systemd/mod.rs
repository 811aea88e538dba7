//! systemd's way to cgroups: a scope that it is asked for over D-Bus, in which it leaves the rest to the runtime.
//!
//! In: `cgroupsPath` as `slice:prefix:name`, limits, a process. Out: a unit with that process in it, whose properties say the
//! same as its cgroup's files. Must never: wait for ever, or trust a message further than its length.

mod annotation;
mod bus;
mod manager;
mod name;
mod property;
mod unit;
mod wire;

pub use manager::Manager;
pub use name::Scope;
pub use property::Known;
pub use property::Property;
pub use unit::Unit;

pub(super) use property::as_kept;
pub(super) use property::of_settings;
