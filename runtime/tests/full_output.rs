//! Whoever can't be told is no reason for a panic. In: the program itself, its standard streams full. Out: verdicts. Must
//! never: need root.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::fs::File;
use std::process::Command;

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn an_output_that_takes_nothing_is_a_failure_in_one_sentence() {
    for words in [&["--version"][..], &["runc", "features"], &["runc", "spec", "--help"], &["cni", "list"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_coracle")).args(words).stdout(full()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        // A signal would be no code at all.
        assert!(output.status.code().is_some(), "{words:?}: {}: {said}", output.status);
        assert!(!said.contains("panicked") && said.lines().count() <= 1, "{words:?}: {said}");
    }
}

#[test]
fn errors_that_nobody_can_hear_end_as_they_would() {
    for (words, code) in
        [(&["runc", "state", "no-such"][..], 1), (&["runc", "exec", "no-such", "x"], 255), (&["none"], 1)]
    {
        let status = Command::new(env!("CARGO_BIN_EXE_coracle")).args(words).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{words:?}");
    }
}
