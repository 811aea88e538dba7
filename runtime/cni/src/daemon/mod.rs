//! The supervised services of the network.
//!
//! In: attachments, packets. Out: answers. Must never: be needed for an ADD or DEL to succeed.

pub mod dns;
pub mod names;
pub mod resolv_conf;
pub mod resolver;
