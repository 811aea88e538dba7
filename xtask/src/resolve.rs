//! What the user said and what the machine is -> what the program works with. In: `Cli`, the environment. Out: `Build`
//! and `Job`, with every default filled in and every error found. Must never: build, install or download anything.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::cli::{
    BenchArgs, Benched, CallersArgs, CleanArgs, CniSuitesArgs, Configured, ConformanceVerb, Global,
    KernelArgs, ManualArgs, OrderArgs, SourcesArgs, TestArgs, UpdateArgs, Verb, VerifyArgs,
};
use crate::cmd::{qemu, size};
use crate::conformance;
use crate::context::{Build, FetchOptions, Mirror, Patience};
use crate::host::{self, Host, Need};
use crate::layout::Layout;
use crate::sources::Sources;
use crate::stage::rootfs::Contents;
use crate::ui::Ui;

/// A command with all that it was told, checked: what is wrong with it is said before anything is built.
#[derive(Debug)]
pub enum Job {
    /// `doctor`
    Doctor,
    /// `fetch`
    Fetch,
    /// `kernel`
    Kernel(KernelArgs),
    /// `busybox`
    Busybox,
    /// `tini`
    Tini,
    /// `iproute2`
    Iproute2,
    /// `runtime`
    Runtime,
    /// `initramfs`
    Initramfs(Contents),
    /// `iso`, and the key to sign with
    Iso(Contents, Option<PathBuf>),
    /// `update`
    Update(UpdateArgs),
    /// `verify`
    Verify(VerifyArgs),
    /// `sources`
    Sources(SourcesArgs),
    Manual(ManualArgs),
    /// `qemu`
    Qemu(qemu::Plan),
    /// `test`
    Test(TestArgs),
    /// `conformance oci`
    Conformance(conformance::Plan),
    /// `conformance cni`
    Plugins(CniSuitesArgs),
    /// `conformance callers`
    Callers(CallersArgs),
    /// `menuconfig`
    Menuconfig(Configured),
    /// `size`
    Size(size::Plan),
    /// `order`
    Order(OrderArgs),
    /// `bench`
    Bench(BenchArgs),
    /// `clean`
    Clean(CleanArgs),
}

impl Job {
    /// Checks what the user said against the checkout and the machine's files.
    pub fn resolve(layout: &Layout, verb: Verb) -> Result<Self> {
        Ok(match verb {
            Verb::Doctor => Self::Doctor,
            Verb::Fetch => Self::Fetch,
            Verb::Kernel(args) => Self::Kernel(args),
            Verb::Busybox => Self::Busybox,
            Verb::Tini => Self::Tini,
            Verb::Iproute2 => Self::Iproute2,
            Verb::Runtime => Self::Runtime,
            Verb::Initramfs(args) => Self::Initramfs(Contents::resolve(layout, &args)?),
            Verb::Iso(args) => {
                if let Some(key) = args.sign.as_ref().filter(|key| !key.is_file()) {
                    bail!(
                        "--sign {}: no such file; `ssh-keygen -t ed25519 -f FILE` makes a key",
                        key.display()
                    );
                }
                Self::Iso(Contents::resolve(layout, &args.image)?, args.sign)
            }
            Verb::Update(args) => Self::Update(args),
            Verb::Verify(args) => {
                if let Some(sums) = args.against.as_ref().filter(|sums| !sums.is_file()) {
                    bail!("--against {}: no such file", sums.display());
                }
                Self::Verify(args)
            }
            Verb::Sources(args) => Self::Sources(args),
            Verb::Manual(args) => Self::Manual(args),
            Verb::Qemu(args) => Self::Qemu(qemu::Plan::resolve(layout, args)?),
            Verb::Test(args) => Self::Test(args),
            Verb::Conformance { which: ConformanceVerb::Oci(args) } => {
                Self::Conformance(conformance::Plan::resolve(args))
            }
            Verb::Conformance { which: ConformanceVerb::Cni(args) } => Self::Plugins(args),
            Verb::Conformance { which: ConformanceVerb::Callers(args) } => Self::Callers(args),
            Verb::Menuconfig { which } => Self::Menuconfig(which),
            Verb::Size(args) => Self::Size(size::Plan::resolve(layout, args)?),
            Verb::Order(args) => Self::Order(args),
            Verb::Bench(args) if args.kernel && args.what != Benched::Build => {
                bail!("--kernel: only `bench build` builds one")
            }
            Verb::Bench(args) if args.here && args.what != Benched::Network => {
                bail!("--here: only `bench network` can do without the emulator")
            }
            Verb::Bench(args) => Self::Bench(args),
            Verb::Clean(args) => Self::Clean(args),
        })
    }

