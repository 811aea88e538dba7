//! SHA256SUMS -> SHA256SUMS.sig. In: a private key of OpenSSH's kinds. Out: a signature that `ssh-keygen -Y verify` takes.
//! Must never: keep or copy the key; ssh-keygen reads it, and asks for its passphrase.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::context::Build;
use crate::stamp::write_whole;

/// What the signature is good for; the verifier has to say the same word.
pub const NAMESPACE: &str = "coracle";

/// Signs `sums` with `key`; the signature lies beside it, with `.sig` at its end.
pub fn run(build: &Build, sums: &Path, key: &Path) -> Result<PathBuf> {
    let input = File::open(sums).with_context(|| format!("{}: cannot open", sums.display()))?;
    let output = Command::new(build.host.require("ssh-keygen")?)
        .args(["-Y", "sign", "-n", NAMESPACE, "-f"])
        .arg(key)
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .context("ssh-keygen: cannot run")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("--sign {}: ssh-keygen did not sign: {}", key.display(), said.trim());
    }
    let signature = sums.with_extension("sig");
    write_whole(&signature, &output.stdout)?;
    Ok(signature)
}
