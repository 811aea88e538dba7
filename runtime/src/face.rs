//! Name -> face. In: argv, whose first word's last path component is the name. Out: the face's exit code.
//! Must never: do the work of a face itself.
//!
//! `runc` is the OCI runtime, `cni` the runtime side of CNI, and each plugin answers to its own name; as `init` the kernel
//! starts it. Called by its own name the program is `coracle runc ...`, `coracle cni ...`, `coracle install DIR`,
//! `coracle xattrs LIST` (the image's start calls it), `coracle --version`.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use sys::start::ExitCode;

/// The plugins, by the names that they answer to.
pub const PLUGINS: &[&str] = &[
    "bandwidth",
    "bridge",
    "dhcp",
    "dummy",
    "firewall",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "sbr",
    "static",
    "tap",
    "tuning",
    "vlan",
    "vrf",
];

/// Runs the face that `argv` asks for and returns its exit code.
pub fn run(argv: Vec<OsString>) -> ExitCode {
    let name = argv
        .first()
        .map(|word| Path::new(word).file_name().unwrap_or_default().to_owned())
        .unwrap_or_default();
    match name.to_str() {
        Some("runc") => oci::main(argv),
        Some("cni") => cni::main(argv),
        Some("init") => crate::init::main(),
        Some("dhcp") if argv.get(1).is_some_and(|word| word == "daemon") => {
            let words: Vec<String> =
                argv.iter().skip(2).map(|word| word.to_string_lossy().into_owned()).collect();
            cni::ipam::dhcp::daemon::main(&words)
        }
        Some(plugin) if cni::plugin::is_plugin(plugin) => cni::plugin::main(plugin),
        _ => own_name(argv),
    }
}

fn own_name(mut argv: Vec<OsString>) -> ExitCode {
    match argv.get(1).and_then(|word| word.to_str()) {
        Some("--version" | "-V") => say(&format!("coracle {}", env!("CARGO_PKG_VERSION")))
            .map_or_else(|code| code, |()| ExitCode::SUCCESS),
        Some("runc" | "cni") => {
            argv.remove(0);
            run(argv)
        }
        Some("install") => match argv.get(2).filter(|_| argv.len() == 3) {
            Some(dir) => install(Path::new(dir)),
            None => fail("usage: coracle install DIR"),
        },
        Some("xattrs") => match argv.get(2).filter(|_| argv.len() == 3) {
            Some(list) => crate::xattrs::main(Path::new(list)),
            None => fail("usage: coracle xattrs LIST"),
        },
        _ => fail(
            "usage: coracle runc ... | coracle cni ... | coracle install DIR | coracle xattrs LIST | coracle --version",
        ),
    }
}

/// Makes a hard link of this program in `dir` for each face but its own name; one that is there already stays if it is
/// this program.
fn install(dir: &Path) -> ExitCode {
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return fail(&format!("coracle: cannot find itself: {error}")),
    };
    for name in ["runc", "cni"].into_iter().chain(PLUGINS.iter().copied()) {
        let link = dir.join(name);
        match std::fs::hard_link(&own, &link) {
            Ok(()) => {
                if let Err(code) = say(&link.display().to_string()) {
                    return code;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && same_file(&own, &link) => {}
            Err(error) => {
                let fix = "hard links need the same file system: copy the program there first";
                return fail(&format!(
                    "coracle: {}: {error} ({fix}, or remove what is in the way)",
                    link.display()
                ));
            }
        }
    }
    ExitCode::SUCCESS
}

fn same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// A line for whoever asked; or the exit code where it can't be written.
fn say(line: &str) -> Result<(), ExitCode> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| fail(&format!("coracle: standard output: {error}")))
}

fn fail(message: &str) -> ExitCode {
    // There may be nobody to hear it.
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::from(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_has_its_name_here() {
        assert!(cni::plugin::names().eq(PLUGINS.iter().copied()));
    }
}
