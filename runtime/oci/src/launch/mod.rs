//! From a plan to a process. `parent` makes the container's process and does what only the host's side can do; `init`
//! is that process until its program runs; `exec` adds another one; `relay` stands between it and a terminal, `notify` between it and a
//! service manager.
//!
//! The two sides talk over one socket pair, in the words of `channel`.

pub mod channel;
pub mod exec;
pub mod finish;
pub mod init;
pub mod listener;
pub mod notify;
pub mod parent;
pub mod relay;
pub mod seal;
pub mod usher;
