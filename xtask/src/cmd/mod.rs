//! The verbs that are no stage: one file each.

pub mod clean;
pub mod dist;
pub mod doctor;
pub mod fetch;
pub mod iso;
pub mod kernel;
pub mod manual;
pub mod menuconfig;
pub mod order;
pub mod qemu;
pub mod size;
pub mod sources;
pub mod test;
pub mod update;
pub mod verify;

use crate::artifact::Artifact;
use crate::context::Build;

/// Says where each artefact lies and how big it is.
pub fn report(build: &Build, artifacts: &[&Artifact]) {
    for artifact in artifacts {
        let name = artifact.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        build.ui.say(&name, &format!("{} bytes, {}", artifact.size, artifact.path.display()));
    }
}
