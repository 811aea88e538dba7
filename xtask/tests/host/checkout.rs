//! A small checkout with a cache of its own: everything that xtask reads, as little of it as goes. Its sources are a few
//! lines of C, Make and shell, so that the real stages run over them in seconds.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

/// Ends what hangs; measures nothing.
const DEADLINE: Duration = Duration::from_secs(120);

/// What the small kernel is judged by.
const RECOMMENDATIONS: &str = "[sources]\nkspp = \"the test\"\n[wanted.kspp]\n64BIT = \"y\"\n";

/// The checkout.
pub struct Checkout {
    dir: tempfile::TempDir,
    /// Where each source stands in sources.toml, in order.
    pins: Vec<Pin>,
}

struct Pin {
    name: &'static str,
    file: String,
    sha256: String,
    origins: String,
}

/// What a run left on its two outputs, and how it ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Checkout {
    /// One whose four sources are in the cache.
    pub fn new() -> Self {
        let mut checkout = Self { dir: tempfile::tempdir().unwrap(), pins: Vec::new() };
        for name in ["linux", "busybox", "tini", "iproute2"] {
            let mut files = source_files(name);
            files.push(("COPYING", format!("The terms of {name}.\n")));
            checkout.put_source(name, &tarball(&files));
        }
        for (path, text) in [
            ("kernel-config/10-base.config", "CONFIG_64BIT=y\n"),
            ("xtask/hardening/recommendations.toml", RECOMMENDATIONS),
            ("xtask/busybox-config/10-base.config", "CONFIG_STATIC=y\n"),
            ("rootfs-overlay/etc/hostname", "coracle\n"),
            ("rootfs-overlay/containers/mycontainer/config.json", "{}\n"),
            ("grub/early.cfg", include_str!("../../../grub/early.cfg")),
            ("grub/grub.cfg", include_str!("../../../grub/grub.cfg")),
            ("rust-toolchain.toml", include_str!("../../../rust-toolchain.toml")),
            (
                "Cargo.toml",
                "[workspace]\nmembers = [\"runtime\"]\nresolver = \"3\"\n\n[profile.release]\npanic = \"abort\"\n",
            ),
            ("Cargo.lock", "version = 4\n\n[[package]]\nname = \"runtime\"\nversion = \"0.1.0\"\n"),
            (
                "runtime/Cargo.toml",
                "[package]\nname = \"runtime\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[[bin]]\nname = \"coracle\"\npath = \"src/main.rs\"\n",
            ),
            // Linked as ours is, so it needs what ours brings for that.
            (
                "runtime/src/main.rs",
                "#[path = \"../sys/src/standalone.rs\"]\nmod standalone;\n\nfn main() {}\n",
            ),
            ("runtime/sys/src/standalone.rs", include_str!("../../../runtime/sys/src/standalone.rs")),
            ("runtime/shipped.ld", include_str!("../../../runtime/shipped.ld")),
            ("runtime/order.ld", ""),
            ("runtime/cni/src/lib.rs", ""),
            ("runtime/netlink/src/lib.rs", ""),
            ("runtime/oci/src/lib.rs", ""),
            ("runtime/spec/src/lib.rs", ""),
            ("runtime/sys/src/lib.rs", ""),
        ] {
            checkout.write(path, text);
        }
        checkout
    }

    /// The checkout's top folder.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("checkout")
    }

    /// The cache.
    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// A place of the test's own, outside both.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the checkout.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Pins `name` to `bytes`, which lie in the cache.
    pub fn put_source(&mut self, name: &'static str, bytes: &[u8]) {
        let file = format!("{name}-1.tar.gz");
        let url = format!("http://127.0.0.1:9/{file}");
        self.pin(name, bytes, &[&url]);
        let path = self.cached(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Pins `name` to `bytes`, to be had at `urls` alone.
    pub fn pin(&mut self, name: &'static str, bytes: &[u8], urls: &[&str]) {
        let (file, sha256) = (format!("{name}-1.tar.gz"), sha256(bytes));
        let origins = urls
            .iter()
            .map(|url| {
                format!(
                    "[[source.{name}.origin]]\nurl = \"{url}\"\nfile = \"{file}\"\nsha256 = \"{sha256}\"\nhash_from = \"the test\"\n"
                )
            })
            .collect();
        if self.pins.iter().any(|pin| pin.name == name && pin.sha256 != sha256) {
            std::fs::remove_file(self.cached(name)).unwrap();
        }
        self.pins.retain(|pin| pin.name != name);
        self.pins.push(Pin { name, file, sha256, origins });
        self.write("xtask/sources.toml", &self.sources_toml());
    }

    /// The text of sources.toml.
    pub fn sources_toml(&self) -> String {
        let tables = self.pins.iter().map(|Pin { name, origins, .. }| {
            format!("[source.{name}]\nversion = \"1\"\nlicence = \"MIT\"\nlicence_files = [\"COPYING\"]\n{origins}")
        });
        format!("epoch = 1793491200\n{}", tables.collect::<String>())
    }

    /// Where the tarball of `name` lies once it is in the cache.
    pub fn cached(&self, name: &str) -> PathBuf {
        let pin = self.pins.iter().find(|pin| pin.name == name).unwrap();
        self.cache().join("sources").join(&pin.sha256).join(&pin.file)
    }

    /// Where the beginning of a download of `name` is kept.
    pub fn part(&self, name: &str) -> PathBuf {
        let pin = self.pins.iter().find(|pin| pin.name == name).unwrap();
        self.cache().join("sources/partial").join(format!("{}.part", pin.sha256))
    }

    /// xtask with `words`, in the checkout.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("--cache-dir").arg(self.cache()).args(words);
        self.prepare(command)
    }

    /// The same through `sh`, whose script finds xtask with its words in `"$@"`.
    pub fn shell(&self, launcher: &[&str], script: &str, words: &[&str]) -> Command {
        let xtask = self.command(words);
        let mut all: Vec<&OsStr> = launcher.iter().map(OsStr::new).collect();
        all.extend(["sh", "-c", script, "sh"].map(OsStr::new));
        all.push(xtask.get_program());
        all.extend(xtask.get_args());
        let mut command = Command::new(all[0]);
        command.args(&all[1..]);
        self.prepare(command)
    }

    fn prepare(&self, mut command: Command) -> Command {
        command.current_dir(self.root()).stdin(Stdio::null());
        // A proxy of this machine would stand before the loopback.
        for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs xtask with `words`.
    pub fn run(&self, words: &[&str]) -> Ended {
        ended(self.command(words))
    }

    /// Starts xtask as a terminal does: leader of a process group of its own, which Ctrl-C reaches as a whole.
    pub fn start(&self, words: &[&str]) -> Child {
        // Whoever runs the tests in the background may ignore what a terminal's program does not.
        let xtask = self.command(words);
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(xtask.get_program()).args(xtask.get_args());
        let mut command = self.prepare(command);
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Every file below the cache's folder `dir`, relative to it.
    pub fn files_in_cache(&self, dir: &str) -> Vec<PathBuf> {
        let top = self.cache().join(dir);
        let mut files = Vec::new();
        let mut folders = vec![top.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path)
                } else {
                    files.push(path.strip_prefix(&top).unwrap().into())
                }
            }
        }
        files.sort();
        files
    }
}

