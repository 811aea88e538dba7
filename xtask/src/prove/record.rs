//! xtask/image.toml: an image that was recorded, and the tools that made it. In: the file, the image's materials. Out: a
//! verdict: the same, made by other tools, or another image by the same tools, and whether from the same inputs. Must
//! never: pass over a difference without a word.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Materials;
use crate::artifact::sha256_bytes;
use crate::stamp::write_whole;

const HEAD: &str = "\
# The image that this commit makes, and the tools that made it; written by `cargo xtask verify --quick --record`.
# `cargo xtask test` fails when the same tools make another image.

";

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Hash over the keys of all stages.
    inputs: String,
    tools: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
}

/// What a record says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The image is the recorded one.
    Same,
    /// It was made by other tools: which can't be the same in general. One line for each.
    OtherTools(Vec<String>),
    /// The same tools made these files otherwise, from other inputs: somebody changed the image and did not record it.
    Unrecorded(Vec<String>),
    /// The same tools and inputs, and yet these files are others.
    Fault(Vec<String>),
}

impl Record {
    /// Of this image.
    pub fn of(materials: &Materials) -> Self {
        let keys: Vec<&str> = materials.stages.values().map(|artifact| artifact.key.as_str()).collect();
        let own = |(name, text): (&&'static str, &String)| ((*name).to_owned(), text.clone());
        Self {
            inputs: sha256_bytes(keys.join(" ").as_bytes()),
            tools: materials.tools.iter().map(own).collect(),
            files: materials
                .files
                .iter()
                .map(|(name, artifact)| ((*name).to_owned(), artifact.sha256.clone()))
                .collect(),
        }
    }

    /// The recorded one; None where nothing was recorded yet.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("{}: cannot read", path.display()))?,
        };
        toml::from_str(&text).map(Some).with_context(|| format!("{}: not such a record", path.display()))
    }

    /// Writes it.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self).context("the record can't be written as TOML")?;
        write_whole(path, format!("{HEAD}{text}").as_bytes())
    }

    /// Judges `image` by this record.
    pub fn judge(&self, image: &Self) -> Verdict {
        let tools = differences(&self.tools, &image.tools);
        let files = differences(&self.files, &image.files);
        if files.is_empty() {
            Verdict::Same
        } else if !tools.is_empty() {
            Verdict::OtherTools(tools)
        } else if self.inputs != image.inputs {
            Verdict::Unrecorded(files)
        } else {
            Verdict::Fault(files)
        }
    }
}

/// Names whose values differ, each with both.
pub fn differences(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let value =
        |map: &BTreeMap<String, String>, name| map.get(name).map_or("nothing", String::as_str).to_owned();
    names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name))
        .map(|name| format!("{name}: {} there, {} here", value(one, name), value(other, name)))
        .collect()
}

/// The hashes in the text of a SHA256SUMS, by file name.
pub fn parse_sums(text: &str) -> Result<BTreeMap<String, String>> {
    let mut sums = BTreeMap::new();
    for (line, number) in text.lines().zip(1..) {
        let parsed = line.split_once("  ").filter(|(hash, name)| hash.len() == 64 && !name.is_empty());
        let Some((hash, name)) = parsed else {
            bail!("line {number}: expected a sha256, two blanks, a file name")
        };
        sums.insert(name.to_owned(), hash.to_owned());
    }
    if sums.is_empty() {
        bail!("is empty");
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(inputs: &str, gcc: &str, iso: &str) -> Record {
        let map = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        Record { inputs: inputs.to_owned(), tools: map("gcc", gcc), files: map("coracle.iso", iso) }
    }

    #[test]
    fn only_other_tools_excuse_another_image() {
        let recorded = record("i", "12", "aa");
        assert_eq!(recorded.judge(&record("i", "12", "aa")), Verdict::Same);
        let files = vec!["coracle.iso: aa there, bb here".to_owned()];
        assert_eq!(recorded.judge(&record("j", "12", "bb")), Verdict::Unrecorded(files.clone()));
        let tools = vec!["gcc: 12 there, 13 here".to_owned()];
        assert_eq!(recorded.judge(&record("j", "13", "bb")), Verdict::OtherTools(tools));
        assert_eq!(recorded.judge(&record("i", "12", "bb")), Verdict::Fault(files));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.toml");
        assert_eq!(Record::load(&path).unwrap(), None);
        let one = record("i", "gcc (Debian) \"12\"", "aa");
        one.save(&path).unwrap();
        assert_eq!(Record::load(&path).unwrap(), Some(one));
    }

    #[test]
    fn hashes_are_lines_of_two_words() {
        let hash = "a".repeat(64);
        assert_eq!(parse_sums(&format!("{hash}  x y\n")).unwrap()["x y"], hash);
        assert!(parse_sums("").is_err() && parse_sums("aa  x\n").unwrap_err().to_string().contains("line 1"));
    }
}