    /// What it needs the machine for.
    pub fn needs(&self) -> &'static [Need] {
        use Need::{Iso, Kernel, Menu, Papers, Runtime, Suites, Test, Userland, Verify, Vm};
        match self {
            Self::Doctor => &host::ALL_NEEDS,
            Self::Fetch | Self::Clean(_) => &[],
            Self::Kernel(_) | Self::Update(_) => &[Kernel],
            Self::Busybox | Self::Tini | Self::Iproute2 => &[Userland],
            Self::Runtime => &[Runtime],
            Self::Initramfs(_) => &[Userland, Runtime],
            Self::Menuconfig(_) => &[Kernel, Userland, Menu],
            Self::Sources(_) => &[Runtime, Papers],
            Self::Manual(_) | Self::Order(_) => &[Runtime],
            Self::Iso(_, Some(_)) => &[Kernel, Userland, Runtime, Iso, Papers],
            Self::Verify(_) => &[Kernel, Userland, Runtime, Iso, Papers, Verify],
            Self::Iso(_, None) | Self::Size(_) => &[Kernel, Userland, Runtime, Iso],
            Self::Bench(BenchArgs { what: Benched::Runtime | Benched::Network, .. }) => {
                &[Kernel, Userland, Runtime, Iso, Vm, Papers, Test, Suites]
            }
            Self::Bench(_) => &[Kernel, Userland, Runtime, Iso, Vm, Papers],
            Self::Qemu(_) => &[Kernel, Userland, Runtime, Iso, Vm],
            Self::Conformance(_) | Self::Plugins(_) | Self::Callers(_) => {
                &[Kernel, Userland, Runtime, Iso, Vm, Test, Suites]
            }
            Self::Test(_) => &[Kernel, Userland, Runtime, Iso, Vm, Papers, Test, Verify],
        }
    }
}

/// Global options and probed facts -> `Build`.
pub fn build(global: &Global) -> Result<Build> {
    let cache = match &global.cache_dir {
        Some(dir) => std::path::absolute(dir)
            .with_context(|| format!("--cache-dir {}: is not a path", dir.display()))?,
        None => default_cache()?,
    };
    let mirror = match &global.mirror {
        None => None,
        Some(place) if place.starts_with("http://") || place.starts_with("https://") => {
            Some(Mirror::Url(place.clone()))
        }
        Some(place) if std::path::Path::new(place).is_dir() => Some(Mirror::Folder(PathBuf::from(place))),
        Some(place) => bail!("--mirror {place}: neither a folder that exists nor an http(s) address"),
    };
    let host = Host::probe();
    let layout = Layout::new(checkout()?, cache);
    Ok(Build {
        sources: Sources::load(&layout.sources_toml())?,
        layout,
        jobs: global.jobs.unwrap_or(host.cores),
        incremental: global.incremental,
        host,
        fetch: FetchOptions { offline: global.offline, mirror, patience: Patience::default() },
        ui: Ui::new(global.verbose),
    })
}

/// The checkout around the current folder, told by its xtask/sources.toml; elsewhere (`cargo --manifest-path`) the one
/// that this program was compiled in.
fn checkout() -> Result<PathBuf> {
    let here =
        std::env::current_dir().context("the current folder can't be told; change to one that exists")?;
    let around = here.ancestors().find(|dir| dir.join("xtask/sources.toml").is_file());
    let compiled_in = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    around.or(compiled_in).map(PathBuf::from).context("xtask lies in no checkout")
}

fn default_cache() -> Result<PathBuf> {
    let home = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|dir| PathBuf::from(dir).join(".cache")));
    Ok(home
        .context("neither XDG_CACHE_HOME nor HOME is set; say where with --cache-dir DIR")?
        .join("coracle"))
}
