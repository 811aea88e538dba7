//! Errors of the OCI runtime, each one sentence that names subject, cause and, where there is one, the fix.
//!
//! In: what failed. Out: the text. Must never: print; who called main's verb does, once.

/// A failed check or step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// An error with its whole sentence.
    pub fn new(message: impl Into<String>) -> Error {
        Error(message.into())
    }

    /// A field of config.json that is wrong: `field` is its path, like `linux.resources.pids.limit`.
    pub fn spec(field: impl std::fmt::Display, message: impl std::fmt::Display) -> Error {
        Error(format!("{field}: {message}"))
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
