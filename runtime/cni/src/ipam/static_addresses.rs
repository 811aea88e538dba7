//! static: the addresses that the configuration or the caller names, and no others.
//!
//! In: fields `ipam.addresses`, `ipam.routes`, `ipam.dns`; CNI_ARGS, args.cni.ips, runtimeConfig.ips. Out: these.
//! Must never: keep anything; whether an address is free is for who names it.

use serde_json::Value;

use crate::error;
use crate::error::Error;
use crate::plan::Command;
use crate::plan::NetPlan;
use crate::reply::Dns;
use crate::reply::IpConfig;
use crate::reply::Reply;
use crate::reply::Route;

/// Reads what ADD is to do, and does none of it: for `runtime::fuzz`.
///
/// # Errors
/// Codes 6 and 7.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read_reply(plan: &NetPlan) -> Result<Reply, Error> {
    read(plan)
}

/// Runs a verb.
///
/// # Errors
/// Codes 6 and 7; 101 from CHECK.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    match plan.command {
        Command::Add => return read(plan)?.to_json(plan.version).map(Some),
        Command::Check => {
            let (wanted, reply) = (read(plan)?, plan.required_previous()?);
            let has = |ip: &IpConfig| reply.ips.iter().any(|told| told.address == ip.address);
            if let Some(lost) = wanted.ips.iter().find(|ip| !has(ip)) {
                let message = format!("static: the result has lost the address {}", lost.address);
                return Err(Error::new(error::CHECK_FAILED, message));
            }
        }
        Command::Status => drop(read(plan)?),
        Command::Del | Command::Gc => {} // nothing is kept
    }
    Ok(None)
}

fn read(plan: &NetPlan) -> Result<Reply, Error> {
    let fields = plan.fields()?;
    let ipam = fields.required("ipam", fields.object("ipam")?)?;
    let wrong = |message: String| Error::new(error::INVALID_CONFIG, message);
    // What runtimeConfig names takes the place of what args.cni names, and either that of all else.
    let mut asked = Vec::new();
    for object in plan.callers_objects()? {
        let ips = object.texts("ips")?;
        if !ips.is_empty() {
            asked = ips;
        }
    }
    let mut ips = Vec::new();
    if asked.is_empty() {
        for object in ipam.objects("addresses")? {
            let address = object.required("address", object.network("address")?)?;
            ips.push(IpConfig { interface: None, address, gateway: object.parsed("gateway", "an address")? });
        }
        asked.clone_from(&plan.args.ips);
    }
    for text in &asked {
        let address =
            text.trim().parse().map_err(|cause| wrong(format!("an address that is asked for: {cause}")))?;
        ips.push(IpConfig { interface: None, address, gateway: None });
    }
    for gateway in &plan.args.gateways {
        for ip in ips.iter_mut().filter(|ip| ip.address.contains(*gateway)) {
            ip.gateway = Some(*gateway);
        }
    }
    super::check_room(plan.version, &ips.iter().map(|ip| ip.address.address).collect::<Vec<_>>())?;
    let routes = ipam.objects("routes")?.iter().map(Route::parse).collect::<Result<_, _>>()?;
    let dns = ipam.object("dns")?.map(|dns| Dns::parse(&dns)).transpose()?.unwrap_or_default();
    Ok(Reply { interfaces: vec![], ips, routes, dns })
}
