//! A panic in the middle of making a container: what `report::take_panics` promises. In: this test program, run again as
//! the process that panics. Out: verdicts. Must never: need root.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::process::Command;

use runtime::oci::report;
use runtime::oci::undo::Undo;

#[test]
#[ignore = "it is the process that panics; the other test starts it"]
fn panics_with_two_deeds_done() {
    report::take_panics(41);
    let mut undo = Undo::default();
    undo.push(|| println!("first deed undone"));
    undo.push(|| println!("second deed undone"));
    panic!("out of\nluck");
}

#[test]
fn a_panic_is_one_sentence_and_undoes_what_was_done() {
    let me = std::env::current_exe().unwrap();
    let words = ["--exact", "panics_with_two_deeds_done", "--ignored", "--nocapture"];
    let output = Command::new(me).args(words).output().unwrap();
    assert_eq!(output.status.code(), Some(41));
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.contains("level=error msg=\"internal error at runtime/tests/panic.rs:"), "{err}");
    assert!(err.contains("out of\\nluck; please report it"), "{err}");
    let undone: Vec<&str> = out.lines().filter_map(|line| Some(line.split_once(" deed undone")?.0)).collect();
    assert_eq!(
        undone.iter().map(|line| line.rsplit(' ').next().unwrap()).collect::<Vec<_>>(),
        ["second", "first"]
    );
}
