//! The command line: clap types only. In: words. Out: `Cli`. Must never: look at the world or fill in a default that
//! depends on it.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::conformance::{Caller, Part, Runtime, Suite};

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
    /// Build the kernel in a tree that is kept: an edit of a fragment compiles only what it touches. For work on this
    /// machine; the result enters the cache when `verify` has made it again from nothing
    #[arg(long, global = true)]
    pub incremental: bool,
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
    /// When: after editing a fragment, to see whether every symbol can be had. --hardening shows how the configuration
    /// stands to recommended settings, beside those of distributions.
    ///
    /// Example: cargo xtask kernel -v
    /// Example: cargo xtask kernel --hardening
    #[command(verbatim_doc_comment)]
    Kernel(KernelArgs),
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
    Iso(IsoArgs),
    /// Build what is missing and boot it in QEMU, the serial console on this terminal
    ///
    /// When: you want to look around, or to run one command inside and get its output and
    /// exit status. The command is typed at the guest's console: its standard error comes
    /// interleaved with its output; bytes that are not text and lines of any length pass
    /// unchanged. One word is a command line for the guest's shell, several are a program
    /// and its arguments.
    ///
    /// Example: cargo xtask qemu
    /// Example: cargo xtask qemu --memory 256 --publish 8080:80
    /// Example: cargo xtask qemu -- runc list
    /// Example: cargo xtask qemu -- 'dmesg | tail -n 3'
    #[command(verbatim_doc_comment)]
    Qemu(QemuArgs),
    /// Build the image a second time under other circumstances, and compare every file of dist/
    ///
    /// When: before a release, or to see whether this machine rebuilds a released image. Takes as long as a build
    /// without cache; --quick takes the kernel from the cache.
    ///
    /// Example: cargo xtask verify --quick
    /// Example: cargo xtask verify --against released/SHA256SUMS
    #[command(verbatim_doc_comment)]
    Verify(VerifyArgs),
    /// Look for newer versions of the pinned sources in each origin, and rewrite the pins
    ///
    /// When: now and then; a kernel's security fixes come weekly. Shows how the kernel's configuration changes. Linux
    /// stays in its long-term series unless --any is given.
    ///
    /// Example: cargo xtask update --check
    /// Example: cargo xtask update linux
    #[command(verbatim_doc_comment)]
    Update(UpdateArgs),
    /// Gather the exact sources of the image, as the GPL asks whoever hands it on
    ///
    /// When: you give the image to others. The folder also serves as --mirror DIR.
    ///
    /// Example: cargo xtask sources --out coracle-sources
    Sources(SourcesArgs),
    /// Write man pages and shell completions of runc and cni
    ///
    /// When: you package the program, or read rather than ask --help. They come from the command lines themselves.
    ///
    /// Example: cargo xtask manual && man -l target/manual/man8/runc.8
    Manual(ManualArgs),
    /// Run the host tests and the boot tests
    ///
    /// When: before you commit. With NAMEs, only the boot tests whose names contain one of them.
    ///
    /// Example: cargo xtask test
    /// Example: cargo xtask test dhcp
    #[command(verbatim_doc_comment)]
    Test(TestArgs),
    /// Run upstream suites in the machine, against our runtime and against reference runtimes
    ///
    /// When: you changed the runtime's behaviour, or want to know where it stands. Needs root
    /// and Debian's package archive.
    ///
    /// Example: cargo xtask conformance oci --suite runc --files kill,delete
    /// Example: cargo xtask conformance oci --against runc --part 1/3
    /// Example: cargo xtask conformance cni --reference
    /// Example: cargo xtask conformance callers podman
    #[command(verbatim_doc_comment)]
    Conformance {
        /// Of what
        #[command(subcommand)]
        which: ConformanceVerb,
    },
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
    /// Example: cargo xtask size --compare HEAD~1 --svg size.svg
    #[command(verbatim_doc_comment)]
    Size(SizeArgs),
    /// Put the functions that were executed together, at the front of our program
    ///
    /// When: what runc or a plugin calls has changed much, and bench shows more memory. docs/performance.md tells how the
    /// FILEs are made.
    ///
    /// Example: cargo xtask order run.places exec.places
    #[command(verbatim_doc_comment)]
    Order(OrderArgs),
    /// Measure how long a boot, a build or a container takes
    ///
    /// When: you changed something for speed, or want to see whether something became slow. Results go to
    /// target/bench/; --compare tells a change from noise.
    ///
    /// Example: cargo xtask bench boot
    /// Example: cargo xtask bench build --rounds 3 --compare target/bench/build-1790000000.json
    /// Example: cargo xtask bench runtime --rounds 30
    /// Example: cargo xtask bench network --here
    #[command(verbatim_doc_comment)]
    Bench(BenchArgs),
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
    #[arg(long = "bundle", value_name = "NAME=DIR", value_parser = bundle)]
    pub bundles: Vec<BundleArg>,
}

