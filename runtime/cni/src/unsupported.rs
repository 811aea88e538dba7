//! What of the plugins' fields is not done, with the reason. In: a plugin's name and configuration. Out: code 7, naming
//! the first such field, to ADD and STATUS; DEL has nothing to take back. Must never: pass over one in silence.

use serde_json::Value;

use super::error;
use super::error::Error;
use super::fields::Fields;

/// A field, or a value of it, that is not done.
#[derive(Debug, Clone, Copy)]
pub struct Unsupported {
    /// The plugins that have it.
    pub plugins: &'static [&'static str],
    /// Its name in the configuration.
    pub field: &'static str,
    /// The one value that is done; `None`: nothing that asks for anything is.
    pub done: Option<&'static str>,
    /// Why, and what to do.
    pub reason: &'static str,
}

/// All of them that are plain fields. What only shows when a value is read is refused there.
pub const LIST: &[Unsupported] = &[
    Unsupported {
        plugins: &["bridge", "ptp"],
        field: "ipMasqBackend",
        done: Some("nftables"),
        reason: NFTABLES_ONLY,
    },
    Unsupported {
        plugins: &["firewall", "portmap"],
        field: "backend",
        done: Some("nftables"),
        reason: NFTABLES_ONLY,
    },
    Unsupported {
        plugins: &["portmap"],
        field: "externalSetMarkChain",
        done: None,
        reason: "it is a chain of iptables, which is never used; drop it",
    },
    Unsupported {
        plugins: &["portmap"],
        field: "markMasqBit",
        done: None,
        reason: "no packet is marked: rules say themselves what is masqueraded; drop it",
    },
    Unsupported {
        plugins: &["firewall"],
        field: "iptablesAdminChainName",
        done: None,
        reason: "iptables is never used; drop it, and put own rules into chain admin of table inet cni_firewall",
    },
    Unsupported {
        plugins: &["firewall"],
        field: "firewalldZone",
        done: None,
        reason: "firewalld is never asked; drop it, and put own rules into chain admin of table inet cni_firewall",
    },
    Unsupported {
        plugins: &["tap"],
        field: "selinuxContext",
        done: None,
        reason: "the kernel of the image has no SELinux; drop it",
    },
];

const NFTABLES_ONLY: &str = "rules are made in nf_tables by netlink, and no program is run; drop it";

/// Refuses what `plugin` is asked for and does not do.
///
/// # Errors
/// Code 7, naming field and reason.
pub fn refuse(plugin: &str, config: &Fields<'_>) -> Result<(), Error> {
    let asks = |entry: &&Unsupported| {
        entry.plugins.contains(&plugin)
            && match config.get(entry.field) {
                None | Some(Value::Bool(false)) => false,
                Some(Value::String(text)) => !text.is_empty() && Some(text.as_str()) != entry.done,
                Some(_) => true,
            }
    };
    let Some(entry) = LIST.iter().find(asks) else { return Ok(()) };
    let text = config.get(entry.field).and_then(Value::as_str).filter(|_| entry.done.is_some());
    let shown = text.map_or(String::new(), |text| format!(" {text:?}"));
    let message = format!("field {}{shown} is not supported: {}", entry.field, entry.reason);
    Err(Error::new(error::INVALID_CONFIG, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_done_is_refused_by_name_and_nothing_else_is() {
        let refuse = |plugin, config: Value| refuse(plugin, &Fields::new(&config, "").unwrap());
        let error = refuse("tap", json!({"selinuxContext": "a:b:c:d"})).unwrap_err();
        assert!(error.code == 7 && error.message.contains("selinuxContext"), "{error}");
        assert!(refuse("tap", json!({"selinuxContext": ""})).is_ok());
        assert!(refuse("dummy", json!({"selinuxContext": "a:b:c:d"})).is_ok());
        for other in ["iptables", "ipset"] {
            let error = refuse("ptp", json!({"ipMasqBackend": other})).unwrap_err();
            assert!(error.code == 7 && error.message.contains(other), "{error}");
        }
        assert!(refuse("ptp", json!({"ipMasqBackend": "nftables"})).is_ok());
    }

    #[test]
    fn every_entry_is_a_plugins() {
        for plugin in LIST.iter().flat_map(|entry| entry.plugins) {
            assert!(crate::plugin::is_plugin(plugin), "{plugin}");
        }
    }
}
