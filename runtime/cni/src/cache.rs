//! Who is attached to what: one file an attachment, in the form of libcni's result cache (contract rule 20).
//!
//! The file is made before the first plugin is called and removed after the last one took everything back, so that a
//! crash in between leaves a trace by which `cni detach` and `cni gc` clear up.
//!
//! In: attachments. Out: what ADD was asked for and what it answered. Must never: write a file in place, or let a file
//! that can't be read stop a DEL.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use base64ct::Base64;
use base64ct::Encoding;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::error;
use super::error::Error;
use super::fields::Fields;
use super::list::NetworkList;
use super::plan::Attachment;

/// libcni's name for the form.
const KIND: &str = "cniCacheV1";

/// What is known of an attachment.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Who is attached to what.
    pub attachment: Attachment,
    /// The path of the container's network namespace.
    pub netns: Option<String>,
    /// Device and inode of that namespace, as text; libcni has no such field, and ignores it. A path like /proc/7/ns/net
    /// may stand for another namespace later.
    pub netns_identity: Option<String>,
    /// The configuration as it was at ADD.
    pub list: NetworkList,
    /// CNI_ARGS.
    pub args: Option<String>,
    /// The capabilities that were given.
    pub capabilities: Map<String, Value>,
    /// What ADD answered; none while it is at work, or when it never came to an end.
    pub result: Option<Value>,
}

impl Record {
    /// Whether the container's namespace is still the one that was attached.
    pub fn is_alive(&self) -> bool {
        let Some(path) = &self.netns else { return false };
        let identity = netns_identity(path);
        identity.is_some() && (self.netns_identity.is_none() || identity == self.netns_identity)
    }

    /// The record as the file holds it.
    pub fn to_value(&self) -> Value {
        let args =
            self.args.as_deref().unwrap_or_default().split(';').filter_map(|pair| pair.split_once('='));
        let args: Vec<[&str; 2]> = args.map(|(key, value)| [key, value]).collect();
        let mut object = json!({
            "kind": KIND,
            "containerId": self.attachment.id,
            "config": Base64::encode_string(self.list.to_value().to_string().as_bytes()),
            "ifName": self.attachment.ifname,
            "networkName": self.attachment.network,
        });
        let optional = [
            ("netns", self.netns.as_ref().map(|path| json!(path))),
            ("netnsIdentity", self.netns_identity.as_ref().map(|text| json!(text))),
            ("cniArgs", Some(json!(args)).filter(|_| !args.is_empty())),
            ("capabilityArgs", Some(json!(self.capabilities)).filter(|_| !self.capabilities.is_empty())),
            ("result", self.result.clone()),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                object[key] = value;
            }
        }
        object
    }

    /// Reads what a file holds.
    ///
    /// # Errors
    /// Code 6: it is no record, and which field says so.
    pub fn from_value(value: &Value) -> Result<Record, Error> {
        let fields = Fields::new(value, "")?;
        let wrong = |message: String| Error::new(error::DECODING_FAILURE, message);
        if fields.text("kind")? != Some(KIND) {
            return Err(wrong(format!("field kind: expected {KIND:?}")));
        }
        let text =
            |key: &str| -> Result<String, Error> { Ok(fields.required(key, fields.text(key)?)?.to_string()) };
        let config =
            Base64::decode_vec(&text("config")?).map_err(|cause| wrong(format!("field config: {cause}")))?;
        let args: Vec<String> = fields
            .list("cniArgs")?
            .into_iter()
            .filter_map(|(pair, _)| Some(format!("{}={}", pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)))
            .collect();
        Ok(Record {
            attachment: Attachment {
                network: text("networkName")?,
                id: text("containerId")?,
                ifname: text("ifName")?,
            },
            netns: fields.text("netns")?.map(str::to_string),
            netns_identity: fields.text("netnsIdentity")?.map(str::to_string),
            list: NetworkList::parse(&config, Path::new(""))?,
            args: Some(args.join(";")).filter(|args| !args.is_empty()),
            capabilities: fields
                .get("capabilityArgs")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
            result: fields.get("result").cloned(),
        })
    }
}

