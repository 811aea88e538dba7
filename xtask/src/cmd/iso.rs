//! `iso`: everything, into dist/. In: `Build`, what goes into the image. Out: the files of dist/.
//! Must never: leave half a file there.

use std::path::Path;

use anyhow::Result;

use crate::artifact::sha256_bytes;
use crate::context::Build;
use crate::pipeline::{self, Image};
use crate::prove::sign;
use crate::stage::rootfs::Contents;
use crate::stamp::lock;

/// Builds the image and fills dist/; with a key, signs its hashes.
pub fn run(build: &Build, contents: &Contents, key: Option<&Path>) -> Result<()> {
    let image = make(build, contents)?;
    if let Some(key) = key {
        let signature = sign::run(build, &build.layout.dist().join("SHA256SUMS"), key)?;
        build.ui.say("iso", &format!("signed: {}", signature.display()));
    }
    let bytes = image.iso.0.size;
    build.ui.say(
        "iso",
        &format!("dist/coracle.iso, {:.1} MiB, sha256 {}", bytes as f64 / 1048576.0, image.iso.0.sha256),
    );
    Ok(())
}

/// Builds the image and fills dist/, for commands that go on with it.
pub fn make(build: &Build, contents: &Contents) -> Result<Image> {
    let image = pipeline::image(build, contents)?;
    // Of two runs at once in one checkout the second waits: the papers in dist/ have to be those of its image.
    let checkout = sha256_bytes(build.layout.root().as_os_str().as_encoded_bytes());
    let _lock = lock(build, "dist", &format!("dist-{}", &checkout[..16]))?;
    super::dist::fill(build, &image)?;
    Ok(image)
}
