//! `iso`: everything, into dist/. In: `Build`, what goes into the image. Out: the files of dist/.
//! Must never: leave half a file there.

use anyhow::Result;

use crate::context::Build;
use crate::pipeline::{self, Image};
use crate::stage::rootfs::Contents;

/// Builds the image and fills dist/.
pub fn run(build: &Build, contents: &Contents) -> Result<()> {
    let image = make(build, contents)?;
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
    super::dist::fill(build, &image)?;
    Ok(image)
}
