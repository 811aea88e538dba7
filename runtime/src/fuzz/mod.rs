//! What the fuzz targets of runtime/fuzz run, and the test that runs their corpora in CI (docs/testing.md, "Fuzzing").
//!
//! In: bytes from a fuzzer or from a file of runtime/fuzz/corpus. Out: nothing, or a panic where the code under test
//! panics, or answers other than it must. Must never: be in the shipped program, or touch the machine: what a target
//! calls only reads its bytes and computes.

mod net;
mod nulls;
mod oci;

/// A target: what it runs on each input.
pub type Target = fn(&[u8]);

/// The targets by name; each has a program runtime/fuzz/targets/NAME.rs and a folder runtime/fuzz/corpus/NAME.
pub const TARGETS: &[(&str, Target)] = &[
    ("cache", net::cache),
    ("config", oci::config),
    ("dhcp", net::dhcp),
    ("dns", net::dns),
    ("netlink", net::netlink),
    ("plugins", net::plugins),
    ("process", oci::process),
    ("resources", oci::resources),
    ("seccomp", oci::seccomp),
    ("state", oci::state),
    ("words", oci::words),
];

/// Runs a target on one input.
///
/// # Panics
/// There is no such target; or the input shows a fault.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, target) = target.unwrap_or_else(|| panic!("{name}: no such fuzz target"));
    target(input);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::path::PathBuf;

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
    }

    fn names_in(folder: &Path) -> Vec<String> {
        let entries =
            std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn every_file_of_the_corpora_passes() {
        for (name, target) in TARGETS {
            let folder = folder("corpus").join(name);
            let files = names_in(&folder);
            assert!(!files.is_empty(), "{}: no files", folder.display());
            for file in files {
                let path = folder.join(file);
                println!("{}", path.display()); // the last one is the one that failed
                target(&std::fs::read(&path).unwrap());
            }
        }
    }

    #[test]
    fn targets_corpora_and_programs_are_the_same_ones() {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names_in(&folder("corpus")), names);
        let programs: Vec<String> = names.iter().map(|name| format!("{name}.rs")).collect();
        assert_eq!(names_in(&folder("targets")), programs);
        let manifest = std::fs::read_to_string(folder("Cargo.toml")).unwrap();
        for name in names {
            assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
        }
    }
}
