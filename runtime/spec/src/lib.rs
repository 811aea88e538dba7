//! config.json's types (runtime-spec 1.3.0), one file a section.
//!
//! In: JSON. Out: what it says. Must never: give defaults or judge combinations.

pub mod hooks;
pub mod linux;
pub mod mount;
pub mod nulls;
pub mod process;
pub mod resources;
pub mod seccomp;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

pub use hooks::Hooks;
pub use linux::Linux;
pub use mount::Mount;
pub use process::Process;
pub use resources::Resources;
pub use seccomp::Seccomp;

/// A failed check or step, in one sentence: what is wrong with a file and where, or what could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// An error with its whole sentence.
    pub fn new(message: impl Into<String>) -> Error {
        Error(message.into())
    }

    /// A field of config.json that is wrong: `field` is its path, like `linux.resources.pids.limit`.
    pub fn spec(field: impl std::fmt::Display, message: impl std::fmt::Display) -> Error {
        Error(format!("{field}: {message}"))
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// More than any real configuration; a limit so that a wrong file does not fill the memory.
const BYTES_MAX: u64 = 16 << 20;

/// config.json (config.md).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Version of the specification that the file follows.
    pub oci_version: String,
    /// The container's program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Its root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Its host name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Its NIS domain name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// What is mounted in it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Programs that run at points of its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Anything that callers want to note down.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything that only Linux has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

impl Spec {
    /// Reads config.json. What reads and writes a whole `Spec` is compiled here, once, and not in each crate that does it:
    /// [`parse`] and [`text`] of what holds one use the same code.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(path: &Path) -> Result<Spec, Error> {
        load(path)
    }

    /// config.json's text.
    ///
    /// # Errors
    /// As [`text`].
    pub fn text(&self) -> Result<Vec<u8>, Error> {
        text("config.json", self)
    }

    /// `linux.seccomp`
    pub fn seccomp(&self) -> Option<&seccomp::Text> {
        self.linux.as_ref()?.seccomp.as_ref()
    }
}

/// `root`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Path of the root file system, absolute or from the bundle on.
    pub path: String,
    /// Whether it is mounted read-only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
}

/// Reads a JSON file. An error names the file and the path of the field.
///
/// # Errors
/// It can't be read, is too large, or is not such an object.
pub fn load<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, Error> {
    use std::io::Read;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(format!(
            "JSON specification file {} not found; `runc spec` writes one, --bundle DIR names another folder",
            path.display()
        )),
        _ => Error::new(format!("{}: {error}", path.display())),
    })?;
    // Most fit into this: then one read(2) and the end.
    let mut bytes = Vec::with_capacity(1 << 14);
    let read = file.take(BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::new(format!("{}: {error}", path.display())))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Error::new(format!("{}: larger than {BYTES_MAX} bytes", path.display())));
    }
    parse(&name, &bytes)
}

/// Reads JSON text that came from `name`. All that holds a [`Spec`] or a part of one is read by this function and
/// written by [`text`]: another of `serde_json`'s readers or writers is another copy of the whole schema's code.
///
/// # Errors
/// It is no such object.
pub fn parse<T: for<'a> Deserialize<'a>>(name: &str, bytes: &[u8]) -> Result<T, Error> {
    read(bytes).map_err(|(path, message)| match path.as_str() {
        "." => Error::new(format!("{name}: {message}")),
        path => Error::new(format!("{name}: {path}: {message}")),
    })
}

/// Reads JSON text; an error is the path of the field (`.` for the whole) and what is wrong with it.
fn read<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, (String, String)> {
    let whole = |error: serde_json::Error| (".".to_string(), error.to_string());
    let bytes = nulls::without(bytes).map_err(whole)?;
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let parsed = serde_path_to_error::deserialize(&mut json);
    let value = parsed.map_err(|error| (error.path().to_string(), error.inner().to_string()))?;
    json.end().map_err(whole)?;
    Ok(value)
}

/// JSON text for the file `name`, in the form of runc's `spec`.
///
/// # Errors
/// The value can't be told in JSON: a path that isn't UTF-8, say.
pub fn text(name: &str, value: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let mut json = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t"));
    value.serialize(&mut json).map_err(|error| Error::new(format!("{name}: {error}")))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        let error =
            parse::<Spec>("config.json", br#"{"ociVersion":"1.0.2","process":{"args":["a",7],"cwd":"/"}}"#);
        let message = error.unwrap_err().to_string();
        assert!(message.starts_with("config.json: process.args[1]: invalid type: integer `7`"), "{message}");
    }

    #[test]
    fn what_is_no_json_is_named_with_its_line() {
        let message = parse::<Spec>("config.json", b"{\n nonsense").unwrap_err().to_string();
        assert!(message.contains("line 2"), "{message}");
        assert!(parse::<Spec>("config.json", b"{\"ociVersion\":\"1.0.2\"} x").is_err());
    }

    #[test]
    fn unknown_properties_are_ignored() {
        let spec: Spec = parse("config.json", br#"{"ociVersion":"1.0.2","windows":{},"x":1}"#).unwrap();
        assert_eq!(spec.oci_version, "1.0.2");
    }
}
