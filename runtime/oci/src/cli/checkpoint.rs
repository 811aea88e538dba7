//! `runc checkpoint` and `runc restore`. In: runc's arguments. Out: so far an error. Must never: touch the container.

use std::ffi::OsString;

use crate::report::Error;
use crate::unsupported;

/// runc's flags and the container's name, unread: nothing can be done with them yet.
#[derive(Debug, clap::Args)]
pub struct Unread {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _words: Vec<OsString>,
}

/// Says what is missing: the program that does the work, or the way to talk to it.
pub fn refuse(verb: &str) -> Error {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join("criu").is_file()) {
        return unsupported::error(verb);
    }
    Error::new(format!("{verb}: criu was not found in $PATH; it does the work, so install it"))
}
