//! config.json's types (runtime-spec 1.3.0), one file a section.
//!
//! In: JSON. Out: what it says. Must never: give defaults or judge combinations.

pub mod resources;
pub mod seccomp;

pub use resources::Resources;
pub use seccomp::Seccomp;
