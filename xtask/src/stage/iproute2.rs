//! iproute2 source -> the static `ip`. In: the pinned tarball. Out: `ip` alone, without the libraries that only other
//! tools of the suite, or its colder corners, need (libmnl, libelf, libbpf, libcap, SELinux).
//! Must never: run iproute2's configure, whose answers depend on what the host has installed.

use anyhow::{Context, Result};

use crate::artifact::Ip;
use crate::context::Build;
use crate::stage::{fetch, kernel, musl, unpack};
use crate::stamp::{Inputs, produce};

/// What configure would have found on a machine with a C library and nothing else.
const CONFIG_MK: &str = "\
IP_CONFIG_SETNS:=y
CFLAGS += -DHAVE_SETNS -DHAVE_HANDLE_AT
%.o: %.c
	$(CC) $(CFLAGS) $(EXTRA_CFLAGS) $(CPPFLAGS) -c -o $@ $<
";

/// Builds `ip`.
pub fn run(build: &Build) -> Result<Ip> {
    let inputs =
        Inputs::new("iproute2", 1).text("source", &build.sources.iproute2.pin()).text("config.mk", CONFIG_MK);
    let [program] = produce(build, musl::inputs(build, inputs)?, ["ip"], |shop| {
        let source = unpack::run(&fetch::run(build, &build.sources.iproute2)?, &shop.scratch)?;
        let config = source.join("config.mk");
        std::fs::write(&config, CONFIG_MK).with_context(|| format!("{}: cannot write", config.display()))?;
        let shell = kernel::shell_in(build, &source)?;
        let jobs = format!("-j{}", build.jobs);
        let options = format!("CCOPTS={}", musl::CFLAGS);
        // The programs' own symbols are looked up by name (`ip link add type NAME`), hence export-dynamic.
        let link = format!("LDFLAGS={} -Wl,-export-dynamic", musl::LDFLAGS);
        let common = [jobs.as_str(), "V=1", "CC=musl-gcc", "HOSTCC=gcc", "SHARED_LIBS=n", &options, &link];
        for part in [&["SUBDIRS=lib", "all"][..], &["SUBDIRS=ip", "TARGETS=ip", "SCRIPTS=", "all"]] {
            let words: Vec<&str> = common.iter().copied().chain(part.iter().copied()).collect();
            shop.log.run(kernel::make(build, &shell, &words)?)?;
        }
        let made = source.join("ip/ip");
        std::fs::copy(&made, shop.out.join("ip"))
            .with_context(|| format!("{}: cannot copy", made.display()))?;
        Ok(())
    })?;
    Ok(Ip(program))
}
