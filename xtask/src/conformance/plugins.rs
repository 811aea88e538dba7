//! `conformance cni`: the CNI reference plugins' suites, with ours in the place of the reference's. In: `CniSuitesArgs`. Out: a
//! table, JSON, a verdict, as for the OCI suites. Must never: download a Go module; put a plugin on the disk that is called
//! ours: ours come from the image under test.
//!
//! `integration` and `portmap` execute the plugins; `bridge` has the reference's bridge in its own program, and executes
//! host-local. `portmap-without-chains` is portmap's TCP cases without what they ask iptables. A suite's programs are compiled
//! here: in the machine there is no Go.

use std::process::ExitCode;

use anyhow::Result;

use super::debian::{Recipe, make, quoted};
use super::guest::{Machine, Runtime};
use super::judge::Known;
use super::session::Session;
use super::suites::{Found, Suite, Suites};
use super::{named, report, root};
use crate::artifact::Artifact;
use crate::cli::CniSuitesArgs;
use crate::context::Build;
use crate::stage::unpack;
use crate::stamp::{Inputs, produce, remove_tree};

/// What the plugins, their suites and the reference's tool are built with.
const PACKAGES: &str = "golang-go golang-dbus-dev golang-github-alexflint-go-filemutex-dev golang-github-appc-cni-dev \
    golang-github-coreos-go-iptables-dev golang-github-coreos-go-systemd-dev golang-github-mattn-go-shellwords-dev \
    golang-github-networkplumbing-go-nft-dev golang-github-onsi-ginkgo-dev golang-github-opencontainers-selinux-dev \
    golang-github-pkg-errors-dev golang-github-safchain-ethtool-dev golang-github-vishvananda-netlink-dev \
    golang-golang-x-sys-dev golang-gomega-dev golang-k8s-sigs-knftables-dev";

/// Run in the root, where /build holds the sources. Static: the programs run in another release's root.
const BUILD: &str = r#"set -e
export GO111MODULE=off GOPATH=/build:/usr/share/gocode HOME=/tmp CGO_ENABLED=0 GOFLAGS=-trimpath
out=/out/cni-plugins
cd /build/src/github.com/containernetworking/plugins
flags="-s -w -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=v$1"
mkdir -p $out/reference $out/tools
for plugin in main/bridge main/ptp meta/bandwidth meta/portmap ipam/host-local; do
    go build -ldflags "$flags" -o $out/reference/ ./plugins/$plugin
done
for tool in ./pkg/testutils/echo/server ./pkg/testutils/echo/client ../cni/cnitool; do
    go build -ldflags "$flags" -o $out/tools/ $tool
done
for suite in integration plugins/meta/portmap plugins/main/bridge; do
    name=${suite##*/}
    mkdir $out/$name
    go test -c -ldflags "-s -w" -o $out/$name/test ./$suite
done
cp -a integration/testdata $out/integration/
# The same cases without their two looks at a chain of iptables, which say nothing of where packets go.
cd plugins/meta/portmap
sed -i '/_, err = ipt.List("nat", dnatChainName)/{N;d}; s/^\t*dnatChainName := .*/&; _, _ = ipt, dnatChainName/' portmap_integ_test.go
mkdir $out/portmap-without-chains
go test -c -ldflags "-s -w" -o $out/portmap-without-chains/test .
"#;

/// Runs the suites.
pub fn run(build: &Build, args: &CniSuitesArgs) -> Result<ExitCode> {
    let suites = Suites::load(build)?;
    let known = Known::load(build)?;
    let plugins = suites.find(build, Suite::CniPlugins)?;
    let cnitool = suites.find_cnitool(build)?;
    let programs = programs(build, &plugins, &cnitool)?;
    let disk = root::cni(build, &suites.cni_root, &programs)?;
    let mut session = Session::start(build, disk, Machine::Image)?;
    let mut chosen = session.guest().files(Suite::CniPlugins)?;
    chosen.retain(|file| named(&file.name, &args.suite));
    let against: &[Runtime] = if args.reference { &[Runtime::CniPlugins] } else { &[] };
    let results = session.gather(&[(Suite::CniPlugins, &plugins)], &chosen, against, &known)?;
    report::print(build, &results, against, &known, args.record)
}

/// The reference's plugins, its tool, and the suites: `programs.tar`.
fn programs(build: &Build, plugins: &Found, cnitool: &Found) -> Result<Artifact> {
    let packages: Vec<String> = PACKAGES.split_whitespace().map(str::to_owned).collect();
    let inputs = Inputs::new("cni-programs", 1)
        .text("plugins", &plugins.tarball.sha256)
        .text("cnitool", &cnitool.tarball.sha256)
        .text("version", &plugins.version)
        .text("release", &plugins.built_in)
        .text("packages", &packages.join(" "))
        .text("build", BUILD);
    let [programs] = produce(build, inputs, ["programs.tar"], |shop| {
        let (root, sources) = (shop.scratch.join("root"), shop.scratch.join("sources"));
        let plugins_source = unpack::run(&plugins.tarball, &sources.join("plugins"))?;
        let cnitool_source = unpack::run(&cnitool.tarball, &sources.join("cni"))?;
        let script = shop.scratch.join("build");
        std::fs::write(&script, BUILD)?;
        let hooks = [(
            "--customize-hook",
            format!(
                "set -e; there=\"$1/build/src/github.com/containernetworking\"; mkdir -p \"$there\"; \
                 cp -a {} \"$there/plugins\"; cp -a {} \"$there/cni\"; cp {} \"$1/build/build\"; \
                 chroot \"$1\" sh /build/build {}; tar -C \"$1/out\" -cf {} .",
                quoted(&plugins_source),
                quoted(&cnitool_source),
                quoted(&script),
                plugins.version,
                quoted(&shop.out.join("programs.tar"))
            ),
        )];
        let recipe = Recipe { release: &plugins.built_in, packages: &packages, hooks: &hooks };
        make(build, shop, &recipe, &root)?;
        remove_tree(&root)
    })?;
    Ok(programs)
}
