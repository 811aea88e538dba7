//! Request -> NetPlan: everything that holds for all plugins is checked here, with every default filled in.
//!
//! In: `Request`. Out: `NetPlan`, or the error with its code. Must never: look at the world; it is pure.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::error;
use super::error::Error;
use super::fields::Fields;
use super::reply::Reply;
use super::request::Request;
use super::version::Version;

/// CNI's verbs but VERSION, which needs no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Is it still as ADD left it?
    Check,
    /// Could ADD be served?
    Status,
    /// Remove what no valid attachment owns.
    Gc,
}

/// What state is keyed by (contract rule 13). Id and interface are empty for GC and STATUS.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// CNI_CONTAINERID
    pub id: String,
    /// CNI_IFNAME
    pub ifname: String,
}

/// A checked request.
#[derive(Debug, Clone)]
pub struct NetPlan {
    /// The request itself, to be handed on to an IPAM plugin.
    pub request: Request,
    /// The verb.
    pub command: Command,
    /// Who is attached to what.
    pub attachment: Attachment,
    /// The container's network namespace; always there for ADD and CHECK.
    pub netns: Option<PathBuf>,
    /// Whether the namespace may be the caller's own.
    pub netns_override: bool,
    /// Where plugins lie.
    pub path: Vec<PathBuf>,
    /// `cniVersion`, which the answer has too.
    pub version: Version,
    /// The configuration, an object.
    pub config: Value,
    /// What the plugins before gave.
    pub previous: Option<Reply>,
    /// The same as it came, to be passed through.
    pub previous_raw: Option<Value>,
    /// Asked for by CNI_ARGS: addresses, gateways and a MAC.
    pub args: Args,
    /// GC: the attachments that stay.
    pub valid: Vec<Attachment>,
}

/// What CNI_ARGS may hold (contract rule 23).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Args {
    /// IP=: addresses, each perhaps with a prefix length.
    pub ips: Vec<String>,
    /// GATEWAY=
    pub gateways: Vec<IpAddr>,
    /// MAC=
    pub mac: Option<String>,
}

impl NetPlan {
    /// Checks a request.
    ///
    /// # Errors
    /// Codes 1, 4, 6 and 7 as the contract's rules 4 to 9 say.
    pub fn new(request: Request) -> Result<NetPlan, Error> {
        let command = command_of(&request.command)?;
        let config: Value = serde_json::from_slice(&request.stdin).map_err(|cause| {
            Error::new(error::DECODING_FAILURE, format!("the configuration on stdin is not JSON: {cause}"))
        })?;
        let fields = Fields::new(&config, "")?;
        let version = Version::parse(fields.text("cniVersion")?.unwrap_or_default())?;
        check_verb(command, version)?;
        let attachment = attachment_of(&request, command, &fields)?;
        if request.path.is_none() {
            return Err(missing("CNI_PATH"));
        }
        if request.netns.is_none() && matches!(command, Command::Add | Command::Check) {
            return Err(missing("CNI_NETNS"));
        }
        let previous_raw = fields.get("prevResult").cloned();
        let previous = previous_raw.as_ref().map(|raw| Reply::parse(raw, version)).transpose()?;
        if command == Command::Check && previous.is_none() {
            return Err(Error::new(error::INVALID_CONFIG, "CHECK needs field prevResult: what ADD answered"));
        }
        let valid =
            if command == Command::Gc { valid_attachments(&fields, &attachment.network)? } else { vec![] };
        Ok(NetPlan {
            command,
            attachment,
            netns: request.netns.as_ref().map(PathBuf::from),
            netns_override: matches!(request.netns_override.as_deref(), Some("1" | "true")),
            path: std::env::split_paths(request.path.as_deref().unwrap_or_default()).collect(),
            version,
            previous,
            previous_raw,
            args: parse_args(request.args.as_deref().unwrap_or_default())?,
            valid,
            config,
            request,
        })
    }

