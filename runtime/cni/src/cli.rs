//! The command line of `cni`. In: words, the OCI state on standard input, CNI_PATH and NETCONFPATH. Out: what the runtime
//! side is to do, checked; results and tables on standard output. Must never: call a plugin itself.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::io::Read;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::path::PathBuf;

use clap::Args;
use clap::FromArgMatches;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::attach;
use super::attach::Site;
use super::attach::Wish;
use super::cache::Cache;
use super::cache::Cached;
use super::cache::Record;
use super::daemon::names::ALIASES;
use super::daemon::resolver;
use super::error;
use super::error::Error;
use super::list::Networks;
use super::plan::Attachment;
use super::plan::is_name;
use super::plan::parse_mac;
use super::ports;
use super::reply::Reply;
use super::tool;

const NAME: &str = "cni";
const CONF_DIR: &str = "/etc/cni/net.d";
const PLUGIN_PATH: &str = "/opt/cni/bin";
const CACHE_DIR: &str = "/var/lib/cni";
/// An OCI state is a few hundred bytes and the annotations.
const STATE_BYTES_MAX: u64 = 1 << 20;

/// Attaches containers to networks by the Container Network Interface.
///
/// Networks are configuration lists in /etc/cni/net.d (or the folder NETCONFPATH); plugins lie in /opt/cni/bin (or
/// the folders CNI_PATH).
#[derive(Debug, Parser)]
#[command(name = NAME, disable_version_flag = true, subcommand_required = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Adds the arguments of a command to it.
type Arguments = fn(clap::Command) -> clap::Command;

/// The commands' arguments by name.
const VERBS: [(&str, Arguments); 9] = [
    ("attach", Attach::augment_args),
    ("detach", Who::augment_args),
    ("add", Tool::augment_args),
    ("del", Tool::augment_args),
    ("check", Who::augment_args),
    ("list", List::augment_args),
    ("gc", Chosen::augment_args),
    ("resolver", ResolverArgs::augment_args),
    ("status", Chosen::augment_args),
];

/// Reads the command line.
///
/// # Errors
/// clap's, which print themselves; help is one of them.
pub fn parse(argv: Vec<OsString>) -> Result<Verb, clap::Error> {
    let asks_for_help = argv.iter().any(|word| word == "--help" || word == "-h");
    let called = VERBS.iter().find(|(name, _)| argv.get(1).is_some_and(|word| word == name));
    let Some((name, arguments)) = called.filter(|_| !asks_for_help) else {
        return Cli::try_parse_from(argv).map(|cli| cli.verb);
    };
    // To make the arguments of all commands takes longer than all the rest of a start; to free them one by one is time for
    // nothing.
    let command = clap::Command::new(NAME).disable_version_flag(true).subcommand_required(true);
    let mut command = ManuallyDrop::new(command.subcommand(arguments(clap::Command::new(*name))));
    let mut words = command.try_get_matches_from_mut(argv)?;
    Verb::from_arg_matches_mut(&mut words)
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Attach a container to networks, and print the results
    ///
    /// The container is told by its OCI state on standard input, as a createRuntime hook gets it (`runc spec --network
    /// NAME` writes that hook), or by --id and --netns.
    ///
    /// Example: cni attach default --id web --netns /run/netns/web --publish 8080:80
    Attach(Attach),
    /// Attach the namespace at a path to a network, as cnitool does, and print the result
    ///
    /// CAP_ARGS holds capabilities as JSON, CNI_ARGS pairs of KEY=VALUE, CNI_IFNAME the interface's name [eth0].
    ///
    /// Example: cni add default /run/netns/web
    Add(Tool),
    /// Detach the namespace at a path from a network, as cnitool does
    ///
    /// Example: cni del default /run/netns/web
    Del(Tool),
    /// Detach a container from networks; from all of its networks when none is named
    ///
    /// What is gone already is no error.
    ///
    /// Example: cni detach --id web
    Detach(Who),
    /// Tell whether a container's attachments are still as they were made
    ///
    /// With a network and a namespace's path, as cnitool does: cni check default /run/netns/web
    ///
    /// Example: cni check --id web
    Check(Who),
    /// List networks, and the containers attached to them
    ///
    /// Example: cni list -f json
    List(List),
    /// Take back what belongs to containers that are gone
    ///
    /// With a network and a namespace's path, as cnitool does, ALL of the network's attachments: cni gc default /run/netns/web
    ///
    /// Example: cni gc
    Gc(Chosen),
    /// Answer containers that ask for each other's names, until it is ended
    ///
    /// The image runs it as a service. It listens on the gateways of networks that have containers, and writes
    /// /run/cni/resolv/NETWORK.conf for each network.
    ///
    /// Example: cni resolver --write-only
    Resolver(ResolverArgs),
    /// Tell whether networks can take containers; exit status 1 when one can't
    ///
    /// With a network and a namespace's path, as cnitool does: cni status default /run/netns/web
    ///
    /// Example: cni status default
    Status(Chosen),
}

