//! `update` as a process, against an origin on the loopback whose every page is the same: a listing that is a list of hashes
//! too.

use std::fs;

use crate::checkout::Checkout;
use crate::origin::{Answer, Origin, nobody};

/// A checkout whose tini is to be had at `origin` and at an address where nobody listens.
fn checkout(origin: &Origin) -> Checkout {
    let mut checkout = Checkout::new();
    checkout.pin("tini", b"tini", &[&origin.url("tini-1.tar.gz"), &nobody("tini-1.tar.gz")]);
    checkout
}

fn pins(checkout: &Checkout) -> String {
    fs::read_to_string(checkout.root().join("xtask/sources.toml")).unwrap()
}

#[test]
fn a_newer_version_is_pinned_by_the_hash_that_its_origin_publishes() {
    let hash = "ab".repeat(32);
    let page = format!("{hash}  tini-1.tar.gz\n{hash}  tini-1.9.tar.gz\n{hash}  tini-1.10.tar.gz\n");
    let origin = Origin::new(page.as_bytes(), vec![Answer::Whole]);
    let checkout = checkout(&origin);
    let before = pins(&checkout);
    checkout.run(&["update", "--check", "tini"]).said(0, &["tini 1: 1.10 is there"]);
    assert_eq!(pins(&checkout), before);
    let run = checkout.run(&["update", "tini"]);
    run.said(
        0,
        &["tini 1: 1.10 is there", "tini-1.tar.gz tells no hash of 1.10: left out", "has the new pins"],
    );
    let after = pins(&checkout);
    let tini = after.split("[source.tini]").nth(1).unwrap().split("\n[source.").next().unwrap();
    assert!(tini.contains("version = \"1.10\"") && tini.contains(&hash), "{tini}");
    assert!(tini.contains(&format!("url = \"{}\"", origin.url("tini-1.10.tar.gz"))), "{tini}");
    assert_eq!(tini.matches("url = ").count(), 1, "{tini}");
    assert!(!after.contains("epoch = 1793491200"), "the epoch goes with the pins");
    let linux = |text: &str| {
        text.split("[source.linux]").nth(1).unwrap().split("\n[source.").next().unwrap().to_owned()
    };
    assert_eq!(linux(&after), linux(&before));
}

#[test]
fn a_version_of_which_no_origin_tells_the_hash_is_not_pinned() {
    let origin = Origin::new(b"<a href=\"tini-2.tar.gz\">tini-2.tar.gz</a>", vec![Answer::Whole]);
    let checkout = checkout(&origin);
    let before = pins(&checkout);
    checkout
        .run(&["update", "tini"])
        .said(1, &["tini: 2 is there, but no origin tells its hash; pin it by hand"]);
    assert_eq!(pins(&checkout), before);
}

#[test]
fn what_can_be_wrong_with_update_is_said() {
    let checkout = checkout(&Origin::new(b"", vec![Answer::Status(404)]));
    checkout
        .run(&["update", "frobnicate"])
        .said(1, &["frobnicate: no such source; there are busybox, iproute2, linux, tini"]);
    checkout.run(&["--offline", "update"]).said(1, &["update asks the origins, which --offline forbids"]);
    checkout
        .run(&["update", "tini"])
        .said(1, &["the server answered 404", "tini: no origin could be looked at"]);
}
