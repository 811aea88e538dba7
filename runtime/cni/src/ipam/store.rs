//! host-local's reservations on disk, in the reference's format (contract rule 24): `<dataDir>/<network>/<ip>` holds
//! `ID\r\nIFNAME`, `last_reserved_ip.<n>` the last address of a range set, `lock` is flock'ed.
//!
//! Beside it `<dataDir>/.attachments/<network>/<id>,<ifname>` lists an attachment's addresses, so that finding them costs
//! the same with 5,000 reservations as with one. It is an index, not the truth: what an address's file says counts.
//!
//! In: addresses and attachments. Out: what is reserved. Must never: touch another network's folder.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::FlockOperation;

use super::super::error;
use super::super::error::Error;
use super::super::plan::Attachment;

/// A network's reservations, locked until it is dropped.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    index: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens, makes where needed, and locks the reservations of `network`.
    ///
    /// # Errors
    /// Code 5.
    pub fn open(data_dir: &Path, network: &str) -> Result<Store, Error> {
        let folder = data_dir.join(network);
        let index = data_dir.join(".attachments").join(network);
        std::fs::create_dir_all(&folder).map_err(|cause| io_error(&folder, &cause))?;
        let path = folder.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(|cause| io_error(&path, &cause))?;
        let locked = rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive));
        locked.map_err(|errno| io_error(&path, &errno.into()))?;
        let store = Store { folder, index, _lock: lock };
        store.make_index()?;
        Ok(store)
    }

    /// The first time, the index is made from what is there (perhaps by the reference's plugin).
    fn make_index(&self) -> Result<(), Error> {
        if self.index.is_dir() {
            return Ok(());
        }
        // Made under another name first: a folder that exists must be whole.
        let making = self.index.with_extension("making");
        std::fs::create_dir_all(&making).map_err(|cause| io_error(&making, &cause))?;
        for (address, id, ifname) in self.scan()? {
            self.append(&making.join(format!("{id},{}", ifname.unwrap_or_default())), address)?;
        }
        std::fs::rename(&making, &self.index).map_err(|cause| io_error(&self.index, &cause))
    }

    /// Reserves `address` if it is free, and says whether it was.
    ///
    /// # Errors
    /// Code 5.
    pub fn reserve(&self, address: IpAddr, attachment: &Attachment) -> Result<bool, Error> {
        let path = self.folder.join(address.to_string());
        if path.exists() {
            return Ok(false);
        }
        // The index first: who is killed in between has an entry that leads to nothing, or to a file that says nothing yet.
        self.append(&self.entry(attachment), address)?;
        let mut file = match File::options().create_new(true).write(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(cause) => return Err(io_error(&path, &cause)),
        };
        let text = format!("{}\r\n{}", attachment.id, attachment.ifname);
        if let Err(cause) = file.write_all(text.as_bytes()) {
            let _ = std::fs::remove_file(&path); // the first error is the one to tell
            return Err(io_error(&path, &cause));
        }
        Ok(true)
    }

    /// The addresses that the attachment holds.
    pub fn addresses(&self, attachment: &Attachment) -> Vec<IpAddr> {
        let mut lines = std::fs::read_to_string(self.entry(attachment)).unwrap_or_default();
        // Reservations of before the reference wrote the interface's name.
        let bare = Attachment { ifname: String::new(), ..attachment.clone() };
        lines.push_str(&std::fs::read_to_string(self.entry(&bare)).unwrap_or_default());
        let addresses = lines.lines().filter_map(|line| line.parse().ok());
        addresses.filter(|address| self.is_owner(*address, attachment)).collect()
    }

    /// Gives back all that the attachment holds; nothing to give back is fine.
    ///
    /// # Errors
    /// Code 5.
    pub fn release(&self, attachment: &Attachment) -> Result<(), Error> {
        for address in self.addresses(attachment) {
            self.remove(&self.folder.join(address.to_string()))?;
        }
        self.remove(&self.entry(attachment))?;
        self.remove(&self.entry(&Attachment { ifname: String::new(), ..attachment.clone() }))
    }

    /// Gives back what no attachment in `valid` holds.
    ///
    /// # Errors
    /// Code 5, the first one; the rest is done all the same.
    pub fn keep_only(&self, valid: &[Attachment]) -> Result<(), Error> {
        let mut result = Ok(());
        for (address, id, ifname) in self.scan()? {
            let is_valid = valid
                .iter()
                .any(|keep| keep.id == id && ifname.as_ref().is_none_or(|ifname| *ifname == keep.ifname));
            if !is_valid {
                result = result.and(self.remove(&self.folder.join(address.to_string())));
                let entry = self.index.join(format!("{id},{}", ifname.unwrap_or_default()));
                result = result.and(self.remove(&entry));
            }
        }
        result
    }

    /// The last address that was given from range set `set`.
    pub fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        let text = std::fs::read_to_string(self.folder.join(format!("last_reserved_ip.{set}"))).ok()?;
        text.trim().parse().ok()
    }

    /// Remembers it.
    ///
    /// # Errors
    /// Code 5.
    pub fn set_last_reserved(&self, set: usize, address: IpAddr) -> Result<(), Error> {
        let path = self.folder.join(format!("last_reserved_ip.{set}"));
        std::fs::write(&path, address.to_string()).map_err(|cause| io_error(&path, &cause))
    }

    /// Every reservation: address, id, interface (`None` in old files).
    fn scan(&self) -> Result<Vec<(IpAddr, String, Option<String>)>, Error> {
        let entries = std::fs::read_dir(&self.folder).map_err(|cause| io_error(&self.folder, &cause))?;
        let read = |entry: std::fs::DirEntry| {
            let address = entry.file_name().to_str()?.parse().ok()?;
            let text = std::fs::read_to_string(entry.path()).ok()?;
            let mut lines = text.lines();
            Some((
                address,
                lines.next().unwrap_or_default().trim().to_string(),
                lines.next().map(|name| name.trim().to_string()),
            ))
        };
        Ok(entries.flatten().filter_map(read).collect())
    }

    /// Whether an address of the attachment's entry is its own. An empty file is that of somebody who was killed before he
    /// could say whose it is; nobody else is at work, since the folder is locked.
    fn is_owner(&self, address: IpAddr, attachment: &Attachment) -> bool {
        let Ok(text) = std::fs::read_to_string(self.folder.join(address.to_string())) else { return false };
        let mut lines = text.lines().map(str::trim);
        lines.next().is_none_or(|id| id == attachment.id)
            && lines.next().is_none_or(|ifname| ifname == attachment.ifname)
    }

    fn entry(&self, attachment: &Attachment) -> PathBuf {
        self.index.join(format!("{},{}", attachment.id, attachment.ifname))
    }

    /// In one write: half a line would spoil the one that follows it.
    fn append(&self, path: &Path, address: IpAddr) -> Result<(), Error> {
        let file = File::options().create(true).append(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| file.write_all(format!("{address}\n").as_bytes()));
        written.map_err(|cause| io_error(path, &cause))
    }

    fn remove(&self, path: &Path) -> Result<(), Error> {
        match std::fs::remove_file(path) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => Err(io_error(path, &cause)),
            _ => Ok(()),
        }
    }
}

fn io_error(path: &Path, cause: &std::io::Error) -> Error {
    Error::new(error::IO_FAILURE, format!("{}: {cause}", path.display()))
}