/// A network and a namespace.
#[derive(Debug, clap::Args)]
pub struct Tool {
    /// The network
    network: String,
    /// The path of the network namespace
    netns: String,
}

impl Verb {
    /// What the reference's own tool is told by the same words, if it would understand them: the second is a path.
    pub fn as_tool(&self) -> Option<(tool::Verb, &str, &str)> {
        let (verb, words) = match self {
            Verb::Add(args) => return Some((tool::Verb::Add, &args.network, &args.netns)),
            Verb::Del(args) => return Some((tool::Verb::Del, &args.network, &args.netns)),
            Verb::Check(who) => (tool::Verb::Check, &who.networks),
            Verb::Gc(chosen) => (tool::Verb::Gc, &chosen.networks),
            Verb::Status(chosen) => (tool::Verb::Status, &chosen.networks),
            Verb::Attach(_) | Verb::Detach(_) | Verb::List(_) | Verb::Resolver(_) => return None,
        };
        match words.as_slice() {
            [network, netns] if tool::is_path(netns) => Some((verb, network, netns)),
            _ => None,
        }
    }
}

/// A container and networks.
#[derive(Debug, clap::Args)]
pub struct Who {
    /// Networks
    #[arg(value_name = "NETWORK")]
    networks: Vec<String>,
    /// The container's id, instead of a state on standard input
    #[arg(long)]
    id: Option<String>,
    /// The path of the container's network namespace
    #[arg(long, value_name = "PATH", requires = "id")]
    netns: Option<String>,
    /// Name of the interface in the container, one for each network [default: eth0, eth1, ...]
    #[arg(long, value_name = "NAME")]
    ifname: Vec<String>,
}

/// What `attach` takes besides.
#[derive(Debug, clap::Args)]
pub struct Attach {
    #[command(flatten)]
    who: Who,
    /// Let the host's port lead to the container's, tcp unless said otherwise; repeatable
    #[arg(long, value_name = "[ADDRESS:]HOST:CONTAINER[/PROTOCOL]")]
    publish: Vec<String>,
    /// Another name for the container on its networks, besides its id; repeatable
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Ask for this address; repeatable
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<String>,
    /// Ask for this MAC
    #[arg(long)]
    mac: Option<String>,
}

/// Options of `list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Form of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// Forms of `list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Options of `resolver`.
#[derive(Debug, clap::Args)]
pub struct ResolverArgs {
    /// Write each network's resolv.conf, and end
    #[arg(long)]
    write_only: bool,
}

/// Networks, or all.
#[derive(Debug, clap::Args)]
pub struct Chosen {
    /// Only these networks
    #[arg(value_name = "NETWORK")]
    networks: Vec<String>,
}

