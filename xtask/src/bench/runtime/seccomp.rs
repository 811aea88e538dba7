//! Docker's form of a seccomp profile -> config.json's. In: the profile of Debian's containers-common, which is docker's
//! default with podman's changes; the capabilities of the measured bundle. Out: `linux.seccomp`. Must never: be kept in
//! this repository: it is upstream's, and taken when it is measured with.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::bench::debian;
use crate::context::Build;

const PACKAGE: &str = "golang-github-containers-common";
const FILE: &str = "usr/share/containers/seccomp.json";
/// As Go names it.
const ARCHITECTURE: &str = "amd64";
/// What the bundle of `runc spec` has.
const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// The profile as `linux.seccomp`.
pub fn profile(build: &Build) -> Result<String> {
    let path = file(build)?;
    let text = std::fs::read(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    let profile = serde_json::from_slice(&text).with_context(|| format!("{}: no JSON", path.display()))?;
    let converted = converted(&profile).with_context(|| format!("{}: no profile", path.display()))?;
    Ok(converted.to_string())
}

/// The package's file, kept in the cache.
fn file(build: &Build) -> Result<PathBuf> {
    let kept = build.layout.tools().join("seccomp-profile/seccomp.json");
    if !kept.is_file() {
        let room = build.layout.tools().join("seccomp-profile/download");
        debian::unpack(build, PACKAGE, &room)?;
        crate::stamp::copy_whole(&room.join(FILE), &kept)?;
        crate::stamp::remove_tree(&room)?;
    }
    Ok(kept)
}

fn converted(profile: &Value) -> Option<Value> {
    let native = |entry: &&Value| entry["architecture"] == "SCMP_ARCH_X86_64";
    let mapped = profile["archMap"].as_array()?.iter().find(native)?;
    let mut architectures = vec![mapped["architecture"].clone()];
    architectures.extend(mapped["subArchitectures"].as_array()?.iter().cloned());
    let rules: Vec<Value> =
        profile["syscalls"].as_array()?.iter().filter(|rule| applies(rule)).map(converted_rule).collect();
    let mut section = json!({
        "defaultAction": profile["defaultAction"],
        "architectures": architectures,
        "syscalls": rules,
    });
    if !profile["defaultErrnoRet"].is_null() {
        section["defaultErrnoRet"] = profile["defaultErrnoRet"].clone();
    }
    Some(section)
}

/// Whether a rule is for this architecture and these capabilities. Every kernel that is asked for (`minKernel`) is older
/// than ours.
fn applies(rule: &Value) -> bool {
    let all_of = |list: &Value, there: &[&str]| match list.as_array() {
        Some(words) => words.iter().all(|word| word.as_str().is_some_and(|word| there.contains(&word))),
        None => true,
    };
    let any_of = |list: &Value, there: &[&str]| {
        let words = list.as_array().into_iter().flatten();
        words.filter_map(Value::as_str).any(|word| there.contains(&word))
    };
    let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
    let architectures = &includes["arches"];
    (architectures.is_null() || any_of(architectures, &[ARCHITECTURE]))
        && all_of(&includes["caps"], &CAPABILITIES)
        && !any_of(&excludes["arches"], &[ARCHITECTURE])
        && !any_of(&excludes["caps"], &CAPABILITIES)
}

fn converted_rule(rule: &Value) -> Value {
    let mut converted = json!({ "names": rule["names"], "action": rule["action"] });
    for field in ["errnoRet", "args"] {
        if !rule[field].is_null() && rule[field].as_array().is_none_or(|list| !list.is_empty()) {
            converted[field] = rule[field].clone();
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_those_of_the_architecture_and_the_capabilities() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "archMap": [
                { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"] },
                { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"] },
            ],
            "syscalls": [
                { "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {} },
                { "names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["arm"] } },
                { "names": ["b"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["amd64", "x32"], "minKernel": "4.8" } },
                { "names": ["c"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
                { "names": ["d"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": { "caps": ["CAP_SYS_ADMIN"] } },
                { "names": ["e"], "action": "SCMP_ACT_ALLOW", "excludes": { "caps": ["CAP_KILL"] } },
                { "names": ["f"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
            ],
        });
        let section = converted(&profile).unwrap();
        let names: Vec<&Value> =
            section["syscalls"].as_array().unwrap().iter().map(|rule| &rule["names"][0]).collect();
        assert_eq!(names, ["read", "b", "d", "f"]);
        assert_eq!(section["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
        assert_eq!(section["syscalls"][0], json!({ "names": ["read"], "action": "SCMP_ACT_ALLOW" }));
        assert_eq!(section["syscalls"][2]["errnoRet"], 1);
        assert_eq!(section["syscalls"][3]["args"][0]["value"], 8);
        assert!(converted(&json!({})).is_none());
    }
}
