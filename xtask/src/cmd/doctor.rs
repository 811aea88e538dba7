//! `doctor`: the machine against what all commands need. In: `Host`. Out: a list on stdout, the command that mends it,
//! exit status 1 when something is missing. Must never: stop at the first missing thing.

use std::process::ExitCode;

use anyhow::Result;

use crate::context::Build;
use crate::host::ALL_NEEDS;

/// Prints the list.
pub fn run(build: &Build) -> Result<ExitCode> {
    for (name, present, without) in build.host.checklist(&ALL_NEEDS) {
        match (present, without) {
            (true, _) => println!("{:>8}  {name}", "ok"),
            (false, None) => println!("{:>8}  {name}", "MISSING"),
            (false, Some(without)) => println!("{:>8}  {name}: {without}", "absent"),
        }
    }
    let missing = build.host.missing(&ALL_NEEDS);
    if missing.is_empty() {
        println!("\nThis machine has all that Coracle's commands need ({} cores).", build.host.cores);
        let absent = build.host.lacking(&ALL_NEEDS);
        if let Some(command) = build.host.install_command(&absent).filter(|_| !absent.is_empty()) {
            println!("What they can do without comes with:\n    {}", command.join(" "));
        }
        return Ok(ExitCode::SUCCESS);
    }
    match build.host.install_command(&missing) {
        Some(command) => println!(
            "\nInstall what is missing with:\n    {}\nor: cargo xtask --install-deps doctor",
            command.join(" ")
        ),
        None => println!(
            "\nNo package manager that xtask knows (apt, dnf, pacman, apk) is here: install them by hand."
        ),
    }
    Ok(ExitCode::FAILURE)
}