/// Runs a verb.
///
/// # Errors
/// Every one that happened.
pub fn run(verb: Verb) -> Result<(), Vec<Error>> {
    let site = site();
    if let Some((verb, network, netns)) = verb.as_tool() {
        let text = tool::run(&site, verb, network, netns)?;
        return print(&text).map_err(|error| vec![error]);
    }
    match verb {
        // The two are the tool's in any case.
        Verb::Add(_) | Verb::Del(_) => Ok(()),
        Verb::Attach(args) => attach_all(&site, &args),
        Verb::Detach(who) => detach_all(&site, &who),
        Verb::Check(who) => check_all(&site, &who),
        Verb::List(args) => list(&site, args.format).map_err(|error| vec![error]),
        Verb::Gc(chosen) => gc(&site, &chosen.networks),
        Verb::Resolver(args) => {
            let done = if args.write_only { resolver::write_files(&site) } else { resolver::run(&site) };
            done.map_err(|error| vec![error])
        }
        Verb::Status(chosen) => status(&site, &chosen.networks),
    }
}

/// Where things lie, by the variables that CNI's own tool reads.
pub fn site() -> Site {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Site {
        conf_dir: variable("NETCONFPATH").map_or_else(|| PathBuf::from(CONF_DIR), PathBuf::from),
        plugin_path: variable("CNI_PATH").unwrap_or_else(|| PLUGIN_PATH.to_string()),
        cache: Cache::new(CACHE_DIR.as_ref()),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(error::INVALID_ENVIRONMENT, message)
}

impl Who {
    /// The container's id and the path of its network namespace.
    fn container(&self) -> Result<(String, Option<String>), Error> {
        if let Some(id) = &self.id {
            return Ok((id.clone(), self.netns.clone()));
        }
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            return Err(invalid(
                "which container? Give --id ID (and --netns PATH to attach it), or its OCI state on standard input: runc state ID | cni ...",
            ));
        }
        let mut text = Vec::new();
        let read = stdin.lock().take(STATE_BYTES_MAX).read_to_end(&mut text);
        read.map_err(|cause| invalid(format!("standard input can't be read: {cause}")))?;
        container_of_state(&text)
    }

    /// The interface's name for the network number `index`.
    fn ifname(&self, index: usize) -> String {
        self.ifname.get(index).cloned().unwrap_or_else(|| format!("eth{index}"))
    }

    fn check_names(&self) -> Result<(), Error> {
        if self.ifname.len() > self.networks.len() {
            return Err(invalid(format!(
                "--ifname is given {} times for {} networks",
                self.ifname.len(),
                self.networks.len()
            )));
        }
        Ok(())
    }

    /// The attachments that are meant: those of the named networks, or all that the container has.
    fn attachments(&self, site: &Site, id: &str) -> Result<Vec<Attachment>, Error> {
        self.check_names()?;
        if self.networks.is_empty() {
            let Cached { records, broken } = site.cache.all()?;
            warn(broken.iter().map(|(_, error)| error));
            let mine = records.into_iter().map(|record| record.attachment);
            return Ok(mine.filter(|attachment| attachment.id == id).collect());
        }
        let numbered = self.networks.iter().enumerate();
        Ok(numbered
            .map(|(index, network)| Attachment {
                network: network.clone(),
                id: id.to_string(),
                ifname: self.ifname(index),
            })
            .collect())
    }
}

/// Of an OCI state (runtime.md, "State") id and network namespace; a container that has ended has none.
fn container_of_state(text: &[u8]) -> Result<(String, Option<String>), Error> {
    let wrong = |problem: &str| {
        Error::new(error::DECODING_FAILURE, format!("the OCI state on standard input: {problem}"))
    };
    let value: Value = serde_json::from_slice(text).map_err(|cause| wrong(&format!("not JSON: {cause}")))?;
    let id = value["id"].as_str().ok_or_else(|| wrong("field id is missing"))?;
    let pid = value["pid"].as_u64().filter(|pid| *pid != 0 && value["status"] != "stopped");
    Ok((id.to_string(), pid.map(|pid| format!("/proc/{pid}/ns/net"))))
}

