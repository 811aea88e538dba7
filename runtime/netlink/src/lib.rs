//! Netlink by blocking sockets: route (links, addresses, routes), nf_tables and conntrack.
//! Serves both sides: the CNI plugins and the OCI runtime (`lo` up, netDevices).
//!
//! In: typed requests. Out: typed answers, `Errno`. Must never: run a program, sleep, or know of CNI.
#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody takes what they print

pub mod conntrack;
pub mod link;
pub mod message;
pub mod namespace;
pub mod nft;
pub mod route;
pub mod socket;
