//! The bills of materials before the judges: the formats' own schemas and SPDX's list of licences. In: documents of the
//! real pins and the real lock file. Must never: judge by a schema other than the pinned one.
//!
//! The schemas come from the crate registry: two crates carry them beside code that is not used here. They are fetched
//! into a folder of their own, so that this workspace does not depend on them; cargo keeps them for the next time.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::materials::tests::real;
use super::{cyclonedx, spdx};
use crate::artifact::sha256_file;

/// Crate, version, file in it, sha256 of that file.
type Pinned = (&'static str, &'static str, &'static str, &'static str);

const CYCLONEDX: Pinned = (
    "serde-cyclonedx",
    "0.10.0",
    "schemas/cyclonedx_1_6.json",
    "4d335b61f4bf3213550f609a8de0218bcae656cf3e8406fbfe5ac573c695197f",
);
const SPDX: Pinned = (
    "serde-spdx",
    "0.10.0",
    "schemas/spdx_2_3.json",
    "b975b4a9145bf1b1e01427b3abfdd8bdfb4d6a5fd34ab51115cd5e65df9da931",
);

/// The schema, checked.
fn schema((name, version, file, sha256): Pinned) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let manifest = format!(
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n[workspace]\n[dependencies]\n{name} = \"={version}\"\n"
    );
    std::fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::write(dir.path().join("lib.rs"), "").unwrap();
    let metadata = |more: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["metadata", "--format-version", "1"]).args(more).current_dir(dir.path());
        cargo.output().unwrap()
    };
    // What cargo kept from an earlier time needs no network.
    let mut output = metadata(&["--offline"]);
    if !output.status.success() {
        output = metadata(&[]);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the schema's crate {name} {version} can't be had:\n{said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == name).unwrap();
    let path = PathBuf::from(package["manifest_path"].as_str().unwrap()).with_file_name(file);
    assert_eq!(sha256_file(&path).unwrap().0, sha256, "{name} {version}: another {file}");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn faults(schema: &Value, document: &Value) -> Vec<String> {
    // CycloneDX's schema refers to two others, for signatures and for identifiers of single licences. A bill of ours has
    // neither; a document that had one would be refused here.
    let never = json!({ "not": {}, "definitions": { "signature": { "not": {} } } });
    let resource = || jsonschema::Resource::from_contents(never.clone());
    let registry = jsonschema::Registry::new()
        .add("http://cyclonedx.org/schema/spdx.schema.json", resource())
        .and_then(|registry| registry.add("http://cyclonedx.org/schema/jsf-0.82.schema.json", resource()))
        .and_then(|registry| registry.prepare())
        .unwrap();
    let validator =
        jsonschema::options().with_registry(&registry).should_validate_formats(true).build(schema).unwrap();
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn cyclonedx_is_what_its_schema_says() {
    let (schema, document) = (schema(CYCLONEDX), cyclonedx::document(&real()));
    assert_eq!(faults(&schema, &document), Vec::<String>::new());
    // The judge does judge.
    let mut broken = document.clone();
    broken["components"][0]["type"] = json!("programme");
    assert_eq!(faults(&schema, &broken).len(), 1);
    let mut broken = document;
    broken["components"][0]["licenses"] = json!([{ "license": { "id": "no-such-licence" } }]);
    assert_ne!(faults(&schema, &broken).len(), 0);
}

#[test]
fn spdx_is_what_its_schema_says() {
    let (schema, document) = (schema(SPDX), spdx::document(&real()));
    assert_eq!(faults(&schema, &document), Vec::<String>::new());
    let mut broken = document;
    broken["packages"][0]["licence"] = json!("MIT");
    assert_eq!(faults(&schema, &broken).len(), 1);
}

#[test]
fn licences_are_expressions_of_spdx() {
    let materials = real();
    let sources = materials.sources.all().map(|source| source.licence.clone());
    let linked = ["GPL-3.0-or-later WITH GCC-exception-3.1", "LGPL-2.1-or-later"].map(str::to_owned);
    let crates = materials.crates.iter().map(|part| part.licence.clone());
    for licence in crates.chain(sources).chain(linked) {
        assert!(::spdx::Expression::parse(&licence).is_ok(), "{licence}");
    }
    assert!(::spdx::Expression::parse("MIT/Apache-2.0").is_err());
}

#[test]
fn every_reference_leads_to_a_component_and_identifiers_are_single() {
    let materials = real();
    let bill = cyclonedx::document(&materials);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut known: Vec<String> =
        bill["components"].as_array().unwrap().iter().map(|part| text(&part["bom-ref"])).collect();
    known.push("coracle".to_owned());
    for dependency in bill["dependencies"].as_array().unwrap() {
        let targets = dependency["dependsOn"].as_array().unwrap().iter().chain([&dependency["ref"]]);
        assert!(targets.clone().count() > 3);
        targets.for_each(|target| assert!(known.contains(&text(target)), "{target}"));
    }
    let count = known.len();
    known.sort();
    known.dedup();
    assert_eq!(known.len(), count);
    let bill = spdx::document(&materials);
    let known: Vec<String> =
        bill["packages"].as_array().unwrap().iter().map(|part| text(&part["SPDXID"])).collect();
    for relation in bill["relationships"].as_array().unwrap() {
        assert!(known.contains(&text(&relation["relatedSpdxElement"])), "{relation}");
    }
    assert_eq!(known.iter().collect::<std::collections::BTreeSet<_>>().len(), known.len());
}
