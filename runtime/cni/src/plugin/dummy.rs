//! dummy: an interface with nothing behind it, for addresses that the container shall have anyway.
//!
//! In: the plan. Out: the container's interface. Must never: touch the host.

use serde_json::Value;

use super::interface;
use super::interface::Driver;
use super::interface::Ends;
use crate::error::Error;
use crate::plan::NetPlan;
use netlink::link::Kind;
use netlink::link::NewLink;

struct Dummy;

/// Runs a verb.
///
/// # Errors
/// As `interface::run`.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    interface::run(plan, read)
}

/// Reads the plugin's own fields.
///
/// # Errors
/// Codes 6 and 7.
pub fn read(_plan: &NetPlan) -> Result<Box<dyn Driver>, Error> {
    Ok(Box::new(Dummy))
}

impl Driver for Dummy {
    fn kind(&self) -> Option<&'static str> {
        Some("dummy")
    }

    fn make(&self, plan: &NetPlan, ends: &mut Ends) -> Result<Vec<String>, Error> {
        interface::create(plan, ends, true, &NewLink::new(Kind::Dummy, ""))?;
        Ok(vec![])
    }

    fn needs_addresses(&self) -> bool {
        true
    }
}
