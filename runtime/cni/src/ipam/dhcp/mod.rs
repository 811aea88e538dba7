//! dhcp: an address from the network's own DHCP server. A daemon (`dhcp daemon`) asks for it, asks for it to go on, and
//! gives it back; this is the plugin that tells the daemon what to do.
//!
//! In: fields `daemonSocketPath`, `request`, `provide`, `suppress`, `priority` of `ipam`. Out: address, routes, name servers.
//! Must never: keep anything itself.
//!
//! They speak JSON over the socket, one question and one answer a connection; the reference's is Go's own form.
//! IPv6 is the kernel's part: an interface takes its address from router advertisements.

pub mod daemon;
pub mod message;

mod client;
mod lease_file;

use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;
use serde_json::json;

use crate::error;
use crate::error::Error;
use crate::fields::Fields;
use crate::plan::Attachment;
use crate::plan::Command;
use crate::plan::NetPlan;
use crate::reply::Reply;
use crate::version::Version;

const SOCKET: &str = "/run/cni/dhcp.sock";
const VALUE_LEN_MAX: usize = 255;
/// dhcp-options(5)'s names that the reference knows.
const OPTION_NAMES: [(&str, u8); 6] = [
    ("dhcp-client-identifier", message::CLIENT_ID),
    ("subnet-mask", message::SUBNET_MASK),
    ("routers", message::ROUTER),
    ("host-name", 12),
    ("user-class", 77),
    ("vendor-class-identifier", 60),
];

/// Options and their values.
pub(crate) type Options = Vec<(u8, Vec<u8>)>;

/// Reads what ADD is to do, and does none of it: for `runtime::fuzz`.
///
/// # Errors
/// Codes 6 and 7.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read(plan: &NetPlan) -> Result<Options, Error> {
    let fields = plan.fields()?;
    let ipam = fields.required("ipam", fields.object("ipam")?)?;
    ipam.text("daemonSocketPath")?;
    adjust(&ipam, &mut plan.previous.clone().unwrap_or_default())?;
    options_of(plan)
}

/// Runs a verb.
///
/// # Errors
/// Codes 5 to 7; 50 from STATUS; 101 from CHECK; the daemon's.
pub fn run(plan: &NetPlan) -> Result<Option<Value>, Error> {
    let fields = plan.fields()?;
    let ipam = fields.required("ipam", fields.object("ipam")?)?;
    let socket = ipam.text("daemonSocketPath")?.filter(|path| !path.is_empty()).unwrap_or(SOCKET);
    let ask = |verb: &str, more: Value| ask(Path::new(socket), verb, &plan.attachment, more);
    match plan.command {
        Command::Add => {
            let netns = std::path::absolute(plan.netns.clone().unwrap_or_default());
            let netns = netns.map_err(|cause| Error::failed("CNI_NETNS", cause))?;
            let options = json!(options_of(plan)?);
            let answer = ask("ADD", json!({"netns": netns.to_string_lossy(), "options": options}))?;
            let mut reply = Reply::parse(&answer, Version::V1_1_0)?;
            adjust(&ipam, &mut reply)?;
            return reply.to_json(plan.version).map(Some);
        }
        Command::Check => {
            options_of(plan)?;
            let lease = Reply::parse(&ask("CHECK", Value::Null)?, Version::V1_1_0)?;
            let told = &plan.required_previous()?.ips;
            if let Some(ip) = lease.ips.iter().find(|ip| !told.iter().any(|told| told.address == ip.address))
            {
                let message = format!("dhcp: the lease is of {}, which the result lacks", ip.address);
                return Err(Error::new(error::CHECK_FAILED, message));
            }
        }
        Command::Status => {
            options_of(plan)?;
            adjust(&ipam, &mut Reply::default())?;
            ask("STATUS", Value::Null).map_err(|error| Error { code: error::NOT_AVAILABLE, ..error })?;
        }
        Command::Del | Command::Gc => {
            let valid: Vec<Value> = plan.valid.iter().map(|keep| json!([keep.id, keep.ifname])).collect();
            let verb = if plan.command == Command::Del { "DEL" } else { "GC" };
            match ask(verb, json!({"valid": valid})) {
                // Without its daemon nobody renews a lease: it ends by itself.
                Err(error) if error.code == error::IO_FAILURE => {
                    drop(writeln!(std::io::stderr(), "dhcp: warning: {error}"))
                }
                other => drop(other?),
            }
        }
    }
    Ok(None)
}

