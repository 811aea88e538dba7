//! vlan: a VLAN of an interface of the host, with the container in it.
//!
//! In: the plan. Out: the container's interface. Must never: change its master.

use serde_json::Value;

use super::interface;
use super::interface::Driver;
use super::interface::Ends;
use super::master::Master;
use crate::error::Error;
use crate::plan::NetPlan;
use crate::reply::Reply;
use netlink::link::Kind;
use netlink::link::Link;

struct Vlan {
    master: Master,
    id: u16,
}

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
pub fn read(plan: &NetPlan) -> Result<Box<dyn Driver>, Error> {
    let fields = plan.fields()?;
    let master = Master::read(&fields)?;
    fields.required("master", master.name.as_ref())?;
    Ok(Box::new(Vlan { master, id: fields.vlan("vlanId", 0)?.unwrap_or(0) }))
}

impl Driver for Vlan {
    fn kind(&self) -> Option<&'static str> {
        Some("vlan")
    }

    fn make(&self, plan: &NetPlan, ends: &mut Ends) -> Result<Vec<String>, Error> {
        self.master.make(plan, ends, Kind::Vlan(self.id), None)?;
        Ok(vec![])
    }

    fn detects_duplicates(&self) -> bool {
        true
    }

    fn check(&self, _plan: &NetPlan, ends: &mut Ends, link: &Link, _reply: &Reply) -> Result<(), Error> {
        self.master.check(ends, link, "VLAN", self.id.into())
    }

    fn status(&self) -> Result<(), Error> {
        self.master.status()
    }
}
