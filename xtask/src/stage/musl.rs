//! The C compiler of the image's C programs: musl-gcc with the kernel's headers; its library is the Rust program's too. In: the host's tools. Out: words for a
//! make command line, and what of the host goes into a stage's key. Must never: let a path of this machine into a
//! program: debug information is off, and sources are compiled by relative names.

use std::path::Path;

use anyhow::{Context, Result};

use crate::context::Build;
use crate::stamp::Inputs;

/// Optimised for size, each function in a section of its own so that the linker can drop it.
pub const CFLAGS: &str = "-Os -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-ident \
                          -idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu";

/// Static, stripped, without a build id.
pub const LDFLAGS: &str = "-static -s -Wl,--gc-sections -Wl,--build-id=none";

/// musl's version, as its loader says it; a machine without the loader has only the library that `inputs` hashes.
pub fn version() -> String {
    let loader = ["/lib/ld-musl-x86_64.so.1", "/usr/lib/ld-musl-x86_64.so.1"];
    let said = loader.iter().find_map(|path| std::process::Command::new(path).output().ok());
    let text = said.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
    let version = text.lines().find_map(|line| line.strip_prefix("Version "));
    version.unwrap_or("unknown").to_owned()
}

/// Adds the compiler, the C library and the kernel headers to a stage's inputs.
pub fn inputs(build: &Build, inputs: Inputs) -> Result<Inputs> {
    let headers = Path::new("/usr/include/linux/version.h");
    library(build, inputs)?
        .text("ld", &build.host.version("ld", "--version")?)
        .text("cflags", CFLAGS)
        .text("ldflags", LDFLAGS)
        .file("kernel headers", headers)
}

/// Adds what a program is linked with: the C library and the compiler's own.
pub fn library(build: &Build, inputs: Inputs) -> Result<Inputs> {
    let mut inputs = inputs.text("gcc", &build.host.version("gcc", "--version")?);
    for name in ["libc.a", "crt1.o", "crti.o", "crtn.o"] {
        inputs = inputs.file(&format!("musl/{name}"), &folder()?.join(name))?;
    }
    Ok(inputs)
}

/// Where this machine has the C library.
pub fn folder() -> Result<&'static Path> {
    let folders =
        ["/usr/lib/x86_64-linux-musl", "/usr/lib/musl/lib", "/usr/x86_64-linux-musl/lib64", "/usr/lib"];
    let folder = folders.map(Path::new).into_iter().find(|folder| folder.join("libc.a").exists());
    folder.context("musl's libc.a: not found; `cargo xtask doctor` tells how to install it")
}