    /// The configuration for reading.
    ///
    /// # Errors
    /// Never after `new`.
    pub fn fields(&self) -> Result<Fields<'_>, Error> {
        Fields::new(&self.config, "")
    }

    /// The result of the plugins before, which a chained plugin can't do without on ADD.
    ///
    /// # Errors
    /// Code 7 when there is none.
    pub fn required_previous(&self) -> Result<&Reply, Error> {
        self.previous.as_ref().ok_or_else(|| {
            let message =
                "field prevResult is missing: this plugin must stand after one that makes an interface";
            Error::new(error::INVALID_CONFIG, message)
        })
    }

    /// prevResult as the answer, in the configuration's version (contract rule 11).
    ///
    /// # Errors
    /// Code 7 when there is none.
    pub fn pass_through(&self) -> Result<Value, Error> {
        let previous = self.required_previous()?;
        match &self.previous_raw {
            Some(raw) if raw["cniVersion"] == self.version.to_string() => Ok(raw.clone()),
            _ => previous.to_json(self.version),
        }
    }

    /// The MAC that is asked for: field mac, CNI_ARGS, then args.cni.mac, then runtimeConfig.mac, the last one wins
    /// (rule 23).
    ///
    /// # Errors
    /// Code 6 or 7 for a wrong one.
    pub fn wanted_mac(&self) -> Result<Option<[u8; 6]>, Error> {
        let own = self.fields()?;
        let mut wanted = own.text("mac")?.map(str::to_string);
        wanted = self.args.mac.clone().or(wanted);
        for object in self.callers_objects()? {
            wanted = object.text("mac")?.filter(|mac| !mac.is_empty()).map(str::to_string).or(wanted);
        }
        wanted.filter(|mac| !mac.is_empty()).map(|text| parse_mac(&text)).transpose()
    }

    /// Where a caller puts wishes into the configuration: args.cni, and before it runtimeConfig.
    ///
    /// # Errors
    /// Code 6.
    pub fn callers_objects(&self) -> Result<Vec<Fields<'_>>, Error> {
        let fields = self.fields()?;
        let args = fields.object("args")?.map(|args| args.object("cni")).transpose()?.flatten();
        Ok(args.into_iter().chain(fields.object("runtimeConfig")?).collect())
    }
}

fn command_of(command: &str) -> Result<Command, Error> {
    match command {
        "ADD" => Ok(Command::Add),
        "DEL" => Ok(Command::Del),
        "CHECK" => Ok(Command::Check),
        "STATUS" => Ok(Command::Status),
        "GC" => Ok(Command::Gc),
        other => Err(Error::new(
            error::INVALID_ENVIRONMENT,
            format!("CNI_COMMAND {other:?} is unknown; it is one of ADD, DEL, CHECK, STATUS, GC, VERSION"),
        )),
    }
}

fn check_verb(command: Command, version: Version) -> Result<(), Error> {
    let (name, since) = match command {
        Command::Check => ("CHECK", Version::V0_4_0),
        Command::Gc => ("GC", Version::V1_1_0),
        Command::Status => ("STATUS", Version::V1_1_0),
        Command::Add | Command::Del => return Ok(()),
    };
    if version >= since {
        return Ok(());
    }
    let message = format!("{name} needs cniVersion {since} or later; the configuration says {version}");
    Err(Error::new(error::INCOMPATIBLE_VERSION, message))
}

fn attachment_of(request: &Request, command: Command, fields: &Fields<'_>) -> Result<Attachment, Error> {
    let network = fields.text("name")?.unwrap_or_default().to_string();
    if !is_name(&network) {
        let message = format!(
            "field name: {network:?} is no network name: letters, digits, '_', '.', '-', first a letter or digit"
        );
        return Err(Error::new(error::INVALID_CONFIG, message));
    }
    if matches!(command, Command::Gc | Command::Status) {
        return Ok(Attachment { network, id: String::new(), ifname: String::new() });
    }
    let id = request.container_id.clone().ok_or_else(|| missing("CNI_CONTAINERID"))?;
    if !is_name(&id) {
        let message =
            format!("CNI_CONTAINERID {id:?}: letters, digits, '_', '.', '-', first a letter or digit");
        return Err(Error::new(error::INVALID_ENVIRONMENT, message));
    }
    let ifname = request.ifname.clone().ok_or_else(|| missing("CNI_IFNAME"))?;
    if !is_interface_name(&ifname) {
        let message = format!(
            "CNI_IFNAME {ifname:?}: 1 to 15 bytes, not '.' or '..', without '/', ':' and white space"
        );
        return Err(Error::new(error::INVALID_ENVIRONMENT, message));
    }
    Ok(Attachment { network, id, ifname })
}

fn valid_attachments(fields: &Fields<'_>, network: &str) -> Result<Vec<Attachment>, Error> {
    let mut valid = Vec::new();
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        for object in fields.objects(key)? {
            valid.push(Attachment {
                network: network.to_string(),
                id: object.text("containerID")?.unwrap_or_default().to_string(),
                ifname: object.text("ifname")?.unwrap_or_default().to_string(),
            });
        }
    }
    Ok(valid)
}

