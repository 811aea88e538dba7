//! ipvlan: another IP address on an interface of the host, with the container behind it.
//!
//! In: the plan; perhaps an interface and addresses of plugins before (prevResult). Out: the container's interface.
//! Must never: change its master.

use serde_json::Value;

use super::interface;
use super::interface::Driver;
use super::interface::Ends;
use super::master::Master;
use crate::error;
use crate::error::Error;
use crate::ipam;
use crate::plan::Command;
use crate::plan::NetPlan;
use crate::reply::Reply;
use netlink::link::Kind;
use netlink::link::Link;

struct Ipvlan {
    master: Master,
    mode: u16,
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
    let mode = match fields.text("mode")?.unwrap_or_default() {
        "" | "l2" => 0, // IPVLAN_MODE_*
        "l3" => 1,
        "l3s" => 2,
        other => {
            let message = format!("field mode: {other:?} is none of l2, l3, l3s");
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
    };
    let mut master = Master::read(&fields)?;
    // CHECK's prevResult is the result of the whole list, so it says nothing of a master.
    if let (None, Some(previous), Command::Add) = (&master.name, &plan.previous, plan.command) {
        let [only] = previous.interfaces.as_slice() else {
            let message = "field master is missing, and prevResult names no single interface to take";
            return Err(Error::new(error::INVALID_CONFIG, message));
        };
        master.name = Some(only.name.clone());
    }
    Ok(Box::new(Ipvlan { master, mode }))
}

impl Driver for Ipvlan {
    fn kind(&self) -> Option<&'static str> {
        Some("ipvlan")
    }

    fn make(&self, plan: &NetPlan, ends: &mut Ends) -> Result<Vec<String>, Error> {
        self.master.make(plan, ends, Kind::Ipvlan(self.mode), None)?;
        Ok(vec![])
    }

    fn detects_duplicates(&self) -> bool {
        true
    }

    /// Those of a plugin before, if IPAM is not to be asked.
    fn addresses(&self, plan: &NetPlan) -> Result<Reply, Error> {
        match &plan.previous {
            Some(previous) if ipam::kind(plan)?.is_none() => {
                Ok(Reply { interfaces: vec![], ..previous.clone() })
            }
            _ => ipam::add(plan),
        }
    }

    fn check(&self, _plan: &NetPlan, ends: &mut Ends, link: &Link, _reply: &Reply) -> Result<(), Error> {
        self.master.check(ends, link, "ipvlan mode", self.mode.into())
    }

    fn status(&self) -> Result<(), Error> {
        self.master.status()
    }
}
