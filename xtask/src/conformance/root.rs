//! Suites and their programs -> a disk. In: a Debian release, the sources, `programs.tar`. Out: `root.ext4` with all that the
//! suites need: they download nothing. Must never: hold our program: it comes from the image under test.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::debian::{Recipe, make, quoted};
use super::suites::{Found, Root, Suites};
use crate::artifact::Artifact;
use crate::context::Build;
use crate::stage::unpack;
use crate::stamp::{Inputs, Workshop, produce, remove_tree};

/// Room for the root and some more; what suites write goes to a tmpfs.
const DISK_BYTES: u64 = 1536 << 20;

/// The same for the plugins' suites.
const CNI_DISK_BYTES: u64 = 768 << 20;

/// The same for the callers, whose daemons keep images there.
const CALLERS_DISK_BYTES: u64 = 2560 << 20;

/// The suites' test archives carry the names of the upstream ones, but are not compressed: unpacking one for each case
/// is what takes time in software emulation.
const DATA: &str = "suites/runc/tests/integration/testdata";

/// Run in the root. The suite's BusyBox image, of Debian's static BusyBox, with upstream's users; and a `go` that
/// answers the one question that the suite has.
const ARRANGE: &str = r#"set -e
image=/tmp/busybox-image
mkdir -p $image/bin $image/dev $image/etc $image/home $image/lib $image/root $image/tmp $image/usr/bin $image/usr/sbin \
    $image/var/spool/mail $image/var/www
chmod 1777 $image/tmp
cp /bin/busybox $image/bin/busybox
for applet in $(busybox --list); do
    [ $applet = busybox ] || ln $image/bin/busybox $image/bin/$applet
done
ln -s /bin/env $image/usr/bin/env
cat > $image/etc/passwd <<END
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
END
cat > $image/etc/group <<END
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
wheel:x:10:root
www-data:x:33:
operator:x:37:
users:x:100:
nobody:x:65534:
END
tar -C $image -cf /DATA/busybox-amd64.tar.xz .
rm -r $image
mkdir -p /suites/bin /suites/ours /image
printf '#!/bin/sh\necho amd64\n' > /suites/bin/go
chmod +x /suites/bin/go
"#;

/// Makes the disk.
pub fn run(
    build: &Build,
    suites: &Suites,
    runc: &Found,
    crun: &Found,
    programs: &Artifact,
) -> Result<Artifact> {
    let root = &suites.root;
    let inputs = Inputs::new("suite-root", 1)
        .text("runc", &runc.tarball.sha256)
        .text("crun", &crun.tarball.sha256)
        .artifact("programs", programs)
        .text("release", &root.release)
        .text("packages", &root.packages.join(" "))
        .text("arrange", ARRANGE);
    let [disk] = produce(build, inputs, ["root.ext4"], |shop| {
        let (tree, sources) = (shop.scratch.join("root"), shop.scratch.join("sources"));
        let runc_source = unpack::run(&runc.tarball, &sources.join("runc"))?;
        let crun_source = unpack::run(&crun.tarball, &sources.join("crun"))?;
        let debian_image = shop.scratch.join("debian.tar");
        let script = shop.scratch.join("arrange");
        std::fs::write(&script, ARRANGE.replace("DATA", DATA))?;
        let hooks = [
            // The suite's Debian image: what is there before any package of ours.
            (
                "--essential-hook",
                format!(
                    "tar -C \"$1\" --one-file-system --exclude='./dev/*' --exclude=./var/cache --exclude=./var/lib/apt -cf {} .",
                    quoted(&debian_image)
                ),
            ),
            (
                "--customize-hook",
                format!(
                    "set -e; mkdir -p \"$1/suites/runc\" \"$1/suites/crun\"; \
                     cp -a {runc}/tests {runc}/man {runc}/contrib {runc}/VERSION \"$1/suites/runc/\"; \
                     cp -a {crun}/tests \"$1/suites/crun/\"; tar -C \"$1/suites\" -xf {programs}; \
                     cp {debian} \"$1/{DATA}/debian-amd64.tar.xz\"; cp {script} \"$1/tmp/arrange\"; \
                     chroot \"$1\" sh /tmp/arrange; rm \"$1/tmp/arrange\"",
                    runc = quoted(&runc_source),
                    crun = quoted(&crun_source),
                    programs = quoted(&programs.path),
                    debian = quoted(&debian_image),
                    script = quoted(&script),
                ),
            ),
        ];
        let recipe = Recipe { release: &root.release, packages: &root.packages, hooks: &hooks };
        make(build, shop, &recipe, &tree)?;
        to_disk(build, shop, &tree, DISK_BYTES)
    })?;
    Ok(disk)
}

/// Makes the disk with the plugins' suites, which are compiled: Debian's packages and `programs.tar`.
pub fn cni(build: &Build, root: &Root, programs: &Artifact) -> Result<Artifact> {
    let inputs = Inputs::new("cni-root", 1)
        .artifact("programs", programs)
        .text("release", &root.release)
        .text("packages", &root.packages.join(" "));
    let [disk] = produce(build, inputs, ["root.ext4"], |shop| {
        let tree = shop.scratch.join("root");
        // The places where `enter` puts what comes from the image, and what `run-plugins` covers.
        let hooks = [(
            "--customize-hook",
            format!(
                "set -e; mkdir -p \"$1/suites/ours\" \"$1/image\"; tar -C \"$1/suites\" -xf {}; \
                 mkdir \"$1/suites/cni-plugins/bin\"",
                quoted(&programs.path)
            ),
        )];
        let recipe = Recipe { release: &root.release, packages: &root.packages, hooks: &hooks };
        make(build, shop, &recipe, &tree)?;
        to_disk(build, shop, &tree, CNI_DISK_BYTES)
    })?;
    Ok(disk)
}

/// Makes the disk with the callers: Debian's packages and nothing else.
pub fn callers(build: &Build, root: &Root) -> Result<Artifact> {
    let inputs = Inputs::new("callers-root", 1)
        .text("release", &root.release)
        .text("packages", &root.packages.join(" "));
    let [disk] = produce(build, inputs, ["root.ext4"], |shop| {
        let tree = shop.scratch.join("root");
        let recipe = Recipe { release: &root.release, packages: &root.packages, hooks: &[] };
        make(build, shop, &recipe, &tree)?;
        to_disk(build, shop, &tree, CALLERS_DISK_BYTES)
    })?;
    Ok(disk)
}

/// The folder `tree` as a file system in `root.ext4`; the folder is gone then.
fn to_disk(build: &Build, shop: &mut Workshop, tree: &Path, bytes: u64) -> Result<()> {
    let file = shop.out.join("root.ext4");
    std::fs::File::create(&file)
        .and_then(|disk| disk.set_len(bytes))
        .with_context(|| format!("{}: cannot make", file.display()))?;
    let mut mkfs = Command::new(build.host.require("mkfs.ext4")?);
    // Every run starts from the same disk and throws away what it changes: a journal would only cost time.
    mkfs.args(["-q", "-F", "-O", "^has_journal", "-d"]).arg(tree).arg(&file);
    shop.log.run(mkfs)?;
    remove_tree(tree)
}
