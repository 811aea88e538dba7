//! Errors of the OCI runtime, each one sentence that names subject, cause and, where there is one, the fix.
//!
//! In: what failed. Out: the text; and, once, for the one error that ends a command, a line in the log in runc's form.
//! Must never: log what is also returned.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

pub use spec::Error;

/// Where log lines go: set once, from the command line.
static LOG: OnceLock<Log> = OnceLock::new();

/// Where log lines go, and in which form.
#[derive(Debug)]
pub struct Log {
    /// None: standard error.
    pub file: Option<std::fs::File>,
    /// An object a line instead of text.
    pub json: bool,
    /// Whether debug lines are written.
    pub debug: bool,
}

/// Takes the log; later calls change nothing.
pub fn set_log(log: Log) {
    let _ = LOG.set(log);
}

/// The log's file, where it is one.
pub fn log_fd() -> Option<BorrowedFd<'static>> {
    LOG.get()?.file.as_ref().map(AsFd::as_fd)
}

/// A line for those who look for causes. Where runc has one for the same moment it is in runc's words: scripts look for
/// them.
pub fn debug(message: &str) {
    if LOG.get().is_some_and(|log| log.debug) {
        write_line("debug", message);
    }
}

/// Something failed that ends nothing.
pub fn warn(message: &str) {
    write_line("warning", message);
}

/// The error that ends the command: in the log, and where that is a file on standard error too, as runc does it.
pub fn last_error(error: &Error) {
    write_line("error", &error.to_string());
    if LOG.get().is_some_and(|log| log.file.is_some()) {
        drop(writeln!(std::io::stderr(), "{error}"));
    }
}

/// Makes a panic end as any other failure does: one sentence, what was done undone, `status`. The program is built with
/// `panic = "abort"`, so that this hook is all that runs then.
pub fn take_panics(status: u8) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("it panicked");
        last_error(&Error::new(format!("internal error{place}: {message}; please report it")));
        super::undo::everything();
        sys::process::exit_now(i32::from(status))
    }));
}

/// The form of logrus, which runc's callers parse.
fn write_line(level: &str, message: &str) {
    let json = LOG.get().is_some_and(|log| log.json);
    let line = if json {
        serde_json::json!({ "level": level, "msg": message, "time": super::store::now_seconds() }).to_string()
    } else {
        let quoted = serde_json::Value::from(message);
        format!("time=\"{}\" level={level} msg={quoted}", super::store::now_seconds())
    };
    match LOG.get().and_then(|log| log.file.as_ref()) {
        // There is nowhere else to say that the log can't be written.
        Some(mut file) => drop(writeln!(file, "{line}")),
        None => drop(writeln!(std::io::stderr(), "{line}")),
    }
}

/// What a failed system call says, in the words that runc's users know: `operation not permitted`.
pub fn errno_text(errno: rustix::io::Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Makes errors of failed system calls: `step subject: cause`.
pub trait Fails<T> {
    /// Names the step and its subject.
    ///
    /// # Errors
    /// The same failure, as a sentence.
    fn step(self, step: &str, subject: impl std::fmt::Display) -> Result<T, Error>;
}

impl<T> Fails<T> for Result<T, rustix::io::Errno> {
    fn step(self, step: &str, subject: impl std::fmt::Display) -> Result<T, Error> {
        self.map_err(|errno| Error::new(format!("{step} {subject}: {}", errno_text(errno))))
    }
}

impl<T> Fails<T> for std::io::Result<T> {
    fn step(self, step: &str, subject: impl std::fmt::Display) -> Result<T, Error> {
        self.map_err(|error| {
            let text = error.raw_os_error().map_or_else(
                || error.to_string(),
                |number| errno_text(rustix::io::Errno::from_raw_os_error(number)),
            );
            Error::new(format!("{step} {subject}: {text}"))
        })
    }
}
