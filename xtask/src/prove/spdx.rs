//! `Materials` -> SPDX 2.3. In: the materials. Out: a JSON document that SPDX's schema accepts (a test asks it).
//! Must never: claim what nobody looked at: copyright texts and concluded licences are NOASSERTION.

use serde_json::{Value, json};

use super::cyclonedx::{cargo_purl, source_purl};
use super::{Materials, rfc3339, uuid};
use crate::sources::{Place, Source};

const PROGRAM: &str = "SPDXRef-Program";

/// The document.
pub fn document(materials: &Materials) -> Value {
    let mut packages = Vec::new();
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")];
    let files = materials
        .files
        .iter()
        .map(|(name, artifact)| format!("{name} sha256 {}", artifact.sha256))
        .collect::<Vec<_>>()
        .join("; ");
    let mut image = package("SPDXRef-Image", "coracle", materials.version, "Apache-2.0");
    image["comment"] = json!(format!("The whole image; its parts keep their own licences. Files: {files}"));
    if let Some(iso) = materials.files.get("coracle.iso") {
        image["packageFileName"] = json!("coracle.iso");
        image["checksums"] = checksum(&iso.sha256);
    }
    packages.push(image);
    let mut program = package(PROGRAM, "coracle (the static program)", materials.version, "Apache-2.0");
    if let Some(file) = materials.files.get("coracle") {
        program["packageFileName"] = json!("coracle");
        program["checksums"] = checksum(&file.sha256);
    }
    packages.push(program);
    relations.push(relation("SPDXRef-Image", "CONTAINS", PROGRAM));
    for source in materials.sources.all() {
        let id = id("Source", &source.name, &source.version);
        relations.push(relation("SPDXRef-Image", "GENERATED_FROM", &id));
        packages.push(pinned(&id, source));
    }
    for part in &materials.linked {
        let id = id("Machine", part.name, "");
        let owner = if part.part_of == "coracle" { PROGRAM } else { "SPDXRef-Image" };
        relations.push(relation(owner, "STATIC_LINK", &id));
        let mut package = package(&id, part.name, &part.version, part.licence);
        package["comment"] = json!(format!("from the building machine's packages; part of {}", part.part_of));
        packages.push(package);
    }
    for part in &materials.crates {
        let id = id("Crate", &part.name, &part.version);
        relations.push(relation(PROGRAM, "STATIC_LINK", &id));
        let mut package = package(&id, &part.name, &part.version, &part.licence);
        package["checksums"] = checksum(&part.sha256);
        package["externalRefs"] = purl(&cargo_purl(&part.name, &part.version));
        packages.push(package);
    }
    let identity = uuid(&materials.identity());
    json!({
        "SPDXID": "SPDXRef-DOCUMENT",
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "name": format!("coracle-{}", materials.version),
        "documentNamespace": format!("https://spdx.org/spdxdocs/coracle-{}-{identity}", materials.version),
        "creationInfo": {
            "created": rfc3339(materials.epoch),
            "creators": [format!("Tool: coracle-xtask-{}", materials.version)],
        },
        "packages": packages,
        "relationships": relations,
    })
}

fn pinned(id: &str, source: &Source) -> Value {
    let mut package = package(id, &source.name, &source.version, &source.licence);
    if let Some(first) = source.origins.first() {
        package["packageFileName"] = json!(first.file);
        package["checksums"] = checksum(&first.sha256);
        if let Place::Url(url) = &first.place {
            package["downloadLocation"] = json!(url);
        }
    }
    let others =
        source.origins.iter().skip(1).map(|origin| format!("{} sha256 {}", origin.file, origin.sha256));
    let others = others.collect::<Vec<_>>().join("; ");
    if !others.is_empty() {
        package["comment"] = json!(format!("or, to the same end, {others}"));
    }
    package["externalRefs"] = purl(&source_purl(source));
    package
}

fn package(id: &str, name: &str, version: &str, licence: &str) -> Value {
    json!({
        "SPDXID": id, "name": name, "versionInfo": version, "licenseDeclared": licence,
        "licenseConcluded": "NOASSERTION", "copyrightText": "NOASSERTION", "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
    })
}

fn checksum(sha256: &str) -> Value {
    json!([{ "algorithm": "SHA256", "checksumValue": sha256 }])
}

fn purl(purl: &str) -> Value {
    json!([{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl }])
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// Letters, digits, dots and hyphens are all that an SPDX identifier may hold.
fn id(kind: &str, name: &str, version: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' };
    format!("SPDXRef-{kind}-{}", format!("{name}-{version}").chars().map(plain).collect::<String>())
}
