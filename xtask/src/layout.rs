//! Every path, once. In: the checkout's root and the cache folder. Out: where each thing lies.
//! Must never: look at the disk.

use std::path::{Path, PathBuf};

/// Where things lie. `root` is the checkout; the cache lies outside it, so that a fresh clone builds nothing twice.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    cache: PathBuf,
}

impl Layout {
    /// The layout of the checkout `root` with built things in `cache`.
    pub fn new(root: PathBuf, cache: PathBuf) -> Self {
        Self { root, cache }
    }

    /// The checkout's top folder.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The pinned sources' file.
    pub fn sources_toml(&self) -> PathBuf {
        self.root.join("xtask/sources.toml")
    }
    /// The hashes of the image that was last recorded, with the tools that made it.
    pub fn image_toml(&self) -> PathBuf {
        self.root.join("xtask/image.toml")
    }
    /// Kernel configuration fragments.
    pub fn kernel_config(&self) -> PathBuf {
        self.root.join("kernel-config")
    }
    /// The settings that the kernel's configuration is judged by; beside them, what distributions have of these.
    pub fn recommendations(&self) -> PathBuf {
        self.root.join("xtask/hardening/recommendations.toml")
    }
    /// BusyBox's configuration fragments.
    pub fn busybox_config(&self) -> PathBuf {
        self.root.join("xtask/busybox-config")
    }
    /// The tree that mirrors `/` of the image.
    pub fn rootfs_overlay(&self) -> PathBuf {
        self.root.join("rootfs-overlay")
    }
    /// GRUB's configuration template.
    pub fn grub(&self) -> PathBuf {
        self.root.join("grub")
    }
    /// Machine profiles and boot tests.
    pub fn qemu(&self) -> PathBuf {
        self.root.join("qemu")
    }
    /// Folders that machines are given.
    pub fn shares(&self) -> PathBuf {
        self.qemu().join("shares")
    }
    /// Pins of the upstream suites, what references gave, and known failures.
    pub fn conformance(&self) -> PathBuf {
        self.root.join("xtask/conformance")
    }
    /// The results: the one place that a user looks into.
    pub fn dist(&self) -> PathBuf {
        self.root.join("dist")
    }
    /// A tree that is kept between builds of a stage, and what was made in it: never a part of the cache.
    pub fn kept(&self, stage: &str) -> PathBuf {
        self.notes().join("kept").join(stage)
    }
    /// Cargo's target folder, for what only this checkout needs.
    pub fn target(&self) -> PathBuf {
        self.root.join("target")
    }
    /// What xtask itself notes down in this checkout: logs, records of the last run.
    pub fn notes(&self) -> PathBuf {
        self.target().join("xtask")
    }
    /// One log file a stage.
    pub fn stage_log(&self, stage: &str) -> PathBuf {
        self.notes().join("log").join(format!("{stage}.log"))
    }
    /// The inputs that a stage had when it last ran here: tells why it runs again.
    pub fn last_inputs(&self, stage: &str) -> PathBuf {
        self.notes().join("inputs").join(format!("{stage}.json"))
    }
    /// The cache folder.
    pub fn cache(&self) -> &Path {
        &self.cache
    }
    /// Verified source tarballs, one folder a sha256.
    pub fn sources(&self) -> PathBuf {
        self.cache.join("sources")
    }
    /// Built artefacts: `<cache>/built/<stage>/<key>/`.
    pub fn built(&self, stage: &str) -> PathBuf {
        self.cache.join("built").join(stage)
    }
    /// Host programs that the project builds for itself (cargo-deny), by version.
    pub fn tools(&self) -> PathBuf {
        self.cache.join("tools")
    }
    /// Lock files, one a key.
    pub fn locks(&self) -> PathBuf {
        self.cache.join("locks")
    }
}
