//! Coracle's container runtime and CNI network plugins, as a library so that tests and fuzz targets reach every part.
//!
//! In: the name it is called by, the command line, standard input. Out: containers, network attachments, JSON.
//! Must never: run `unsafe` outside `sys`, read the environment as an interface between its own parts.

pub mod cni;
pub mod face;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod netlink;
pub mod oci;
pub mod sys;
pub mod xattrs;
