//! `Materials` -> an in-toto statement with SLSA's provenance. In: the materials, the commit, the files of dist/. Out: what
//! was made, from what, by which command with which tools. Must never: hold a time or a name of this machine, so that
//! two builds of one commit make the same statement.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Materials;
use super::cyclonedx::{cargo_purl, source_purl};
use crate::sources::Place;

/// The commit that a checkout is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Git's name of it.
    pub id: String,
    /// Whether the checkout differs from it.
    pub changed: bool,
}

/// The statement about `files` (name -> sha256).
pub fn statement(materials: &Materials, commit: Option<&Commit>, files: &BTreeMap<&str, String>) -> Value {
    let subject = files.iter().map(|(name, sha256)| json!({ "name": name, "digest": { "sha256": sha256 } }));
    let mut dependencies = Vec::new();
    if let Some(commit) = commit {
        dependencies.push(json!({
            "name": "coracle", "uri": "urn:coracle:repository", "digest": { "gitCommit": commit.id },
            "annotations": { "changed": commit.changed },
        }));
    }
    for source in materials.sources.all() {
        dependencies.extend(source.origins.iter().map(|origin| {
            let uri = match &origin.place {
                Place::Url(url) => url.clone(),
                Place::Debian { .. } => source_purl(source),
            };
            json!({ "name": origin.file, "uri": uri, "digest": { "sha256": origin.sha256 } })
        }));
    }
    dependencies.extend(materials.crates.iter().map(
        |part| json!({ "uri": cargo_purl(&part.name, &part.version), "digest": { "sha256": part.sha256 } }),
    ));
    let keys: BTreeMap<&str, &str> =
        materials.stages.iter().map(|(name, artifact)| (*name, artifact.key.as_str())).collect();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject.collect::<Vec<_>>(),
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:coracle:xtask:iso:1",
                "externalParameters": { "command": "cargo xtask iso", "bundles": materials.bundles },
                "internalParameters": { "epoch": materials.epoch, "stageKeys": keys },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": { "id": "urn:coracle:xtask", "version": materials.tools },
            },
        },
    })
}

/// The commit of the checkout `root`; None where it is no git checkout of its own, or there is no git.
pub fn commit(root: &Path) -> Option<Commit> {
    if !root.join(".git").exists() {
        return None;
    }
    let git = |words: &[&str]| {
        let output = Command::new("git")
            // The checkout may belong to another user than the one who builds.
            .args(["-c", &format!("safe.directory={}", root.display())])
            .args(words)
            .current_dir(root)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let id = git(&["rev-parse", "HEAD"])?;
    Some(Commit { id, changed: !git(&["status", "--porcelain"])?.is_empty() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prove::materials::tests::real;

    #[test]
    fn the_statement_names_what_was_made_and_from_what() {
        let materials = real();
        let commit = Commit { id: "c".repeat(40), changed: false };
        let files = BTreeMap::from([("coracle.iso", "a".repeat(64))]);
        let text = statement(&materials, Some(&commit), &files);
        assert_eq!(text["subject"][0]["digest"]["sha256"], "a".repeat(64));
        let definition = &text["predicate"]["buildDefinition"];
        assert_eq!(definition["externalParameters"]["bundles"][0], "web");
        let dependencies = definition["resolvedDependencies"].as_array().unwrap();
        let has = |digest: &str, value: &str| dependencies.iter().any(|one| one["digest"][digest] == value);
        assert!(has("gitCommit", &commit.id));
        assert!(materials.sources.all().iter().all(|source| has("sha256", &source.origins[0].sha256)));
        assert!(materials.crates.iter().all(|part| has("sha256", &part.sha256)));
    }

    #[test]
    fn a_folder_without_git_has_no_commit() {
        assert_eq!(commit(tempfile::tempdir().unwrap().path()), None);
    }
}
