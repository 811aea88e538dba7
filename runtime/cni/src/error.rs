//! CNI's errors: a code, one sentence, details (CNI specification 1.1.0, section "Error").
//!
//! In: what failed. Out: JSON for stdout. Must never: print.

use serde_json::Value;
use serde_json::json;

use super::version::Version;

/// The version is not supported.
pub const INCOMPATIBLE_VERSION: u32 = 1;
/// A field is not supported.
pub const UNSUPPORTED_FIELD: u32 = 2;
/// The container is not known, or its attachment is missing.
pub const UNKNOWN_CONTAINER: u32 = 3;
/// A CNI_* variable is missing or wrong.
pub const INVALID_ENVIRONMENT: u32 = 4;
/// Input or output failed.
pub const IO_FAILURE: u32 = 5;
/// JSON that can't be decoded.
pub const DECODING_FAILURE: u32 = 6;
/// A configuration that can't work.
pub const INVALID_CONFIG: u32 = 7;
/// The network namespace is not one, or is the caller's own (a code in the field, not in the specification).
pub const INVALID_NETNS: u32 = 8;
/// Try again later.
pub const TRY_AGAIN: u32 = 11;
/// STATUS: ADD can't be served.
pub const NOT_AVAILABLE: u32 = 50;
/// Everything else (a code in the field, not in the specification).
pub const OTHER: u32 = 999;
/// Ours: an address pool has no address left.
pub const NO_ADDRESS_LEFT: u32 = 100;
/// Ours: CHECK found the world other than ADD left it.
pub const CHECK_FAILED: u32 = 101;
/// Ours: the attachment exists already.
pub const ALREADY_ATTACHED: u32 = 102;

/// A failed verb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// One of this module's numbers, or another plugin's.
    pub code: u32,
    /// Subject, cause and, where there is one, the fix.
    pub message: String,
    /// More about the cause; may be empty.
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: u32, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), details: String::new() }
    }

    /// A failed call of the kernel: what was tried, and why it failed.
    pub fn failed(what: impl std::fmt::Display, cause: impl std::fmt::Display) -> Error {
        Error::new(OTHER, format!("{what}: {cause}"))
    }

    /// The object that goes to stdout.
    pub fn to_json(&self, version: Version) -> Value {
        let mut object = json!({"cniVersion": version.to_string(), "code": self.code, "msg": self.message});
        if !self.details.is_empty() {
            object["details"] = json!(self.details);
        }
        object
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)?;
        if !self.details.is_empty() {
            write!(formatter, " ({})", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