/// Device and inode of the namespace at `path`; none when there is none.
pub fn netns_identity(path: &str) -> Option<String> {
    let stat = rustix::fs::stat(path).ok()?;
    Some(format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// All that the folder holds.
#[derive(Debug, Default)]
pub struct Cached {
    /// The attachments, by file name.
    pub records: Vec<Record>,
    /// Files that can't be read as one, and why.
    pub broken: Vec<(PathBuf, Error)>,
}

/// The folder of the files.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in `folder`, `/var/lib/cni` as a rule; the files lie in `results` below it.
    pub fn new(folder: &Path) -> Cache {
        Cache { folder: folder.join("results") }
    }

    /// Notes an attachment down before it is made.
    ///
    /// # Errors
    /// Code 102 when there is one already (contract rule 15), 5.
    pub fn claim(&self, record: &Record) -> Result<(), Error> {
        let path = self.path(&record.attachment);
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|cause| failed(&self.folder, &cause))?;
        let mut file = match File::options().create_new(true).write(true).mode(0o600).open(&path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {
                let Attachment { network, id, ifname } = &record.attachment;
                let message = format!(
                    "container {id} is attached to network {network} as {ifname} already; `cni detach {network}` first, or `cni gc` if the container is gone"
                );
                return Err(Error::new(error::ALREADY_ATTACHED, message));
            }
            file => file.map_err(|cause| failed(&path, &cause))?,
        };
        let written = file.write_all(record.to_value().to_string().as_bytes());
        written.map_err(|cause| {
            let _ = std::fs::remove_file(&path); // nothing is attached; the first error is the one to tell
            failed(&path, &cause)
        })
    }

    /// Writes what has become of an attachment that was claimed.
    ///
    /// # Errors
    /// Code 5.
    pub fn store(&self, record: &Record) -> Result<(), Error> {
        let path = self.path(&record.attachment);
        let temporary =
            self.folder.join(format!(".{}.{}", file_name(&record.attachment), std::process::id()));
        let write = || {
            let mut file =
                File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
            file.write_all(record.to_value().to_string().as_bytes())?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|cause| {
            let _ = std::fs::remove_file(&temporary);
            failed(&path, &cause)
        })
    }

    /// An attachment; none when it is not there.
    ///
    /// # Errors
    /// Codes 5, 6 and 7 for a file that can't be read as one.
    pub fn read(&self, attachment: &Attachment) -> Result<Option<Record>, Error> {
        read_file(&self.path(attachment))
    }

    /// All attachments.
    ///
    /// # Errors
    /// Code 5 when the folder can't be listed.
    pub fn all(&self) -> Result<Cached, Error> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Cached::default()),
            entries => entries.map_err(|cause| failed(&self.folder, &cause))?,
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        // A name with a dot in front is a write that was cut off, or is going on.
        paths.retain(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
        paths.sort();
        let mut cached = Cached::default();
        for path in paths {
            match read_file(&path) {
                Ok(record) => cached.records.extend(record),
                Err(error) => cached.broken.push((path, error)),
            }
        }
        Ok(cached)
    }

    /// Forgets an attachment; one that is not there is fine.
    ///
    /// # Errors
    /// Code 5.
    pub fn remove(&self, attachment: &Attachment) -> Result<(), Error> {
        let path = self.path(attachment);
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(failed(&path, &cause)),
            _ => Ok(()),
        }
    }

    fn path(&self, attachment: &Attachment) -> PathBuf {
        self.folder.join(file_name(attachment))
    }
}

fn file_name(attachment: &Attachment) -> String {
    format!("{}-{}-{}", attachment.network, attachment.id, attachment.ifname)
}