/// Options of `kernel`.
#[derive(Debug, Args)]
pub struct KernelArgs {
    /// Print recommended settings, ours and distributions' values, and the reasons of waivers
    #[arg(long)]
    pub hardening: bool,
}

/// Options of `iso`.
#[derive(Debug, Args)]
pub struct IsoArgs {
    /// What goes into the image.
    #[command(flatten)]
    pub image: ImageArgs,
    /// Sign dist/SHA256SUMS with this private key of OpenSSH's, into SHA256SUMS.sig
    #[arg(long, value_name = "KEY")]
    pub sign: Option<PathBuf>,
}

/// Options of `update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Only these sources
    pub names: Vec<String>,
    /// Say what is there, and change nothing
    #[arg(long)]
    pub check: bool,
    /// Take a kernel of another series too
    #[arg(long)]
    pub any: bool,
}

/// Options of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Take the kernel from the cache; everything else is built twice
    #[arg(long)]
    pub quick: bool,
    /// Compare dist/ with a release's hashes too; where they differ, the manifest.json beside them tells which tool does
    #[arg(long, value_name = "SHA256SUMS")]
    pub against: Option<PathBuf>,
    /// Write the hashes and the tools' versions into xtask/image.toml, which each change of the image has to
    #[arg(long)]
    pub record: bool,
}

/// Options of `sources`.
#[derive(Debug, Args)]
pub struct SourcesArgs {
    /// The folder to gather them in
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Leave out the sources of GRUB, which come from this machine's packages
    #[arg(long)]
    pub pinned_only: bool,
}

/// Options of `manual`.
#[derive(Debug, Args)]
pub struct ManualArgs {
    /// The folder that gets them
    #[arg(long, value_name = "DIR", default_value = "target/manual")]
    pub out: PathBuf,
}

/// Options of `order`.
#[derive(Debug, Args)]
pub struct OrderArgs {
    /// Places of the program with symbols, as xtask/bench/steps.c writes them; the first file's functions come first.
    /// Without any, that program is built and named
    #[arg(value_name = "FILE")]
    pub places: Vec<PathBuf>,
}

/// `NAME=DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleArg {
    /// A file name of the image.
    pub name: String,
    /// A folder of this machine.
    pub dir: PathBuf,
}

fn bundle(text: &str) -> Result<BundleArg, String> {
    let (name, dir) = text.split_once('=').ok_or("expected NAME=DIR")?;
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(valid) {
        return Err(format!(
            "{name:?} is not a name: letters, digits, `_`, `.`, `-`, not starting with a dot"
        ));
    }
    if dir.is_empty() {
        return Err("there is no folder behind the `=`".to_owned());
    }
    Ok(BundleArg { name: name.to_owned(), dir: PathBuf::from(dir) })
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let parsed =
        text.split_once(':').and_then(|(host, guest)| Some((host.parse().ok()?, guest.parse().ok()?)));
    match parsed {
        Some((host @ 1.., guest @ 1..)) => Ok((host, guest)),
        _ => Err("expected HOST:GUEST, two TCP ports from 1 to 65535".to_owned()),
    }
}

/// With less, the kernel does not even unpack the initramfs.
const MEMORY_MIB_MIN: i64 = 40;

/// A tebibyte: more is a slip of the finger.
const MEMORY_MIB_MAX: i64 = 1 << 20;

/// What QEMU's machine takes without further ado.
const CPUS_MAX: i64 = 255;

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
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(MEMORY_MIB_MIN..=MEMORY_MIB_MAX))]
    pub memory: u32,
    /// Processors of the guest
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=CPUS_MAX))]
    pub cpus: u32,
    /// Forward the TCP port HOST of 127.0.0.1 to the guest's port GUEST; repeatable
    #[arg(long, value_name = "HOST:GUEST", value_parser = ports)]
    pub publish: Vec<(u16, u16)>,
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
    /// Show that boot tests fail where the product lacks what they are for, by their own edits of a copy
    #[arg(long, conflicts_with = "list")]
    pub weakened: bool,
}