impl Attach {
    fn capabilities(&self) -> Result<Map<String, Value>, Error> {
        let mut capabilities = Map::new();
        if !self.publish.is_empty() {
            let ports: Result<Vec<Value>, Error> =
                self.publish.iter().map(|text| ports::parse(text)).collect();
            capabilities.insert("portMappings".to_string(), Value::Array(ports?));
        }
        for address in &self.ip {
            let bare = address.split_once('/').map_or(address.as_str(), |(bare, _)| bare);
            bare.parse::<std::net::IpAddr>()
                .map_err(|_| invalid(format!("--ip {address}: not an address")))?;
        }
        if !self.ip.is_empty() {
            capabilities.insert("ips".to_string(), json!(self.ip));
        }
        if let Some(mac) = &self.mac {
            parse_mac(mac).map_err(|error| invalid(format!("--mac: {}", error.message)))?;
            capabilities.insert("mac".to_string(), json!(mac));
        }
        Ok(capabilities)
    }
}

/// Everything is looked up before the first network is attached; a failure takes back those before it.
fn attach_all(site: &Site, args: &Attach) -> Result<(), Vec<Error>> {
    let prepare = || {
        if args.who.networks.is_empty() {
            return Err(invalid("which network? `cni list` shows them"));
        }
        args.who.check_names()?;
        let mut capabilities = args.capabilities()?;
        if !capabilities.is_empty() && args.who.networks.len() > 1 {
            return Err(invalid(
                "--publish, --ip and --mac are for one network: attach to the others separately",
            ));
        }
        if let Some(wrong) = args.alias.iter().find(|alias| !is_name(alias)) {
            return Err(invalid(format!(
                "--alias {wrong}: letters, digits, '_', '.', '-', first a letter or digit"
            )));
        }
        if !args.alias.is_empty() {
            capabilities.insert(ALIASES.to_string(), json!(args.alias));
        }
        let networks = Networks::load(&site.conf_dir)?;
        let lists: Result<Vec<_>, Error> =
            args.who.networks.iter().map(|name| networks.find(name, &site.conf_dir).cloned()).collect();
        let lists = lists?;
        let (id, netns) = args.who.container()?;
        if netns.is_none() {
            return Err(invalid(format!(
                "container {id} has no network namespace: it has ended, or --netns is missing"
            )));
        }
        Ok((lists, Wish { id, netns, capabilities, ..Wish::default() }))
    };
    let (lists, wish) = prepare().map_err(|error| vec![error])?;
    let mut done = Vec::new();
    let mut results = Vec::new();
    for (index, list) in lists.iter().enumerate() {
        let wish = Wish { ifname: args.who.ifname(index), ..wish.clone() };
        match attach::add(site, list, &wish) {
            Ok(result) => results.push(result),
            Err(error) => {
                let mut errors = vec![error];
                for attachment in done.iter().rev() {
                    errors.extend(attach::del(site, attachment, None, &Wish::default()).err());
                }
                return Err(errors);
            }
        }
        done.push(Attachment { network: list.name.clone(), id: wish.id.clone(), ifname: wish.ifname });
    }
    let mut text = String::new();
    for result in results {
        text += &pretty(&result);
    }
    print(&text).map_err(|error| vec![error])
}