impl Ended {
    /// Fails unless the run ended with `code` and said each of `words` on stderr, exactly once.
    #[track_caller]
    pub fn said(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for word in words {
            let count = self.stderr.matches(word).count();
            assert_eq!(count, 1, "{word:?} should be said once in:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

/// Runs `command` to its end.
pub fn ended(mut command: Command) -> Ended {
    read(command.output().unwrap())
}

fn read(output: Output) -> Ended {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Presses Ctrl-C on a process started by `Checkout::start`, and waits for its end.
pub fn interrupt(child: Child) -> Ended {
    let group = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process_group(group, rustix::process::Signal::INT).unwrap();
    read(child.wait_with_output().unwrap())
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "never came: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Bytes that no compression makes smaller.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state: u32 = 1;
    let next = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    next.take(count).collect()
}

/// Lower-case hexadecimal sha256.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A .tar.gz with one top folder.
pub fn tarball(files: &[(&str, String)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, Path::new("source").join(path), text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn source_files(name: &str) -> Vec<(&'static str, String)> {
    let program = "printf '#!/bin/sh\\n' > $@; echo true >> $@";
    match name {
        "linux" => linux("echo kernel > arch/x86/boot/bzImage"),
        "busybox" => vec![
            ("Config.in", "config STATIC\n\tbool \"static\"\n".to_owned()),
            (
                "Makefile",
                format!(
                    "allnoconfig:\n\ttouch .config\noldconfig:\n\ttrue\nbusybox:\n\t{program}\nbusybox.links:\n\techo /bin/sh > $@\n"
                ),
            ),
        ],
        "tini" => vec![("src/tini.c", "int main(void) { return 0; }\n".to_owned())],
        _ => vec![("Makefile", "all:\n\tmkdir -p ip\n\techo ip > ip/ip\n".to_owned())],
    }
}

/// Linux, as far as the kernel stage sees it. `compile` is the recipe of bzImage. Its olddefconfig does what Kconfig
/// does: it drops what can't be had, in silence, and turns on what is selected.
pub fn linux(compile: &str) -> Vec<(&'static str, String)> {
    let kconfig = include_str!("kconfig");
    let makefile = format!(
        "tinyconfig:\n\techo CONFIG_64BIT=y > .config\n\
         olddefconfig:\n\
         \tgrep -qx CONFIG_NF_TABLES_IPV4=y .config || sed -i /^CONFIG_NFT_FIB_IPV4=/d .config\n\
         \tgrep -qx CONFIG_NFT_FIB_IPV4=y .config || sed -i /^CONFIG_NFT_FIB_INET=/d .config\n\
         \tif grep -qx CONFIG_NFT_FIB_IPV6=y .config; then sed -i '/CONFIG_NFT_FIB /d' .config; echo CONFIG_NFT_FIB=y >> .config; fi\n\
         bzImage:\n\tmkdir -p arch/x86/boot/compressed mm\n\t{compile}\n\
         \techo unpacked > arch/x86/boot/compressed/vmlinux.bin\n\
         \techo 'int pages = 7;' > mm/page.c && gcc -c -o mm/page.o mm/page.c && ar rcsT vmlinux.a mm/page.o\n"
    );
    vec![("Kconfig", kconfig.to_owned()), ("Makefile", makefile)]
}

/// Words that run a command in a mount namespace of its own; None, and a line that says so, where that is not allowed.
/// What needs it is tested in another way too.
pub fn own_mounts() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&["unshare", "--mount"], &["unshare", "--map-root-user", "--mount"]];
    let mut try_out = ways.into_iter().filter(|way| {
        let script = "mount -t tmpfs none /mnt";
        let tried = Command::new(way[0]).args(&way[1..]).args(["sh", "-c", script]).output();
        tried.is_ok_and(|output| output.status.success())
    });
    let way = try_out.next();
    if way.is_none() {
        eprintln!("skipped: this user may not mount a small disk of its own (unshare --mount)");
    }
    way
}