fn read_file(path: &Path) -> Result<Option<Record>, Error> {
    let text = match std::fs::read(path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|cause| failed(path, &cause))?,
    };
    let value: Value = serde_json::from_slice(&text).map_err(|cause| {
        Error::new(error::DECODING_FAILURE, format!("{}: not JSON: {cause}", path.display()))
    })?;
    Record::from_value(&value)
        .map(Some)
        .map_err(|error| Error { message: format!("{}: {}", path.display(), error.message), ..error })
}

fn failed(path: &Path, cause: &std::io::Error) -> Error {
    Error::new(error::IO_FAILURE, format!("{}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn cache(name: &str) -> (PathBuf, Cache) {
        let folder = std::env::temp_dir().join(format!("cni-cache-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let cache = Cache::new(&folder);
        (folder, cache)
    }

    fn record(id: &str) -> Record {
        let list = br#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"bridge"}]}"#;
        Record {
            attachment: Attachment { network: "net".into(), id: id.into(), ifname: "eth0".into() },
            netns: Some("/proc/self/ns/net".into()),
            netns_identity: netns_identity("/proc/self/ns/net"),
            list: NetworkList::parse(list, Path::new("")).unwrap(),
            args: Some("A=1;B=2".into()),
            capabilities: json!({"ips": ["10.0.0.9"]}).as_object().cloned().unwrap(),
            result: None,
        }
    }

    #[test]
    fn rule_20_names_modes_and_form_are_libcnis() {
        let (folder, cache) = cache("form");
        let mut record = record("c1");
        cache.claim(&record).unwrap();
        record.result = Some(json!({"cniVersion": "1.1.0", "dns": {}}));
        cache.store(&record).unwrap();
        let path = folder.join("results/net-c1-eth0");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&folder.join("results"))), (0o600, 0o700));
        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((&value["kind"], &value["containerId"]), (&json!("cniCacheV1"), &json!("c1")));
        assert_eq!((&value["ifName"], &value["networkName"]), (&json!("eth0"), &json!("net")));
        assert_eq!(value["cniArgs"], json!([["A", "1"], ["B", "2"]]));
        assert_eq!(value["capabilityArgs"], json!({"ips": ["10.0.0.9"]}));
        let config = Base64::decode_vec(value["config"].as_str().unwrap()).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["plugins"], json!([{"type": "bridge"}]));
        assert_eq!(cache.read(&record.attachment).unwrap().unwrap(), record);
        let left: Vec<_> = std::fs::read_dir(folder.join("results")).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing but the file is left");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn rule_15_an_attachment_is_claimed_once() {
        let (folder, cache) = cache("claim");
        cache.claim(&record("c1")).unwrap();
        let error = cache.claim(&record("c1")).unwrap_err();
        assert!(error.code == error::ALREADY_ATTACHED && error.message.contains("c1"), "{error}");
        cache.claim(&record("c2")).unwrap();
        cache.remove(&record("c1").attachment).unwrap();
        cache.remove(&record("c1").attachment).unwrap();
        cache.claim(&record("c1")).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn rule_20_a_corrupt_file_is_told_and_stops_no_other() {
        let (folder, cache) = cache("corrupt");
        cache.claim(&record("c1")).unwrap();
        std::fs::write(folder.join("results/net-bad-eth0"), "{").unwrap();
        std::fs::write(folder.join("results/net-worse-eth0"), r#"{"kind":"cniCacheV1","config":"%%"}"#)
            .unwrap();
        let Cached { records, broken } = cache.all().unwrap();
        assert_eq!((records.len(), broken.len()), (1, 2));
        assert!(broken[0].1.message.contains("net-bad-eth0: not JSON"), "{}", broken[0].1);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_path_that_stands_for_another_namespace_is_no_longer_alive() {
        let mut record = record("c1");
        assert!(record.is_alive());
        record.netns_identity = Some("0:1".into());
        assert!(!record.is_alive());
        record.netns = Some("/proc/0/ns/net".into());
        assert!(!record.is_alive());
    }
}