fn detach_all(site: &Site, who: &Who) -> Result<(), Vec<Error>> {
    let prepare = || {
        let networks = Networks::load(&site.conf_dir)?;
        let (id, netns) = who.container()?;
        Ok((who.attachments(site, &id)?, networks, Wish { id, netns, ..Wish::default() }))
    };
    let (attachments, networks, wish) = prepare().map_err(|error| vec![error])?;
    let mut errors = Vec::new();
    for attachment in attachments.iter().rev() {
        let list = networks.lists.iter().find(|list| list.name == attachment.network);
        // A hook comes after failed attaches too, and the reason has been told by then; a person may have misspelt it.
        let by_hook = who.id.is_none();
        if by_hook && list.is_none() && matches!(site.cache.read(attachment), Ok(None)) {
            continue;
        }
        errors.extend(attach::del(site, attachment, list, &wish).err());
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn check_all(site: &Site, who: &Who) -> Result<(), Vec<Error>> {
    let attachments = who.container().and_then(|(id, _)| {
        let attachments = who.attachments(site, &id)?;
        if attachments.is_empty() {
            let message = format!("container {id} is attached to no network");
            return Err(Error::new(error::UNKNOWN_CONTAINER, message));
        }
        Ok(attachments)
    });
    let attachments = attachments.map_err(|error| vec![error])?;
    let errors: Vec<Error> =
        attachments.iter().filter_map(|attachment| attach::check(site, attachment).err()).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn list(site: &Site, format: Format) -> Result<(), Error> {
    let networks = Networks::load(&site.conf_dir)?;
    let Cached { records, broken } = site.cache.all()?;
    let text = match format {
        Format::Table => table(&networks, &records),
        Format::Json => pretty(&as_json(&networks, &records)),
    };
    print(&text)?;
    warn(networks.broken.iter().chain(broken.iter().map(|(_, error)| error)));
    Ok(())
}

fn table(networks: &Networks, records: &[Record]) -> String {
    let mut rows = vec![["NETWORK".to_string(), "PLUGINS".to_string(), "FILE".to_string()]];
    for list in &networks.lists {
        rows.push([list.name.clone(), list.kinds().join(","), list.path.display().to_string()]);
    }
    let mut text = columns(&rows);
    text.push('\n');
    if records.is_empty() {
        return text + "no container is attached\n";
    }
    let mut rows = vec![["NETWORK", "CONTAINER", "INTERFACE", "ADDRESSES", "PORTS"].map(str::to_string)];
    for record in records {
        let shown = |texts: Vec<String>| if texts.is_empty() { "-".to_string() } else { texts.join(",") };
        let Attachment { network, id, ifname } = record.attachment.clone();
        rows.push([network, id, ifname, shown(addresses(record)), shown(published(record))]);
    }
    text + &columns(&rows)
}

fn as_json(networks: &Networks, records: &[Record]) -> Value {
    let lists = networks.lists.iter().map(|list| {
        json!({"name": list.name, "cniVersion": list.version.to_string(), "plugins": list.kinds(),
            "file": list.path.display().to_string()})
    });
    let attachments = records.iter().map(|record| {
        json!({"network": record.attachment.network, "containerID": record.attachment.id,
            "ifname": record.attachment.ifname, "netns": record.netns, "addresses": addresses(record),
            "portMappings": record.capabilities.get("portMappings").cloned().unwrap_or_else(|| json!([]))})
    });
    json!({"networks": lists.collect::<Vec<_>>(), "attachments": attachments.collect::<Vec<_>>()})
}

/// The container's own addresses: a result may also hold those of interfaces on the host.
fn addresses(record: &Record) -> Vec<String> {
    let reply = record.result.as_ref().and_then(|result| Reply::parse(result, record.list.version).ok());
    let Some(reply) = reply else { return Vec::new() };
    let own = |index: Option<u32>| {
        let interface = index.and_then(|index| reply.interfaces.get(usize::try_from(index).ok()?));
        interface.is_none_or(|interface| interface.name == record.attachment.ifname)
    };
    reply.ips.iter().filter(|ip| own(ip.interface)).map(|ip| ip.address.to_string()).collect()
}

fn published(record: &Record) -> Vec<String> {
    let ports = record.capabilities.get("portMappings").and_then(Value::as_array);
    ports.into_iter().flatten().map(ports::show).collect()
}

fn gc(site: &Site, chosen: &[String]) -> Result<(), Vec<Error>> {
    let networks = Networks::load(&site.conf_dir).map_err(|error| vec![error])?;
    let taken = attach::gc(site, &networks, chosen, Record::is_alive)?;
    let lines: Vec<String> = taken
        .iter()
        .map(|Attachment { network, id, ifname }| {
            format!("{network}: took back {ifname} of {id}, which is gone\n")
        })
        .collect();
    print(&lines.concat()).map_err(|error| vec![error])
}

fn status(site: &Site, chosen: &[String]) -> Result<(), Vec<Error>> {
    let load = || {
        let networks = Networks::load(&site.conf_dir)?;
        if chosen.is_empty() {
            return Ok((networks.lists, networks.broken));
        }
        let lists: Result<Vec<_>, Error> =
            chosen.iter().map(|name| networks.find(name, &site.conf_dir).cloned()).collect();
        Ok((lists?, Vec::new()))
    };
    let (lists, mut errors) = load().map_err(|error| vec![error])?;
    let mut ready = String::new();
    for list in lists {
        match attach::status(site, &list) {
            Ok(()) => ready += &format!("{}: ready\n", list.name),
            Err(error) => errors.push(error),
        }
    }
    print(&ready).map_err(|error| vec![error])?;
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn warn<'a>(errors: impl Iterator<Item = &'a Error>) {
    for error in errors {
        drop(writeln!(std::io::stderr(), "cni: warning: {error}"));
    }
}

fn pretty(value: &Value) -> String {
    // A value of strings and numbers always becomes text.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("   ").trim_end();
        text.push('\n');
    }
    text
}

fn print(text: &str) -> Result<(), Error> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // `| head` is no failure.
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(error::IO_FAILURE, format!("standard output: {cause}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::NetworkList;
    use std::path::Path;

    #[test]
    fn a_hooks_state_names_the_container_and_its_namespace() {
        let state = br#"{"ociVersion":"1.2.0","id":"web","pid":7,"status":"creating","bundle":"/b"}"#;
        assert_eq!(container_of_state(state).unwrap(), ("web".into(), Some("/proc/7/ns/net".into())));
        let stopped = br#"{"id":"web","pid":7,"status":"stopped"}"#;
        assert_eq!(container_of_state(stopped).unwrap(), ("web".into(), None));
        for (bad, word) in [("", "not JSON"), ("{}", "field id"), ("7", "field id")] {
            assert!(container_of_state(bad.as_bytes()).unwrap_err().message.contains(word), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_that_is_read_alone_says_the_same() {
        for line in [
            "add",
            "add net",
            "add net /run/netns/x more",
            "del --id x",
            "detach --bogus",
            "detach --netns /x",
            "attach net --ip",
            "attach net --publsh 80:80",
            "attach net -h",
            "attach net --id x --netns /run/netns/x --publish 80:80 --publish 81:81 --alias y --ifname eth1",
            "del net /run/netns/x",
            "check --id x more",
            "list -f xml",
            "gc --id",
            "resolver --write-only",
            "status --bogus net",
        ] {
            let argv = || std::iter::once("cni").chain(line.split(' ')).map(OsString::from).collect();
            let whole = Cli::try_parse_from::<Vec<OsString>, _>(argv()).map(|cli| cli.verb);
            let say = |read: Result<Verb, clap::Error>| match read {
                Ok(verb) => format!("{verb:?}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(say(parse(argv())), say(whole), "{line}");
        }
    }

    #[test]
    fn a_table_shows_networks_and_who_is_attached() {
        let text =
            br#"{"cniVersion":"1.1.0","name":"default","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#;
        let list = NetworkList::parse(text, Path::new("/etc/cni/net.d/10-default.conflist")).unwrap();
        let networks = Networks { lists: vec![list.clone()], broken: vec![] };
        assert!(table(&networks, &[]).ends_with("\nno container is attached\n"));
        let record = Record {
            attachment: Attachment { network: "default".into(), id: "web".into(), ifname: "eth0".into() },
            netns: None,
            netns_identity: None,
            list,
            args: None,
            capabilities:
                json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})
                    .as_object()
                    .cloned()
                    .unwrap(),
            result: Some(json!({"cniVersion": "1.1.0",
                "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/proc/7/ns/net"}],
                "ips": [{"address": "10.88.0.1/16", "interface": 0}, {"address": "10.88.0.2/16", "interface": 1}]})),
        };
        assert_eq!(
            table(&networks, &[record]),
            "NETWORK   PLUGINS          FILE\n\
             default   bridge,portmap   /etc/cni/net.d/10-default.conflist\n\
             \n\
             NETWORK   CONTAINER   INTERFACE   ADDRESSES      PORTS\n\
             default   web         eth0        10.88.0.2/16   8080->80/tcp\n"
        );
    }
}
