//! Suites' sources -> the programs that they need. In: the tarballs, a Debian release with Go. Out: `programs.tar` with the
//! reference runc, the helpers of its suite, and the init of crun's, all static: they run in another release's root.
//! Must never: download a Go module: Debian's packages hold them.

use anyhow::Result;

use super::debian::{Recipe, make, quoted};
use super::suites::Found;
use crate::artifact::Artifact;
use crate::context::Build;
use crate::stage::unpack;
use crate::stamp::{Inputs, produce, remove_tree};

/// What both sources are built with.
const PACKAGES: &str = "gcc golang-go libc6-dev libseccomp-dev pkgconf \
    golang-dbus-dev golang-github-checkpoint-restore-go-criu-dev golang-github-cilium-ebpf-dev \
    golang-github-containerd-console-dev golang-github-coreos-go-systemd-dev \
    golang-github-cyphar-filepath-securejoin-dev golang-github-docker-go-units-dev golang-github-moby-sys-dev \
    golang-github-mrunalp-fileutils-dev golang-github-opencontainers-cgroups-dev \
    golang-github-opencontainers-selinux-dev golang-github-opencontainers-specs-dev \
    golang-github-seccomp-libseccomp-golang-dev golang-github-sirupsen-logrus-dev golang-github-urfave-cli-dev \
    golang-github-vishvananda-netlink-dev golang-gocapability-dev golang-golang-x-net-dev golang-google-protobuf-dev";

/// Packages that releases with an older runc do not have and it does not need.
const NEW_PACKAGES: &[&str] = &["golang-github-opencontainers-cgroups-dev"];

/// Run in the root, where /build holds the sources. Debian's go-criu is a newer major version than the one that runc
/// names, with the same interface; Debian's own package patches the name too.
const BUILD: &str = r#"set -e
export GO111MODULE=off GOPATH=/build:/usr/share/gocode HOME=/tmp CGO_ENABLED=1 GOFLAGS=-trimpath
cd /build/src/github.com/opencontainers/runc
criu=$(cd /usr/share/gocode/src/github.com/checkpoint-restore/go-criu && ls -d v[0-9]* | tail -n 1)
grep -rl "go-criu/v[0-9]*" --include=*.go . | xargs -r sed -i "s,go-criu/v[0-9]*,go-criu/$criu,"
version=$(cat VERSION)
tags="seccomp urfave_cli_no_docs netgo osusergo"
flags="-s -w -X main.version=$version -X main.gitCommit=$version -linkmode external -extldflags -static"
mkdir -p /out/runc/tests/cmd/_bin /out/crun/tests
go build -tags "$tags" -ldflags "$flags" -o /out/runc/runc .
for helper in recvtty sd-helper seccompagent fs-idmap pidfd-kill remap-rootfs; do
    [ ! -d "tests/cmd/$helper" ] || go build -tags "$tags" -ldflags "$flags" -o /out/runc/tests/cmd/_bin/ "./tests/cmd/$helper"
done
mkdir /build/empty
touch /build/empty/config.h
gcc -static -DHAVE_SECCOMP -DHAVE_LINUX_IOPRIO_H -I/build/empty -o /out/crun/tests/init /build/crun/tests/init.c -lseccomp
"#;

/// Builds the programs.
pub fn run(build: &Build, runc: &Found, crun: &Found) -> Result<Artifact> {
    let packages: Vec<String> = PACKAGES
        .split_whitespace()
        .filter(|package| runc.built_in != "trixie" || !NEW_PACKAGES.contains(package))
        .map(str::to_owned)
        .collect();
    let inputs = Inputs::new("suite-programs", 1)
        .text("runc", &runc.tarball.sha256)
        .text("crun", &crun.tarball.sha256)
        .text("release", &runc.built_in)
        .text("packages", &packages.join(" "))
        .text("build", BUILD);
    let [programs] = produce(build, inputs, ["programs.tar"], |shop| {
        let (root, sources) = (shop.scratch.join("root"), shop.scratch.join("sources"));
        let runc_source = unpack::run(&runc.tarball, &sources.join("runc"))?;
        let crun_source = unpack::run(&crun.tarball, &sources.join("crun"))?;
        let script = shop.scratch.join("build");
        std::fs::write(&script, BUILD)?;
        let hooks = [(
            "--customize-hook",
            format!(
                "set -e; mkdir -p \"$1/build/src/github.com/opencontainers\"; \
                 cp -a {} \"$1/build/src/github.com/opencontainers/runc\"; cp -a {} \"$1/build/crun\"; \
                 cp {} \"$1/build/build\"; chroot \"$1\" sh /build/build; tar -C \"$1/out\" -cf {} .",
                quoted(&runc_source),
                quoted(&crun_source),
                quoted(&script),
                quoted(&shop.out.join("programs.tar"))
            ),
        )];
        let recipe = Recipe { release: &runc.built_in, packages: &packages, hooks: &hooks };
        make(build, shop, &recipe, &root)?;
        remove_tree(&root)
    })?;
    Ok(programs)
}
