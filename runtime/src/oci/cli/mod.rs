//! runc's command line, one file a verb.
//!
//! In: arguments. Out: what the verb is to do, checked. Must never: do a topic's work itself.

pub mod events;
pub mod update;
