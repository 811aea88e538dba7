//! Coracle's container runtime and CNI network plugins, as a library so that tests and fuzz targets reach every part.
//!
//! In: the name it is called by, the command line, standard input. Out: containers, network attachments, JSON.
//! Must never: run `unsafe` outside `sys`, read the environment as an interface between its own parts.
//!
//! The two sides, `oci` and `cni`, are crates of their own that do not know each other, over `netlink`, `spec` and `sys`: the
//! compiler works on both at once, and an edit on one side leaves the other as it was compiled.

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody takes what they print

pub use cni;
pub use netlink;
pub use oci;
pub use spec;
pub use sys;

pub mod face;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod init;
pub mod xattrs;
