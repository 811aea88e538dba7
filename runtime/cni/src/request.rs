//! What a caller says to a plugin: the CNI_* environment and stdin, unchecked.
//!
//! In: the process's environment, or values from the runtime side. Out: `Request`. Must never: check; `NetPlan` does.

use std::ffi::OsString;
use std::io::Read;

/// Most configurations are shorter, results of plugins before included, and are read in one go.
const STDIN_LEN: usize = 8192;

/// A verb with everything that came with it, as it came.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Request {
    /// CNI_COMMAND
    pub command: String,
    /// CNI_CONTAINERID
    pub container_id: Option<String>,
    /// CNI_NETNS
    pub netns: Option<String>,
    /// CNI_IFNAME
    pub ifname: Option<String>,
    /// CNI_ARGS
    pub args: Option<String>,
    /// CNI_PATH
    pub path: Option<String>,
    /// CNI_NETNS_OVERRIDE
    pub netns_override: Option<String>,
    /// The configuration.
    pub stdin: Vec<u8>,
}

impl Request {
    /// What the process was given; `None` without CNI_COMMAND. VERSION does not wait for stdin when nothing can come
    /// there but what a terminal gives.
    ///
    /// # Errors
    /// When stdin can't be read.
    pub fn from_process() -> std::io::Result<Option<Request>> {
        let variable =
            |name: &str| std::env::var_os(name).map(|value| lossy(&value)).filter(|v| !v.is_empty());
        let Some(command) = variable("CNI_COMMAND") else { return Ok(None) };
        let mut stdin = Vec::with_capacity(STDIN_LEN);
        let waits_for_nothing = command == "VERSION" && rustix::termios::isatty(std::io::stdin());
        if !waits_for_nothing {
            std::io::stdin().lock().read_to_end(&mut stdin)?;
        }
        Ok(Some(Request {
            command,
            container_id: variable("CNI_CONTAINERID"),
            netns: variable("CNI_NETNS"),
            ifname: variable("CNI_IFNAME"),
            args: variable("CNI_ARGS"),
            path: variable("CNI_PATH"),
            netns_override: variable("CNI_NETNS_OVERRIDE"),
            stdin,
        }))
    }

    /// The environment that hands this request to another program.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let variables = [
            ("CNI_COMMAND", Some(&self.command)),
            ("CNI_CONTAINERID", self.container_id.as_ref()),
            ("CNI_NETNS", self.netns.as_ref()),
            ("CNI_IFNAME", self.ifname.as_ref()),
            ("CNI_ARGS", self.args.as_ref()),
            ("CNI_PATH", self.path.as_ref()),
            ("CNI_NETNS_OVERRIDE", self.netns_override.as_ref()),
        ];
        variables
            .into_iter()
            .map(|(name, value)| (name, OsString::from(value.cloned().unwrap_or_default())))
            .collect()
    }
}

#[cfg(test)]
impl Request {
    /// An ADD of a network's configuration, for tests of what a plugin makes of it.
    pub fn to_add(config: &serde_json::Value) -> Request {
        let text = |text: &str| Some(text.to_string());
        Request {
            command: "ADD".into(),
            container_id: text("c"),
            netns: text("/x"),
            ifname: text("eth0"),
            path: text("/x"),
            stdin: config.to_string().into_bytes(),
            ..Request::default()
        }
    }
}

fn lossy(value: &std::ffi::OsStr) -> String {
    value.to_string_lossy().into_owned()
}
