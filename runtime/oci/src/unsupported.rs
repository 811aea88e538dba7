//! What of the specification and of runc's command line is not done, with the reason. In: its name. Out: the error of
//! whoever is asked for it, and what `features` says of it. Must never: be passed over in silence, here or there.

use super::report::Error;

/// Something that is not done.
#[derive(Debug, Clone, Copy)]
pub struct Unsupported {
    /// A verb, a flag, or the path of a field in config.json.
    pub name: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// All of them. Every field of runtime-spec 1.3.0 for Linux is done, or refused by name where the kernel lacks it.
pub const LIST: [Unsupported; 2] = [
    Unsupported { name: "checkpoint", reason: "the criu program's RPC is not spoken yet" },
    Unsupported { name: "restore", reason: "the criu program's RPC is not spoken yet" },
];

/// Whether `name` is done.
pub fn is_done(name: &str) -> bool {
    LIST.iter().all(|unsupported| unsupported.name != name)
}

/// The error for one of them.
pub fn error(name: &str) -> Error {
    let reason =
        LIST.iter().find(|unsupported| unsupported.name == name).map(|unsupported| unsupported.reason);
    Error::spec(name, format!("not supported: {}", reason.unwrap_or("it is not done")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_one_is_an_error_with_its_reason() {
        assert!(error("checkpoint").to_string().starts_with("checkpoint: not supported: the criu program"));
        assert!(!is_done("restore") && is_done("linux.intelRdt"));
    }
}
