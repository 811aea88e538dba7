//! The compiled xtask as a process, in small checkouts with tiny sources and origins on the loopback: what it prints, its
//! exit status, and what it leaves behind when something is wrong.
#![allow(clippy::unwrap_used)] // a test may panic; outside a #[test] function clippy cannot tell

mod checkout;
mod disturbed;
mod fetch;
mod origin;
mod papers;
mod sources;
mod stages;
mod update;
mod verify;
mod words;
