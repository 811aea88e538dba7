//! A case's machine -> a running one. In: `Machine`, the way of booting, the image. Out: a `Vm` that takes commands, and
//! the host ports of what it publishes. Must never: leave a disk image behind, or use a port that is taken.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::case::{DiskContent, DiskImage, Machine, Share};
use crate::context::Build;
use crate::stage;
use crate::vm::{Acceleration, Boot, Disk, Files, Network, Profile, READY_DEADLINE, Vm};

/// The smallest that mkfs.ext4 makes with a journal is 4 MiB; NVMe and USB storage want whole sectors.
const DISK_BYTES: u64 = 8 << 20;

/// What all machines of a run have in common.
#[derive(Debug)]
pub struct Bench<'a> {
    /// Paths, tools, voice.
    pub build: &'a Build,
    /// The image.
    pub files: Files,
    /// What runs the guests.
    pub acceleration: Acceleration,
    /// Where disk images and logs go.
    pub room: PathBuf,
}

/// A machine that takes commands.
#[derive(Debug)]
pub struct Running {
    /// The machine.
    pub vm: Vm,
    /// Guest port -> port on 127.0.0.1.
    pub published: Vec<(u16, u16)>,
}

impl Bench<'_> {
    /// Boots `machine` and waits until it is ready. Everything that it says goes to `log`.
    pub fn boot(&self, machine: &Machine, boot: Boot, log: &Path) -> Result<Running> {
        let mut published = Vec::new();
        for &guest in &machine.publish {
            published.push((guest, free_port()?));
        }
        let network = machine.network.as_ref().map(|model| Network {
            model: model.clone(),
            publish: published.iter().map(|&(guest, host)| (host, guest)).collect(),
        });
        let mut disks = Vec::new();
        for (index, disk) in machine.disks.iter().enumerate() {
            let file = self.room.join(format!("disk{index}.img"));
            self.make_disk(disk, &file).with_context(|| format!("{}: cannot make", file.display()))?;
            disks.push(Disk { file, bus: disk.bus, keep: true });
        }
        let profile = Profile {
            boot,
            memory: machine.memory,
            cpus: machine.cpus,
            network,
            disks,
            share: machine.share.as_ref().map(|share| self.shared(share)).transpose()?,
            append: machine.append.clone(),
        };
        let mut vm = Vm::boot(self.build, &profile, &self.files, self.acceleration, log)?;
        vm.expect(&machine.ready, READY_DEADLINE)?;
        Ok(Running { vm, published })
    }

    fn shared(&self, share: &Share) -> Result<PathBuf> {
        match share {
            Share::Folder(name) => Ok(self.share(name)),
            // The stage's folder holds the program and its record, nothing else.
            Share::Test(name) => {
                let program = stage::runtime::test_program(self.build, name)?;
                let folder = program.path.parent().context("the test program lies in no folder")?;
                Ok(folder.to_owned())
            }
        }
    }

    fn share(&self, name: &str) -> PathBuf {
        self.build.layout.shares().join(name)
    }

    fn make_disk(&self, disk: &DiskImage, path: &Path) -> Result<()> {
        let mut file = File::create(path)?;
        file.set_len(DISK_BYTES)?;
        match &disk.content {
            DiskContent::Text(text) => Ok(file.write_all(text.as_bytes())?),
            DiskContent::Ext4(name) => {
                let mut log = crate::ui::Log::create(path.with_extension("log"))?;
                let mut mkfs = Command::new(self.build.host.require("mkfs.ext4")?);
                mkfs.args(["-q", "-F", "-d"]).arg(self.share(name)).arg(path);
                log.run(mkfs)
            }
        }
    }
}

/// A port of 127.0.0.1 that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free TCP port")?;
    Ok(listener.local_addr().context("no free TCP port")?.port())
}
