//! The OCI runtime: `runc`'s command line over Spec -> Plan -> one clone3 -> a step list on each side.
#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody takes what they print

pub mod cgroup;
pub mod cli;
pub mod criu;
pub mod launch;
mod own_folder;
pub mod plan;
pub mod report;
pub mod rootless;
pub mod seccomp;
pub mod store;
pub mod topic;
pub mod undo;
pub mod unsupported;

use std::ffi::OsString;
use std::io::Write;

use clap::error::ContextKind;
use clap::error::ErrorKind;
use sys::start::ExitCode;

use cli::Global;
use cli::LogFormat;
use launch::seal;
use launch::seal::Seal;
use report::Error;
use report::Fails;
use store::Store;

/// The version of the specification that is followed.
const SPEC_VERSION: &str = "1.3.0";
/// runc's status for a command that it does not have.
const UNKNOWN_COMMAND: u8 = 3;
/// runc's status for an exec that failed.
const EXEC_FAILED: u8 = 255;
/// And for everything else.
const FAILED: u8 = 1;

/// Runs `runc ARGS...` and returns its exit code.
pub fn main(argv: Vec<OsString>) -> ExitCode {
    let verb = cli::verb_of(&argv);
    let exec = verb == Some("exec");
    // First: whatever is read before is read twice, and a pipe can be read only once.
    let sealed = match verb {
        Some("create" | "run" | "exec") => seal::ensure(&argv),
        _ => Ok(Seal::NotNeeded),
    };
    let (global, verb) = match cli::parse(argv) {
        Ok(parsed) => parsed,
        Err(error) if error.kind() == ErrorKind::InvalidSubcommand => {
            let word = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string);
            drop(writeln!(std::io::stderr(), "No help topic for '{}'", word.unwrap_or_default()));
            return ExitCode::from(UNKNOWN_COMMAND);
        }
        Err(error) => {
            // Help goes to standard output and is no failure; clap's own status for a wrong word is not runc's.
            let _ = error.print();
            return if error.use_stderr() { failure(exec) } else { ExitCode::SUCCESS };
        }
    };
    report::take_panics(failure_status(exec));
    let done = prepare(&global).and_then(|store| {
        sealed?.log();
        cli::run(&store, verb)
    });
    match done {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(error) => {
            report::last_error(&error);
            failure(exec)
        }
    }
}

fn failure(exec: bool) -> ExitCode {
    ExitCode::from(failure_status(exec))
}

fn failure_status(exec: bool) -> u8 {
    if exec { EXEC_FAILED } else { FAILED }
}

/// The log and the store that the global options name.
fn prepare(global: &Global) -> Result<Store, Error> {
    let file = match &global.log {
        None => None,
        Some(path) => {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            Some(file.step("open the log", path.display())?)
        }
    };
    report::set_log(report::Log { file, json: global.log_format == LogFormat::Json, debug: global.debug });
    let caller = rootless::Caller::probe();
    let rootless = match global.rootless.as_str() {
        "auto" => caller.is_rootless(),
        "true" => true,
        "false" => false,
        other => return Err(Error::new(format!("--rootless {other}: expected true, false or auto"))),
    };
    let root = match &global.root {
        Some(root) => std::path::absolute(root).step("find", root.display())?,
        None => caller.state_root()?,
    };
    let mut store = Store::new(root, rootless);
    store.systemd = global.systemd_cgroup;
    Ok(store)
}