/// Fields `suppress` and `priority`: no way out, or routes of another metric.
fn adjust(ipam: &Fields<'_>, reply: &mut Reply) -> Result<(), Error> {
    for word in ipam.texts("suppress")? {
        if word != "gateway" {
            let message = format!("field {}: {word:?} is unknown, only \"gateway\"", ipam.path("suppress"));
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        reply.ips.iter_mut().for_each(|ip| ip.gateway = None);
        reply.routes.retain(|route| route.dst.prefix != 0);
    }
    if let Some(priority) = ipam.number("priority")?.filter(|priority| *priority != 0) {
        reply.routes.iter_mut().for_each(|route| route.priority = Some(priority));
    }
    Ok(())
}

/// Asks the daemon.
fn ask(socket: &Path, verb: &str, attachment: &Attachment, more: Value) -> Result<Value, Error> {
    let Attachment { network, id, ifname } = attachment;
    let question = json!({"verb": verb, "network": network, "id": id, "ifname": ifname, "more": more});
    let talk = || -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(question.to_string().as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let failed = |cause: &dyn std::fmt::Display| {
        let message = format!("the DHCP daemon at {}: {cause}; `dhcp daemon` is to run", socket.display());
        Error::new(error::IO_FAILURE, message)
    };
    let answer = talk().map_err(|cause| failed(&cause))?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|cause| failed(&cause))?;
    match answer["code"].as_u64().and_then(|code| u32::try_from(code).ok()) {
        Some(code) => Err(Error::new(code, answer["msg"].as_str().unwrap_or_default())),
        None => Ok(answer),
    }
}

/// Client identifier, the parameter list, and what the configuration provides.
fn options_of(plan: &NetPlan) -> Result<Options, Error> {
    let fields = plan.fields()?;
    let ipam = fields.required("ipam", fields.object("ipam")?)?;
    let Attachment { network, id, ifname } = &plan.attachment;
    let mut identifier = vec![0]; // type: no hardware address
    identifier.extend(format!("{id}/{network}/{ifname}").bytes().take(VALUE_LEN_MAX - 1));
    let mut options = vec![(message::CLIENT_ID, identifier)];
    for item in ipam.objects("provide")? {
        let number =
            option_number(&item.required("option", item.get("option"))?.clone(), &item.path("option"))?;
        let mut value = item.text("value")?.unwrap_or_default();
        if let Some(key) = item.text("fromArg")?.filter(|key| !key.is_empty()) {
            let pairs = plan.request.args.as_deref().unwrap_or_default().split(';');
            let found = pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key);
            value = found.map_or(value, |(_, value)| value);
        }
        if value.len() > VALUE_LEN_MAX {
            let message = format!("field {}: more than {VALUE_LEN_MAX} bytes", item.path("value"));
            return Err(Error::new(error::INVALID_CONFIG, message));
        }
        if !value.is_empty() {
            options.retain(|(there, _)| *there != number);
            options.push((number, value.as_bytes().to_vec()));
        }
    }
    let mut wanted = Vec::new();
    let mut with_defaults = true;
    for item in ipam.objects("request")? {
        with_defaults &= !item.flag("skipDefault")?;
        if let Some(option) = item.get("option") {
            wanted.push(option_number(option, &item.path("option"))?);
        }
    }
    for default in [message::SUBNET_MASK, message::ROUTER] {
        if with_defaults && !wanted.contains(&default) {
            wanted.push(default);
        }
    }
    options.push((message::PARAMETER_LIST, wanted));
    Ok(options)
}

fn option_number(value: &Value, path: &str) -> Result<u8, Error> {
    let named = |text: &str| OPTION_NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    let number = match value {
        Value::String(text) => named(text).or_else(|| text.parse().ok()),
        other => other.as_u64().and_then(|number| u8::try_from(number).ok()),
    };
    number.ok_or_else(|| {
        let names: Vec<&str> = OPTION_NAMES.iter().map(|(name, _)| *name).collect();
        let message =
            format!("field {path}: {value} is neither a number to 255 nor one of {}", names.join(", "));
        Error::new(error::INVALID_CONFIG, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    fn options(ipam: Value, args: &str) -> Result<Options, Error> {
        let config = json!({"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "ipam": ipam});
        let plan = NetPlan::new(Request { args: Some(args.to_string()), ..Request::to_add(&config) })?;
        options_of(&plan)
    }

    #[test]
    fn rule_36_the_client_is_known_by_id_network_and_interface() {
        let plain = options(json!({"type": "dhcp"}), "").unwrap();
        assert_eq!(plain, [(61, b"\0c/net/eth0".to_vec()), (55, vec![1, 3])]);
    }

    #[test]
    fn options_are_asked_for_and_provided_by_name_and_number() {
        let ipam = json!({"request": [{"skipDefault": true}, {"option": "routers"}, {"option": 121}, {"option": "6"}],
            "provide": [{"option": "host-name", "fromArg": "NAME"}, {"option": "12", "value": "later"},
                {"option": "dhcp-client-identifier", "value": "me"}]});
        let got = options(ipam, "IgnoreUnknown=1;NAME=web").unwrap();
        assert_eq!(got, [(12, b"later".to_vec()), (61, b"me".to_vec()), (55, vec![3, 121, 6])]);
        assert_eq!(options(json!({"request": [{"option": "nope"}]}), "").unwrap_err().code, 7);
        let long = json!({"provide": [{"option": 12, "value": "x".repeat(256)}]});
        assert_eq!(options(long, "").unwrap_err().code, 7);
    }

    #[test]
    fn the_way_out_is_left_out_and_routes_get_their_metric() {
        let told = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}, {"dst": "10.9.0.0/16", "gw": "10.0.0.9"}]});
        let adjusted = |ipam: Value| {
            let mut reply = Reply::parse(&told, Version::V1_1_0).unwrap();
            adjust(&Fields::new(&ipam, "ipam").unwrap(), &mut reply).map(|()| reply)
        };
        let reply = adjusted(json!({"suppress": ["gateway"], "priority": 7})).unwrap();
        assert_eq!((reply.ips[0].gateway, reply.routes.len(), reply.routes[0].priority), (None, 1, Some(7)));
        assert_eq!(adjusted(json!({})).unwrap().routes.len(), 2);
        assert_eq!(adjusted(json!({"suppress": ["dns"]})).unwrap_err().code, 7);
    }

    #[test]
    fn without_a_daemon_the_error_says_what_to_start() {
        let attachment = Attachment { network: "n".into(), id: "c".into(), ifname: "eth0".into() };
        let error = ask(Path::new("/nonexistent/dhcp.sock"), "STATUS", &attachment, Value::Null).unwrap_err();
        assert!(error.message.contains("dhcp daemon"), "{error}");
    }
}
