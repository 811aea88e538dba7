//! Address -> file. In: an http(s) address, a file that may hold the beginning from an earlier, cut run. Out: the whole
//! file. Must never: judge the content (its hash is the caller's), or wait long for a machine that does not answer.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::context::Build;

/// A machine with no way out moves on to the next origin within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Downloads `url` to `part`, going on where an earlier run was cut if the server can.
pub fn download(build: &Build, name: &str, url: &str, part: &Path) -> Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_resolve(Some(CONNECT_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .http_status_as_error(false)
        .user_agent(concat!("coracle-xtask/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let have = part.metadata().map_or(0, |facts| facts.len());
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = request.call().context("no answer")?;
    let (mut file, start) = match response.status().as_u16() {
        206 => (OpenOptions::new().append(true).open(part), have),
        200 => (File::create(part), 0),
        // The part is as long as the file, or longer: its hash was wrong or never checked. Start clean.
        416 => {
            std::fs::remove_file(part).with_context(|| format!("{}: cannot remove", part.display()))?;
            return download(build, name, url, part);
        }
        status => bail!("the server answered {status}"),
    };
    let file = file.as_mut().map_err(|error| anyhow::anyhow!("{}: cannot write: {error}", part.display()))?;
    let length =
        response.headers().get("content-length").and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    let total = length.map(|length| start + length);
    let bar = build.ui.bytes_bar(name, total);
    bar.set_position(start);
    let started = std::time::Instant::now();
    let received = copy(response.into_body().into_reader(), file, &bar).with_context(|| match total {
        Some(total) => {
            format!("cut after {} of {total} bytes; run again to go on", file.stream_position().unwrap_or(0))
        }
        None => "cut; run again to go on".to_owned(),
    })?;
    bar.finish_and_clear();
    file.sync_all().with_context(|| format!("{}: cannot write", part.display()))?;
    if length.is_some_and(|length| length != received) {
        bail!("cut after {received} of {} bytes; run again to go on", length.unwrap_or_default());
    }
    let rate = received as f64 / 1e6 / started.elapsed().as_secs_f64().max(0.001);
    build.ui.say(
        "fetch",
        &format!("{name}: {:.1} MB at {rate:.1} MB/s from {url}", (start + received) as f64 / 1e6),
    );
    Ok(())
}

fn copy(mut from: impl Read, to: &mut File, bar: &indicatif::ProgressBar) -> std::io::Result<u64> {
    let mut buffer = vec![0; 1 << 17];
    let mut received = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(received),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                received += count as u64;
                bar.inc(count as u64);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
