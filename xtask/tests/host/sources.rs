//! A broken sources.toml: file, line and field are named.

use crate::checkout::Checkout;

/// Runs `fetch` over sources.toml with `from` replaced by `to`, and expects the error at the line of `to` (or of `at`,
/// where it is given) with `words`.
#[track_caller]
fn broken(from: &str, to: &str, at: Option<&str>, words: &[&str]) {
    let checkout = Checkout::new();
    let text = checkout.sources_toml();
    assert!(text.contains(from), "{from:?} is not in\n{text}");
    let text = text.replacen(from, to, 1);
    checkout.write("xtask/sources.toml", &text);
    let at = at.unwrap_or(to);
    let line = text[..text.find(at).unwrap()].matches('\n').count() + 1;
    let place = format!("error: {}:{line}: ", checkout.root().join("xtask/sources.toml").display());
    let run = checkout.run(&["fetch"]);
    run.said(1, &[&place]);
    run.said(1, words);
}

#[test]
fn a_syntax_error() {
    broken("[source.linux]", "[source.linux", None, &["unclosed table"]);
    broken("version = \"1\"", "version = 1 2", None, &[]);
}

#[test]
fn a_value_of_another_type() {
    broken("version = \"1\"", "version = 1", None, &["integer `1`, expected a string"]);
    broken("epoch = 1793491200", "epoch = \"today\"", None, &["string \"today\", expected u64"]);
}

#[test]
fn a_missing_field() {
    broken("licence = \"MIT\"\n", "", Some("[source.linux]"), &["missing field `licence`"]);
    broken("hash_from = \"the test\"\n", "", Some("[[source.linux.origin]]"), &["missing field `hash_from`"]);
}

#[test]
fn an_unknown_field() {
    broken("licence = ", "license = ", None, &["unknown field `license`", "`licence`"]);
}

#[test]
fn a_hash_that_is_none() {
    broken(
        "sha256 = \"",
        "sha256 = \"x",
        None,
        &["source.linux.origin[0].sha256", "64 lower-case hexadecimal"],
    );
}

#[test]
fn an_address_that_is_none() {
    broken("url = \"http:", "url = \"ftp:", None, &["source.linux.origin[0].url", "not an http(s) address"]);
}

#[test]
fn an_origin_of_no_kind_or_of_two() {
    let (address, header) = ("url = \"http://127.0.0.1:9/linux-1.tar.gz\"\n", "[[source.linux.origin]]");
    let with = |line: &str| format!("{line}{address}");
    broken(address, &with("debian = \"x\"\n"), Some(address), &["origin[0].url: an origin has either"]);
    broken(address, "", Some(header), &["source.linux.origin[0].url: is missing"]);
    broken(address, "debian = \"x\"\n", None, &["origin[0].suites: name at least one suite"]);
    broken(
        "file = \"linux",
        "file = \"../linux",
        None,
        &["origin[0].file: \"../linux-1.tar.gz\" is not a plain"],
    );
}

#[test]
fn a_source_that_no_stage_uses() {
    broken(
        "[source.linux]",
        "[source.extra]\nversion = \"1\"\nlicence = \"MIT\"\nlicence_files = [\"x\"]\n[[source.extra.origin]]\nurl = \"https://x/y\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\nhash_from = \"x\"\n[source.linux]",
        None,
        &["source.extra: no stage uses this source"],
    );
}

#[test]
fn a_source_that_is_missing() {
    let checkout = Checkout::new();
    checkout.write("xtask/sources.toml", &checkout.sources_toml().replace("source.tini", "source.dumb-init"));
    checkout.run(&["fetch"]).said(1, &["sources.toml: source.tini is missing"]);
}
