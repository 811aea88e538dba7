//! The command line of the reference's own tool, `cni add|check|del|gc|status NETWORK NETNS`, so that scripts for it run
//! unchanged.
//!
//! In: words, CAP_ARGS, CNI_ARGS, CNI_IFNAME. Out: what that tool prints. Must never: differ from it in the container's
//! id, by which its attachments are found again.

use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Map;
use serde_json::Value;
use sha2::Digest;
use sha2::Sha512;

use super::attach;
use super::attach::Site;
use super::attach::Wish;
use super::error;
use super::error::Error;
use super::list;
use super::list::NetworkList;
use super::list::Networks;
use super::plan::Attachment;

/// What that tool can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach.
    Add,
    /// Is it still as ADD left it?
    Check,
    /// Detach.
    Del,
    /// Take back all attachments of the network.
    Gc,
    /// Could ADD be served?
    Status,
}

/// Whether a word is the path of a namespace and no network's name.
pub fn is_path(word: &str) -> bool {
    word.contains('/')
}

/// Runs a verb and gives what goes to standard output.
///
/// # Errors
/// What is wrong with the environment, before anything is done; the plugins'.
pub fn run(site: &Site, verb: Verb, network: &str, netns: &str) -> Result<String, Vec<Error>> {
    let prepare = || {
        let networks = Networks::load(&site.conf_dir)?;
        let list = networks.find(network, &site.conf_dir)?.clone();
        let wish = wish(&list, netns, |name| std::env::var(name).ok())?;
        Ok((networks, list, wish))
    };
    let (networks, list, wish) = prepare().map_err(|error| vec![error])?;
    let attachment =
        Attachment { network: list.name.clone(), id: wish.id.clone(), ifname: wish.ifname.clone() };
    let done = match verb {
        Verb::Add => {
            return attach::add(site, &list, &wish).map(|result| indented(&result)).map_err(|e| vec![e]);
        }
        Verb::Check => attach::check(site, &attachment),
        Verb::Del => attach::del(site, &attachment, Some(&list), &wish),
        Verb::Gc => return attach::gc(site, &networks, &[list.name], |_| false).map(|_| String::new()),
        Verb::Status => attach::status(site, &list),
    };
    done.map(|()| String::new()).map_err(|error| vec![error])
}

fn wish(list: &NetworkList, netns: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Wish, Error> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let wrong = |message: String| Error::new(error::INVALID_ENVIRONMENT, message);
    let mut capabilities = Map::new();
    if let Some(text) = variable("CAP_ARGS") {
        let value: Result<Value, _> = serde_json::from_str(&text);
        match value.map_err(|cause| wrong(format!("CAP_ARGS is not JSON: {cause}")))? {
            // What no plugin declares, nobody gets.
            Value::Object(object) => capabilities.extend(object.into_iter().filter(|(capability, _)| {
                list.plugins.iter().any(|plugin| list::has_capability(plugin, capability))
            })),
            _ => return Err(wrong("CAP_ARGS is no JSON object".into())),
        }
    }
    let args = variable("CNI_ARGS");
    for pair in args.iter().flat_map(|args| args.split(';')) {
        let is_pair = pair
            .split_once('=')
            .is_some_and(|(key, value)| !key.is_empty() && !value.is_empty() && !value.contains('='));
        if !is_pair {
            return Err(wrong(format!("invalid CNI_ARGS pair {pair:?}")));
        }
    }
    let netns = absolute(netns).map_err(|cause| wrong(format!("{netns}: {cause}")))?;
    Ok(Wish {
        id: container_id(&netns),
        netns: Some(netns),
        ifname: variable("CNI_IFNAME").unwrap_or_else(|| "eth0".to_string()),
        args,
        capabilities,
    })
}

/// The tool knows a container by its namespace's path alone.
fn container_id(netns: &str) -> String {
    let hash = Sha512::digest(netns.as_bytes());
    let text: String = hash.iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    format!("cnitool-{text}")
}

/// An absolute path without `.`, `..` and doubled slashes; links are not followed.
fn absolute(path: &str) -> std::io::Result<String> {
    let mut clean = PathBuf::new();
    for component in std::path::absolute(Path::new(path))?.components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    Ok(clean.display().to_string())
}

/// JSON by four blanks, without a newline at the end, as the tool prints it.
fn indented(value: &Value) -> String {
    // A value of strings and numbers always becomes text, and its strings hold no newline.
    let by_two = serde_json::to_string_pretty(value).unwrap_or_default();
    let lines = by_two.lines().map(|line| format!("{}{line}", &line[..line.len() - line.trim_start().len()]));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list() -> NetworkList {
        let text = br#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"x","capabilities":{"portMappings":true}}]}"#;
        NetworkList::parse(text, Path::new("")).unwrap()
    }

    #[test]
    fn the_id_is_the_one_that_the_tool_makes_of_the_path() {
        // printf /var/run/netns/testing | sha512sum
        assert_eq!(container_id("/var/run/netns/testing"), "cnitool-77383ca0a0715733ca6f");
        assert_eq!(absolute("/var/../run//netns/./x/").unwrap(), "/run/netns/x");
    }

    #[test]
    fn the_environment_says_what_is_wanted() {
        let with = |pairs: &[(&str, &str)]| {
            let find =
                |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
            wish(&list(), "/run/netns/x", find)
        };
        let plain = with(&[]).unwrap();
        assert_eq!((plain.ifname.as_str(), plain.args, plain.capabilities.len()), ("eth0", None, 0));
        let full = with(&[
            ("CNI_IFNAME", "net1"),
            ("CNI_ARGS", "IP=10.0.0.1;IgnoreUnknown=1"),
            ("CAP_ARGS", r#"{"portMappings": [], "mac": "x"}"#),
        ]);
        let full = full.unwrap();
        assert_eq!(
            (full.ifname.as_str(), full.args.as_deref()),
            ("net1", Some("IP=10.0.0.1;IgnoreUnknown=1"))
        );
        assert_eq!(full.capabilities.keys().collect::<Vec<_>>(), ["portMappings"]);
        for (name, value) in [
            ("CNI_ARGS", "IP"),
            ("CNI_ARGS", "A=1;"),
            ("CNI_ARGS", "A=b=c"),
            ("CAP_ARGS", "[]"),
            ("CAP_ARGS", "{"),
        ] {
            assert_eq!(
                with(&[(name, value)]).unwrap_err().code,
                error::INVALID_ENVIRONMENT,
                "{name}={value}"
            );
        }
    }

    #[test]
    fn a_result_is_indented_by_four() {
        assert_eq!(
            indented(&json!({"ips": [{"a": 1}]})),
            "{\n    \"ips\": [\n        {\n            \"a\": 1\n        }\n    ]\n}"
        );
    }
}