fn missing(variable: &str) -> Error {
    Error::new(error::INVALID_ENVIRONMENT, format!("the environment variable {variable} is missing"))
}

/// Container ids and network names (contract rule 5).
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Interface names (contract rule 5; dev_valid_name in the kernel).
pub fn is_interface_name(text: &str) -> bool {
    let wrong = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
    (1..=15).contains(&text.len()) && text != "." && text != ".." && !text.contains(wrong)
}

/// CNI_ARGS (contract rule 23): `K=V;K=V`; unknown keys are an error unless IgnoreUnknown is 1 or true.
fn parse_args(text: &str) -> Result<Args, Error> {
    let wrong = |message: String| Error::new(error::INVALID_ENVIRONMENT, message);
    let mut args = Args::default();
    let mut unknown = None;
    let mut ignore_unknown = false;
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| wrong(format!("CNI_ARGS: {pair:?} is not KEY=VALUE")))?;
        match key {
            "IP" | "GATEWAY" => {
                for item in value.split(',').map(str::trim) {
                    let bare = item.split_once('/').map_or(item, |(address, _)| address);
                    let address =
                        bare.parse().map_err(|_| wrong(format!("CNI_ARGS: {key} {item:?} is no address")))?;
                    if key == "IP" {
                        args.ips.push(item.to_string());
                    } else {
                        args.gateways.push(address);
                    }
                }
            }
            "MAC" => args.mac = Some(value.to_string()),
            "IgnoreUnknown" => ignore_unknown = matches!(value, "1" | "true"),
            other => unknown = unknown.or(Some(other)),
        }
    }
    match unknown {
        Some(key) if !ignore_unknown => {
            Err(wrong(format!("CNI_ARGS: {key:?} is unknown; IgnoreUnknown=1 lets unknown keys pass")))
        }
        _ => Ok(args),
    }
}

/// A MAC in its usual form.
///
/// # Errors
/// Code 7.
pub fn parse_mac(text: &str) -> Result<[u8; 6], Error> {
    let wrong =
        || Error::new(error::INVALID_CONFIG, format!("{text:?} is no MAC address such as 02:00:5e:00:00:01"));
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    if parts.next().is_some() || mac[0] & 1 != 0 { Err(wrong()) } else { Ok(mac) }
}

