//! The command line: clap types only. In: words. Out: `Cli`. Must never: look at the world or fill in a default that
//! depends on it.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds, boots and tests Coracle, a container operating system.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, propagate_version = false)]
pub struct Cli {
    /// Options for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options for every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Install missing host tools with the machine's package manager first (needs root)
    #[arg(long, global = true)]
    pub install_deps: bool,
    /// Use only what the cache and --mirror DIR have; ask no network
    #[arg(long, global = true)]
    pub offline: bool,
    /// Look for source tarballs here before their recorded origins: a folder, or an http(s) address
    #[arg(long, global = true, value_name = "DIR|URL")]
    pub mirror: Option<String>,
    /// Where sources and built things are kept [default: coracle in the XDG cache home]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// How many jobs compilers may run at once [default: the cores]
    #[arg(short, long, global = true, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Say why each stage is skipped or run
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List every host tool that is missing, with the command that installs them
    ///
    /// When: first, on a new machine, or when a build complains. Exit status 1 when something is missing.
    ///
    /// Example: cargo xtask doctor
    Doctor,
    /// Download the pinned sources and check their hashes
    ///
    /// When: to prepare for work without a network. Every build fetches what it needs by itself.
    ///
    /// Example: cargo xtask fetch --mirror /srv/tarballs
    Fetch,
    /// Build the Linux kernel from the fragments in kernel-config/
    ///
    /// When: after editing a fragment, to see whether every symbol can be had.
    ///
    /// Example: cargo xtask kernel -v
    Kernel,
    /// Build the static BusyBox
    ///
    /// When: after editing its configuration.
    ///
    /// Example: cargo xtask busybox
    Busybox,
    /// Build the static Tini, PID 1 of the image
    ///
    /// When: after changing its pin.
    ///
    /// Example: cargo xtask tini
    Tini,
    /// Build iproute2's static ip
    ///
    /// When: after changing its pin.
    ///
    /// Example: cargo xtask iproute2
    Iproute2,
    /// Build the static program `coracle`: container runtime and network plugins
    ///
    /// When: to use it on another Linux host, or to see its size.
    ///
    /// Example: cargo xtask runtime
    Runtime,
    /// Build the initramfs, with everything that goes into it
    ///
    /// When: you boot with your own kernel, or only the root file system changed.
    ///
    /// Example: cargo xtask initramfs
    Initramfs(ImageArgs),
    /// Build everything and make dist/coracle.iso
    ///
    /// When: you want the image. With --bundle your own container is in it, under /containers/NAME.
    ///
    /// Example: cargo xtask iso --bundle web=./my-bundle
    Iso(ImageArgs),
    /// Build what is missing and boot it in QEMU, the serial console on this terminal
    ///
    /// When: you want to look around, or to run one command inside and get its output and exit status. The command
    /// is typed at the guest's console: its standard error comes interleaved with its output, bytes that are not text
    /// and lines of any length pass unchanged.
    ///
    /// Example: cargo xtask qemu
    /// Example: cargo xtask qemu --memory 256 --publish 8080:80 -- runc list
    #[command(verbatim_doc_comment)]
    Qemu(QemuArgs),
    /// Run the host tests and the boot tests
    ///
    /// When: before you commit. With NAMEs, only the boot tests whose names contain one of them.
    ///
    /// Example: cargo xtask test
    /// Example: cargo xtask test dhcp
    #[command(verbatim_doc_comment)]
    Test(TestArgs),
    /// Change a configuration in its menu; what was changed is printed as fragment lines
    ///
    /// When: you look for a symbol, or want to try one. The lines go into a fragment by hand.
    ///
    /// Example: cargo xtask menuconfig kernel
    Menuconfig {
        /// Whose configuration
        which: Configured,
    },
    /// Show what takes up space in the image, part by part and file by file
    ///
    /// When: the image grew, or you want it smaller.
    ///
    /// Example: cargo xtask size
    Size(ImageArgs),
    /// Remove dist/ and this checkout's notes, or built things from the cache
    ///
    /// When: you need the space. Sources and built things in the cache stay unless --cache is given.
    ///
    /// Example: cargo xtask clean --cache --keep 2
    Clean(CleanArgs),
}

/// What goes into the image besides the system itself.
#[derive(Debug, Args, Default, Clone)]
pub struct ImageArgs {
    /// Put the OCI bundle DIR (config.json and root file system) into the image as /containers/NAME; repeatable
    #[arg(long = "bundle", value_name = "NAME=DIR")]
    pub bundles: Vec<String>,
}

/// Options of `qemu`.
#[derive(Debug, Args)]
pub struct QemuArgs {
    /// What goes into the image.
    #[command(flatten)]
    pub image: ImageArgs,
    /// Boot kernel and initramfs directly instead of the ISO
    #[arg(long)]
    pub direct: bool,
    /// Boot the ISO with UEFI firmware (OVMF) instead of a BIOS
    #[arg(long, conflicts_with = "direct")]
    pub uefi: bool,
    /// Memory of the guest in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub memory: u32,
    /// Processors of the guest
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub cpus: u32,
    /// Forward the TCP port HOST of 127.0.0.1 to the guest's port GUEST; repeatable
    #[arg(long, value_name = "HOST:GUEST")]
    pub publish: Vec<String>,
    /// Attach a raw or qcow2 disk image (virtio-blk); repeatable
    #[arg(long, value_name = "FILE")]
    pub disk: Vec<PathBuf>,
    /// Share a folder of this machine; it appears at /mnt/share in the guest
    #[arg(long, value_name = "DIR")]
    pub share: Option<PathBuf>,
    /// Words for the kernel's command line (implies --direct: GRUB owns the ISO's)
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true, conflicts_with = "uefi")]
    pub append: Option<String>,
    /// A command to run in the guest instead of an interactive console
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Options of `test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Only boot tests whose names contain one of these
    pub names: Vec<String>,
    /// List the boot tests and stop
    #[arg(long)]
    pub list: bool,
}

/// Options of `clean`.
#[derive(Debug, Args)]
pub struct CleanArgs {
    /// Remove built things from the cache too (sources stay)
    #[arg(long)]
    pub cache: bool,
    /// With --cache: keep the newest N of each stage
    #[arg(long, value_name = "N", default_value_t = 0, requires = "cache")]
    pub keep: usize,
}

/// What has a menu.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Configured {
    /// The Linux kernel.
    Kernel,
    /// BusyBox.
    Busybox,
}
