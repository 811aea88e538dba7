//! macvlan: another link-layer address on an interface of the host, with the container behind it.
//!
//! In: the plan. Out: the container's interface. Must never: change its master.

use serde_json::Value;

use super::interface;
use super::interface::Driver;
use super::interface::Ends;
use super::master::Master;
use crate::error;
use crate::error::Error;
use crate::plan::NetPlan;
use crate::reply::Reply;
use netlink::link::Kind;
use netlink::link::Link;

struct Macvlan {
    master: Master,
    mode: u32,
    queue_len: Option<u32>,
    mac: Option<[u8; 6]>,
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
        "private" => 1, // MACVLAN_MODE_*
        "vepa" => 2,
        "" | "bridge" => 4,
        "passthru" => 8,
        other => {
            let message = format!("field mode: {other:?} is none of bridge, private, vepa, passthru");
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
    };
    let queue_len = fields.number("bcqueuelen")?.filter(|len| *len != 0);
    let master = Master::read(&fields)?;
    Ok(Box::new(Macvlan { master, mode, queue_len, mac: plan.wanted_mac()? }))
}

impl Driver for Macvlan {
    fn kind(&self) -> Option<&'static str> {
        Some("macvlan")
    }

    fn make(&self, plan: &NetPlan, ends: &mut Ends) -> Result<Vec<String>, Error> {
        self.master.make(plan, ends, Kind::Macvlan(self.mode, self.queue_len), self.mac)?;
        Ok(vec![])
    }

    fn detects_duplicates(&self) -> bool {
        true
    }

    fn check(&self, _plan: &NetPlan, ends: &mut Ends, link: &Link, _reply: &Reply) -> Result<(), Error> {
        self.master.check(ends, link, "macvlan mode", self.mode)
    }

    fn status(&self) -> Result<(), Error> {
        self.master.status()
    }
}
