//! A lease on disk, so that a daemon that is started again goes on with it.
//!
//! In: whose lease it is, and the server's answer. Out: a file in the daemon's folder. Must never: be the truth about
//! the network: what it says counts only as long as the namespace is still the same one.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use serde_json::Value;
use serde_json::json;

use super::client::Client;
use super::message::Answer;
use super::message::Lease;
use crate::plan::Attachment;
use crate::plugin::interface::random;
use netlink::namespace;

/// A file that will hold a lease.
#[derive(Debug)]
pub struct LeaseFile {
    path: PathBuf,
    netns: String,
}

impl LeaseFile {
    /// A new one in `folder`; `netns` is the namespace's path.
    pub fn new(folder: &Path, netns: &str) -> LeaseFile {
        LeaseFile { path: folder.join(format!("{:016x}", random())), netns: netns.to_string() }
    }

    /// Writes it whole, or leaves the old one.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, attachment: &Attachment, client: &Client, lease: &Lease) -> std::io::Result<()> {
        let Attachment { network, id, ifname } = attachment;
        let (device, inode) = namespace::identity(&client.netns)?;
        let value = json!({"network": network, "id": id, "ifname": ifname, "netns": self.netns, "device": device,
            "inode": inode, "options": client.options, "answer": lease.answer, "since": now().as_secs()});
        let new = self.path.with_extension("new");
        std::fs::write(&new, value.to_string())?;
        std::fs::rename(&new, &self.path)
    }

    /// Removes it; one that is gone is fine.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// Reads one: whose it is, with the namespace open again, the lease, and how old it is; perhaps it has ended. `None`
    /// when it is broken, or the namespace is gone.
    pub fn read(path: PathBuf) -> Option<(LeaseFile, Attachment, Client, Lease, Duration)> {
        let value: Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        let text = |key: &str| value[key].as_str().map(str::to_string);
        let bytes = |value: &Value| -> Option<Vec<u8>> {
            value.as_array()?.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect()
        };
        let netns_path = text("netns")?;
        let netns = rustix::fs::open(&netns_path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let (device, inode) = namespace::identity(&netns).ok()?;
        if value["device"].as_u64() != Some(device) || value["inode"].as_u64() != Some(inode) {
            return None;
        }
        let option = |pair: &Value| Some((u8::try_from(pair[0].as_u64()?).ok()?, bytes(&pair[1])?));
        let options = value["options"].as_array()?.iter().map(option).collect::<Option<_>>()?;
        let attachment = Attachment { network: text("network")?, id: text("id")?, ifname: text("ifname")? };
        let client = Client { netns, ifname: attachment.ifname.clone(), options };
        let lease = Answer::parse(&bytes(&value["answer"])?)?.lease().ok()?;
        let age = now().saturating_sub(Duration::from_secs(value["since"].as_u64()?));
        let file = LeaseFile { path, netns: netns_path };
        Some((file, attachment, client, lease, age))
    }
}

/// Since 1970. A clock that is set moves a lease's end; the server's answer to the next renewal puts that right.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
