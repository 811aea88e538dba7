//! `Materials` -> CycloneDX 1.6. In: the materials. Out: a JSON document that CycloneDX's schema accepts (a test asks
//! it). Must never: name a component without its version and licence.

use serde_json::{Value, json};

use super::{Materials, rfc3339, uuid};
use crate::sources::{Place, Source};

/// The document.
pub fn document(materials: &Materials) -> Value {
    let crates: Vec<String> =
        materials.crates.iter().map(|part| cargo_purl(&part.name, &part.version)).collect();
    let mut components: Vec<Value> = materials.sources.all().into_iter().map(pinned).collect();
    components.extend(materials.linked.iter().map(|part| {
        json!({
            "type": "library", "bom-ref": linked_ref(part.name), "name": part.name, "version": part.version,
            "licenses": licences(part.licence),
            "properties": [{ "name": "coracle:part-of", "value": part.part_of }],
        })
    }));
    components.push(json!({
        "type": "application", "bom-ref": "coracle-program", "name": "coracle (the static program)",
        "version": materials.version, "licenses": licences("Apache-2.0"),
    }));
    components.extend(materials.crates.iter().zip(&crates).map(|(part, purl)| {
        json!({
            "type": "library", "bom-ref": purl, "purl": purl, "name": part.name, "version": part.version,
            "licenses": licences(&part.licence),
            "hashes": [{ "alg": "SHA-256", "content": part.sha256 }],
        })
    }));
    let tools = materials
        .tools
        .iter()
        .map(|(name, version)| json!({ "type": "application", "name": name, "version": version }));
    let files = materials.files.iter().map(|(name, artifact)| {
        json!({
            "type": "file", "bom-ref": format!("file-{name}"), "name": name,
            "hashes": [{ "alg": "SHA-256", "content": artifact.sha256 }],
        })
    });
    let in_image: Vec<String> = materials
        .sources
        .all()
        .into_iter()
        .map(source_purl)
        .chain(materials.linked.iter().map(|part| linked_ref(part.name)))
        .chain(["coracle-program".to_owned()])
        .collect();
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid(&materials.identity())),
        "version": 1,
        "metadata": {
            "timestamp": rfc3339(materials.epoch),
            "lifecycles": [{ "phase": "build" }],
            "tools": { "components": tools.collect::<Vec<_>>() },
            "component": {
                "type": "operating-system", "bom-ref": "coracle", "name": "coracle", "version": materials.version,
                "licenses": licences("Apache-2.0"),
                "components": files.collect::<Vec<_>>(),
            },
        },
        "components": components,
        "dependencies": [
            { "ref": "coracle", "dependsOn": in_image },
            { "ref": "coracle-program", "dependsOn": crates },
        ],
    })
}

fn pinned(source: &Source) -> Value {
    let origins = source.origins.iter().map(|origin| {
        let (url, comment) = match &origin.place {
            Place::Url(url) => (url.clone(), format!("hash from {}", origin.hash_from)),
            Place::Debian { package, suites } => (
                format!("pkg:deb/debian/{package}?arch=source"),
                format!("{}, suites {}", origin.file, suites.join(", ")),
            ),
        };
        json!({
            "type": "source-distribution", "url": url, "comment": comment,
            "hashes": [{ "alg": "SHA-256", "content": origin.sha256 }],
        })
    });
    json!({
        "type": if source.name == "linux" { "operating-system" } else { "application" },
        "bom-ref": source_purl(source), "purl": source_purl(source), "name": source.name, "version": source.version,
        "licenses": licences(&source.licence),
        "externalReferences": origins.collect::<Vec<_>>(),
    })
}

/// An expression, always: a single identifier is one too.
fn licences(expression: &str) -> Value {
    json!([{ "expression": expression }])
}

/// A pinned source's package URL.
pub fn source_purl(source: &Source) -> String {
    format!("pkg:generic/{}@{}", source.name, source.version)
}

/// A crate's package URL.
pub fn cargo_purl(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn linked_ref(name: &str) -> String {
    format!("machine-{name}")
}
