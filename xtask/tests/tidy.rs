//! The repository's own rules, as a test: what no compiler checks.
#![allow(clippy::unwrap_used)] // a test may panic; outside a #[test] function clippy cannot tell

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Files that git knows or would take, relative to the root.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "git ls-files failed");
    let names = String::from_utf8(output.stdout).unwrap();
    names
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .filter(|path| root().join(path).is_file())
        .collect()
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let rust = files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| (path.clone(), std::fs::read_to_string(root().join(&path)).unwrap())).collect()
}

fn assert_none(what: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{what}:\n{}", offenders.join("\n"));
}

#[test]
fn every_rust_file_opens_with_what_it_is_for() {
    let bare = rust_files().into_iter().filter(|(_, text)| !text.starts_with("//! "));
    assert_none(
        "files without an opening //! line",
        bare.map(|(path, _)| path.display().to_string()).collect(),
    );
}

#[test]
fn unsafe_stands_in_sys_alone() {
    let allows = rust_files().into_iter().filter(|(path, text)| {
        let lifted = text.lines().any(|line| {
            line.trim_start().starts_with("#![allow(unsafe_code)]")
                || line.trim_start().starts_with("#[allow(unsafe_code)]")
        });
        lifted && !path.starts_with("runtime/sys")
    });
    assert_none(
        "files outside runtime/sys that allow unsafe code",
        allows.map(|(path, _)| path.display().to_string()).collect(),
    );
}

#[test]
fn no_file_is_called_utils_or_common() {
    let vague = files().into_iter().filter(|path| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        ["utils", "util", "common", "helpers", "misc"].contains(&stem.as_str())
    });
    assert_none("files whose names say nothing", vague.map(|path| path.display().to_string()).collect());
}

/// Inputs that a fuzzer found: a byte more or less, and they are others.
const CORPORA: &str = "runtime/fuzz/corpus";

#[test]
fn lines_end_without_blanks_and_files_with_a_newline() {
    let mut offenders = Vec::new();
    for path in files().into_iter().filter(|path| !path.starts_with(CORPORA)) {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
        let markdown = path.extension().is_some_and(|extension| extension == "md");
        for (index, line) in text.lines().enumerate() {
            if line.ends_with([' ', '\t']) && !markdown {
                offenders.push(format!("{}:{}", path.display(), index + 1));
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            offenders.push(format!("{}: no newline at its end", path.display()));
        }
    }
    assert_none("blanks at the end of lines", offenders);
}

#[test]
fn the_fuzz_corpora_are_small() {
    const BYTES_MAX: u64 = 200_000;
    let corpora = files().into_iter().filter(|path| path.starts_with(CORPORA));
    let sizes = corpora.map(|path| root().join(path).metadata().unwrap().len());
    let bytes: u64 = sizes.sum();
    assert!(bytes > 0 && bytes <= BYTES_MAX, "{CORPORA}: {bytes} bytes, at most {BYTES_MAX}");
}

#[test]
fn the_only_shell_scripts_are_the_images_and_ci() {
    let scripts = files().into_iter().filter(|path| {
        let text = std::fs::read(root().join(path)).unwrap_or_default();
        let is_script = text.starts_with(b"#!/bin/sh")
            || text.starts_with(b"#!/bin/bash")
            || text.starts_with(b"#!/usr/bin/env bash");
        is_script
            && !path.starts_with("rootfs-overlay")
            && !path.starts_with("qemu")
            && !path.starts_with(".ci")
    });
    assert_none(
        "shell scripts where `cargo xtask` should be the way in",
        scripts.map(|path| path.display().to_string()).collect(),
    );
}

/// docs/cni-rules.md numbers what must be true of the network's side; a test of each bears its number.
#[test]
fn each_rule_of_cni_has_a_test_that_names_it() {
    let rules = std::fs::read_to_string(root().join("docs/cni-rules.md")).unwrap();
    let numbers: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.split_once(". "))
        .map(|(number, _)| number)
        .filter(is_number)
        .collect();
    assert!(numbers.len() >= 36, "docs/cni-rules.md: only {} rules", numbers.len());
    let tests: Vec<(PathBuf, String)> =
        rust_files().into_iter().filter(|(path, _)| path.starts_with("runtime")).collect();
    let has_no_test = |number: &&&str| {
        let name = format!("fn rule_{number}_");
        !tests.iter().any(|(_, text)| text.contains(&name))
    };
    let offenders = numbers.iter().filter(has_no_test).map(|number| format!("rule {number}")).collect();
    assert_none("rules of docs/cni-rules.md without a test `rule_N_...`", offenders);
}

fn is_number(text: &&str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
