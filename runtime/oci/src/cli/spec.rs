//! `runc spec`: a new config.json. In: the folder, whether rootless, a network. Out: runc's default, in runc's form.
//! Must never: overwrite one that is there.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::report::Error;
use crate::report::Fails;
use spec::Hooks;
use spec::Spec;
use spec::hooks::Hook;
use spec::linux::IdMapping;
use spec::linux::Namespace;
use spec::linux::NamespaceKind;
use spec::mount::Mount;

/// Where the image has the runtime side of CNI.
const CNI: &str = "/usr/bin/cni";
/// Where its resolver has a resolv.conf for each network.
const RESOLV_CONFS: &str = "/run/cni/resolv";

/// Writes a new config.json with runc's defaults.
#[derive(Debug, clap::Args)]
pub struct SpecArgs {
    /// Folder of the bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// For a user without privileges
    #[arg(long)]
    pub rootless: bool,
    /// Attach the container to this CNI network, by hooks; repeatable
    #[arg(long, value_name = "NAME")]
    pub network: Vec<String>,
    /// Let a port of the host lead to the container's, on that network; repeatable
    #[arg(long, value_name = "[ADDRESS:]HOST:CONTAINER[/PROTOCOL]", requires = "network")]
    pub publish: Vec<String>,
    /// Another name for the container on its networks, besides its id; repeatable
    #[arg(long, value_name = "NAME", requires = "network")]
    pub alias: Vec<String>,
}

/// runc's default configuration.
pub fn default_spec() -> Spec {
    // A test shows that it is one; an empty one would be refused by everything.
    spec::parse("default.json", include_bytes!("default.json")).unwrap_or_default()
}

impl SpecArgs {
    /// Writes the file.
    ///
    /// # Errors
    /// It is there already, or can't be written.
    pub fn run(&self) -> Result<(), Error> {
        let mut spec = default_spec();
        if self.rootless {
            make_rootless(&mut spec);
        }
        if !self.network.is_empty() {
            // As docker and podman have it: `ping` needs no capability. A rootless container can't have all groups.
            if let Some(linux) = spec.linux.as_mut().filter(|_| !self.rootless) {
                linux.sysctl.insert("net.ipv4.ping_group_range".to_string(), "0 2147483647".to_string());
            }
            spec.hooks = Some(network_hooks(&self.network, &self.publish, &self.alias)?);
            spec.mounts.push(Mount {
                destination: "/etc/resolv.conf".to_string(),
                kind: "bind".to_string(),
                source: format!("{RESOLV_CONFS}/{}.conf", self.network[0]),
                options: ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_string).to_vec(),
                ..Mount::default()
            });
        }
        let path = self.bundle.join("config.json");
        let text = spec.text()?;
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path);
        let mut file = match file {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::new(format!("File {} exists. Remove it first", path.display())));
            }
            file => file.step("create", path.display())?,
        };
        file.write_all(&text).step("write", path.display())
    }
}

fn network_hooks(networks: &[String], publish: &[String], aliases: &[String]) -> Result<Hooks, Error> {
    for network in networks {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if !network.bytes().all(good) || !network.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) {
            return Err(Error::new(format!("--network {network:?}: not a network's name")));
        }
    }
    let hook = |verb: &str, rest: &[String]| Hook {
        path: CNI.to_string(),
        args: ["cni", verb].into_iter().map(str::to_string).chain(rest.iter().cloned()).collect(),
        ..Hook::default()
    };
    // What a port is, and what a name, `cni attach` knows and says; they are the hook's own words.
    let flags = [("--publish", publish), ("--alias", aliases)];
    let flags =
        flags.iter().flat_map(|(flag, words)| words.iter().flat_map(|word| [flag.to_string(), word.clone()]));
    let attach: Vec<String> = networks.iter().cloned().chain(flags).collect();
    Ok(Hooks {
        create_runtime: vec![hook("attach", &attach)],
        poststop: vec![hook("detach", networks)],
        ..Hooks::default()
    })
}

/// As runc: a user namespace with the caller's ids, the host's network, no limits, the host's /sys.
fn make_rootless(spec: &mut Spec) {
    let Some(linux) = &mut spec.linux else { return };
    linux.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: String::new() });
    let map = |host_id| vec![IdMapping { container_id: 0, host_id, size: 1 }];
    linux.uid_mappings = map(rustix::process::geteuid().as_raw());
    linux.gid_mappings = map(rustix::process::getegid().as_raw());
    linux.resources = None;
    for mount in &mut spec.mounts {
        mount.options.retain(|option| !option.starts_with("gid=") && !option.starts_with("uid="));
        if mount.destination == "/sys" {
            mount.kind = "none".into();
            mount.source = "/sys".into();
            mount.options = ["rbind", "nosuid", "noexec", "nodev", "ro"].map(str::to_string).to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_runcs() {
        let spec = default_spec();
        assert_eq!(spec.process.as_ref().map(|process| process.args.clone()), Some(vec!["sh".to_string()]));
        assert_eq!(spec.mounts.len(), 7);
        assert_eq!(spec.hostname, "runc");
    }

    #[test]
    fn a_network_comes_by_hooks() {
        let hooks = network_hooks(&["default".into()], &["8080:80".into()], &["www".into()]).unwrap();
        let words = ["cni", "attach", "default", "--publish", "8080:80", "--alias", "www"];
        assert_eq!(hooks.create_runtime[0].args, words);
        assert_eq!(hooks.poststop[0].args, ["cni", "detach", "default"]);
        assert!(network_hooks(&["../x".into()], &[], &[]).is_err());
    }
}