/// A MAC as text.
pub fn format_mac(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(command: &str, config: &Value) -> Request {
        Request {
            command: command.to_string(),
            container_id: Some("c1".to_string()),
            netns: Some("/run/netns/x".to_string()),
            ifname: Some("eth0".to_string()),
            path: Some("/opt/cni/bin".to_string()),
            stdin: config.to_string().into_bytes(),
            ..Request::default()
        }
    }

    fn config() -> Value {
        json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "prevResult": {"cniVersion": "1.1.0", "dns": {}}})
    }

    fn code(request: Request) -> u32 {
        NetPlan::new(request).map_or_else(|error| error.code, |_| 0)
    }

    #[test]
    fn rule_3_an_unknown_command_is_code_4() {
        assert_eq!(code(request("FOO", &config())), 4);
        assert_eq!(code(request("add", &config())), 4);
    }

    #[test]
    fn rule_4_each_verb_asks_for_its_variables() {
        let without = |command: &str, drop: fn(&mut Request)| {
            let mut request = request(command, &config());
            drop(&mut request);
            code(request)
        };
        for command in ["ADD", "CHECK", "DEL"] {
            assert_eq!(without(command, |r| r.container_id = None), 4, "{command}");
            assert_eq!(without(command, |r| r.ifname = None), 4, "{command}");
            assert_eq!(without(command, |r| r.path = None), 4, "{command}");
        }
        assert_eq!(without("ADD", |r| r.netns = None), 4);
        assert_eq!(without("CHECK", |r| r.netns = None), 4);
        assert_eq!(without("DEL", |r| r.netns = None), 0);
        for command in ["GC", "STATUS"] {
            assert_eq!(without(command, |r| (r.container_id, r.ifname, r.netns) = (None, None, None)), 0);
            assert_eq!(without(command, |r| r.path = None), 4);
        }
    }

    #[test]
    fn rule_5_ids_and_names_have_a_form() {
        for id in ["", "../x", "-a", "a b", "a/b", "ä"] {
            let mut wrong = request("ADD", &config());
            wrong.container_id = Some(id.to_string());
            assert_eq!(code(wrong), 4, "{id}");
        }
        for ifname in ["", ".", "..", "a/b", "a:b", "a b", "1234567890123456"] {
            let mut wrong = request("ADD", &config());
            wrong.ifname = Some(ifname.to_string());
            assert_eq!(code(wrong), 4, "{ifname}");
        }
        let mut long = request("ADD", &config());
        long.ifname = Some("123456789012345".to_string());
        assert_eq!(code(long), 0);
        for name in ["", "../net", "-n", "a b"] {
            assert_eq!(code(request("ADD", &json!({"cniVersion": "1.0.0", "name": name}))), 7, "{name}");
        }
    }

    #[test]
    fn rule_7_verbs_need_their_version_and_missing_is_0_1_0() {
        let with = |command: &str, version: Value| {
            let mut config = config();
            config["cniVersion"] = version;
            config["prevResult"] = Value::Null;
            if command == "CHECK" {
                config["prevResult"] = json!({"cniVersion": "1.1.0"});
            }
            code(request(command, &config))
        };
        assert_eq!(with("ADD", Value::Null), 0);
        assert_eq!(with("ADD", json!("9.9.9")), 1);
        assert_eq!(with("CHECK", json!("0.3.1")), 1);
        assert_eq!(with("CHECK", json!("0.4.0")), 0);
        assert_eq!(with("CHECK", Value::Null), 1);
        for command in ["GC", "STATUS"] {
            assert_eq!(with(command, json!("1.0.0")), 1);
            assert_eq!(with(command, json!("1.1.0")), 0);
        }
        let plan = NetPlan::new(request("ADD", &json!({"name": "n"}))).unwrap();
        assert_eq!(plan.version, Version::V0_1_0);
    }

    #[test]
    fn rule_11_prev_result_is_passed_through_in_the_configurations_version() {
        let mut config = config();
        config["prevResult"] = json!({"cniVersion": "1.1.0", "dns": {}, "xNew": 1});
        assert_eq!(NetPlan::new(request("ADD", &config)).unwrap().pass_through().unwrap()["xNew"], 1);
        config["prevResult"] =
            json!({"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.0.0.2/24"}]});
        let passed = NetPlan::new(request("ADD", &config)).unwrap().pass_through().unwrap();
        assert_eq!(passed["cniVersion"], "1.1.0");
        assert_eq!(passed["ips"][0], json!({"address": "10.0.0.2/24"}));
    }

    #[test]
    fn rule_16_check_needs_prev_result() {
        assert_eq!(code(request("CHECK", &json!({"cniVersion": "1.0.0", "name": "n"}))), 7);
    }

    #[test]
    fn rule_17_valid_attachments_come_under_two_keys() {
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let mut config = config();
            config[key] = json!([{"containerID": "a", "ifname": "eth0"}]);
            let plan = NetPlan::new(request("GC", &config)).unwrap();
            assert_eq!(plan.valid.len(), 1);
            assert_eq!((plan.valid[0].id.as_str(), plan.valid[0].network.as_str()), ("a", "net"));
        }
    }

    #[test]
    fn rule_23_cni_args_and_the_order_of_macs() {
        assert_eq!(parse_args("IP=10.0.0.5;MAC=02:00:00:00:00:01").unwrap().ips, ["10.0.0.5"]);
        let several = parse_args("IP=10.0.0.5/24,fd00::5/64;GATEWAY=10.0.0.1").unwrap();
        assert_eq!((several.ips.len(), several.gateways.len()), (2, 1));
        assert_eq!(parse_args("GATEWAY=x").unwrap_err().code, 4);
        assert_eq!(parse_args("FOO=1").unwrap_err().code, 4);
        assert!(parse_args("FOO=1;IgnoreUnknown=1").is_ok());
        assert!(parse_args("IgnoreUnknown=true;FOO=1").is_ok());
        assert!(parse_args("FOO=1;IgnoreUnknown=0").is_err());
        assert!(parse_args("FOO").is_err());
        let mut config = config();
        let mut request = request("ADD", &config);
        request.args = Some("MAC=02:00:00:00:00:01".to_string());
        let mac = |config: &Value, request: &Request| {
            let stdin = config.to_string().into_bytes();
            NetPlan::new(Request { stdin, ..request.clone() }).unwrap().wanted_mac().unwrap().unwrap()[5]
        };
        assert_eq!(mac(&config, &request), 1);
        config["args"] = json!({"cni": {"mac": "02:00:00:00:00:02"}});
        assert_eq!(mac(&config, &request), 2);
        config["runtimeConfig"] = json!({"mac": "02:00:00:00:00:03"});
        assert_eq!(mac(&config, &request), 3);
    }
}