/// Options of `size`.
#[derive(Debug, Args)]
pub struct SizeArgs {
    /// What goes into the image.
    #[command(flatten)]
    pub image: ImageArgs,
    /// Show the static program by crate too; compiles it once more, with symbols
    #[arg(long)]
    pub crates: bool,
    /// Show what differs from the image of this commit, which is built in a worktree below target/
    #[arg(long, value_name = "REV")]
    pub compare: Option<String>,
    /// Draw it, areas in proportion to bytes (implies the work of --crates)
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure
    pub what: Benched,
    /// How often each thing is measured, one after the other in each round: 10 times, of the network 50, if nothing is said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// Compare with an earlier result
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Of `build`: the kernel too, without cache and after an edit of a fragment, which takes a kernel's time in each round
    #[arg(long)]
    pub kernel: bool,
    /// Of `network`: on this machine's kernel instead of in the emulator, in namespaces of its own
    #[arg(long)]
    pub here: bool,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Benched {
    /// From QEMU's start to ready, and to the first container's first line.
    Boot,
    /// The image, after this edit and that.
    Build,
    /// Containers in the machine: our runtime, crun, runc, and the least that can be done. Needs root, as `conformance`.
    Runtime,
    /// Chains of plugins in the machine: ours, the reference's, and the least that can be done; streams of bytes. Needs root.
    Network,
}

/// What there are upstream suites of.
#[derive(Debug, Subcommand)]
pub enum ConformanceVerb {
    /// The OCI runtime: runc's bats suite and crun's Python suite
    Oci(OciSuitesArgs),
    /// The CNI plugins: the reference's suites, with our plugins in the place of its own
    Cni(CniSuitesArgs),
    /// Real callers of the runtime and of the plugins: podman, docker, containerd
    Callers(CallersArgs),
}

/// Options of `conformance callers`.
#[derive(Debug, Args)]
pub struct CallersArgs {
    /// Only these [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<Caller>,
}

/// Options of `conformance oci`.
#[derive(Debug, Args)]
pub struct OciSuitesArgs {
    /// Only this suite; repeatable [default: all]
    #[arg(long, value_name = "NAME")]
    pub suite: Vec<Suite>,
    /// Run this reference as well instead of comparing with its recorded results; repeatable
    #[arg(long, value_name = "RUNTIME")]
    pub against: Vec<Runtime>,
    /// Only share K of N of the suites' files
    #[arg(long, value_name = "K/N", default_value = "1/1", value_parser = part)]
    pub part: Part,
    /// Only files whose names contain one of these words
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub files: Vec<String>,
    /// Write what the references gave to xtask/conformance/, for runs without --against
    #[arg(long, requires = "against")]
    pub record: bool,
}

/// Options of `conformance cni`.
#[derive(Debug, Args)]
pub struct CniSuitesArgs {
    /// Only suites whose names contain one of these words: bridge, integration, portmap, portmap-without-chains
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub suite: Vec<String>,
    /// Run the reference's plugins as well instead of comparing with their recorded results
    #[arg(long)]
    pub reference: bool,
    /// Write what the reference's plugins gave to xtask/conformance/, for runs without --reference
    #[arg(long, requires = "reference")]
    pub record: bool,
}

fn part(text: &str) -> Result<Part, String> {
    let parsed =
        text.split_once('/').and_then(|(number, count)| Some((number.parse().ok()?, count.parse().ok()?)));
    match parsed {
        Some((number, count)) if (1..=count).contains(&number) => Ok(Part { number, count }),
        _ => Err("expected K/N, with K from 1 to N".to_owned()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_two_numbers() {
        assert_eq!(ports("8080:80").unwrap(), (8080, 80));
        for wrong in ["80", "80:", "0:80", "80:70000", "a:b", "1:2:3"] {
            assert!(ports(wrong).unwrap_err().contains("HOST:GUEST"), "{wrong}");
        }
    }

    #[test]
    fn a_part_is_one_of_some() {
        assert_eq!(part("2/3").unwrap(), Part { number: 2, count: 3 });
        for wrong in ["0/3", "4/3", "1", "a/b", "1/0"] {
            assert!(part(wrong).unwrap_err().contains("K/N"), "{wrong}");
        }
    }

    #[test]
    fn a_bundle_is_a_plain_name_and_a_folder() {
        let expected = BundleArg { name: "web-1".to_owned(), dir: PathBuf::from("a=b") };
        assert_eq!(bundle("web-1=a=b").unwrap(), expected);
        for (wrong, word) in
            [("web", "NAME=DIR"), ("../x=d", "not a name"), ("=d", "not a name"), ("web=", "no folder")]
        {
            assert!(bundle(wrong).unwrap_err().contains(word), "{wrong}");
        }
    }
}
