//! Name -> face. In: argv, whose first word's last path component is the name. Out: the face's exit code.
//! Must never: do the work of a face itself.
//!
//! `runc` is the OCI runtime, `cni` the runtime side of CNI, and each plugin answers to its own name. Called by its
//! own name the program is `coracle runc ...`, `coracle cni ...`, `coracle install DIR`, `coracle --version`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs the face that `argv` asks for and returns its exit code.
pub fn run(argv: Vec<OsString>) -> ExitCode {
    let name = argv
        .first()
        .map(|word| Path::new(word).file_name().unwrap_or_default().to_owned())
        .unwrap_or_default();
    match name.to_str() {
        Some("runc") => crate::oci::main(argv),
        Some("cni") => crate::cni::main(argv),
        Some(plugin) if crate::cni::plugin::is_plugin(plugin) => crate::cni::plugin::main(plugin),
        _ => own_name(argv),
    }
}

fn own_name(mut argv: Vec<OsString>) -> ExitCode {
    match argv.get(1).and_then(|word| word.to_str()) {
        Some("--version" | "-V") => {
            println!("coracle {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some("runc" | "cni") => {
            argv.remove(0);
            run(argv)
        }
        _ => {
            eprintln!("usage: coracle runc ... | coracle cni ... | coracle install DIR | coracle --version");
            ExitCode::from(1)
        }
    }
}
