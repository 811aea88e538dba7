//! The program `coracle`: the name it is called by chooses the face (see `runtime::face`).

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::face::run(std::env::args_os().collect())
}
