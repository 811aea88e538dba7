//! Address -> file. In: an http(s) address, a file that may hold the beginning from an earlier, cut run. Out: the whole
//! file. Must never: judge the content (its hash is the caller's), or wait long for a machine that does not answer.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use indicatif::HumanBytes;

use super::{Begun, Fault};
use crate::context::{Build, Patience};

/// Downloads `url` to `part`, going on where an earlier run was cut if the server can.
pub fn download(build: &Build, name: &str, url: &str, part: &Path) -> Result<Begun, Fault> {
    let have = part.metadata().map_or(0, |facts| facts.len());
    let response = ask(&build.fetch.patience, url, have).map_err(Fault::Origin)?;
    let (file, start) = match response.status().as_u16() {
        206 if have > 0 => (OpenOptions::new().append(true).open(part), have),
        200 => (File::create(part), 0),
        // The part is as long as the file, or longer: its hash was wrong or never checked. Start clean.
        416 if have > 0 => {
            std::fs::remove_file(part)
                .with_context(|| format!("{}: cannot remove", part.display()))
                .map_err(Fault::Machine)?;
            return download(build, name, url, part);
        }
        status => return Err(Fault::Origin(anyhow!("the server answered {status}"))),
    };
    let mut file = file.map_err(|error| Fault::writing(part, error))?;
    let length =
        response.headers().get("content-length").and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    let total = length.map(|length| start + length);
    let bar = build.ui.bytes_bar(name, total);
    bar.set_position(start);
    let started = Instant::now();
    let mut copied = Copied { bytes: 0, bar: &bar, stall: build.fetch.patience.stall };
    let ended = copied.copy(response.into_body().into_reader(), &mut file, part);
    let (received, end) = (copied.bytes, start + copied.bytes);
    bar.finish_and_clear();
    ended.map_err(|fault| fault.in_context(|| cut(end, total)))?;
    file.sync_all().map_err(|error| Fault::writing(part, error))?;
    if total.is_some_and(|total| total != end) {
        return Err(Fault::Origin(anyhow!(cut(end, total))));
    }
    let rate = received as f64 / started.elapsed().as_secs_f64().max(0.001);
    build.ui.say("fetch", &format!("{name}: {} at {}/s", HumanBytes(end), HumanBytes(rate as u64)));
    Ok(if start > 0 { Begun::Earlier } else { Begun::Now })
}

/// The text at `url`.
pub fn text(build: &Build, url: &str) -> anyhow::Result<String> {
    const BYTES_MAX: u64 = 16 << 20;
    let mut response = ask(&build.fetch.patience, url, 0)?;
    if response.status().as_u16() != 200 {
        return Err(anyhow!("the server answered {}", response.status().as_u16()));
    }
    let text = response.body_mut().with_config().limit(BYTES_MAX).lossy_utf8(true).read_to_string();
    text.map_err(|error| anyhow!("its text could not be read: {error}"))
}

/// Asks for `url` from byte `have` on.
fn ask(patience: &Patience, url: &str, have: u64) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.answer))
        .timeout_per_read(Some(patience.stall))
        .http_status_as_error(false)
        .user_agent(concat!("coracle-xtask/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    request.call().map_err(|error| match error {
        ureq::Error::Timeout(ureq::Timeout::Resolve) => {
            anyhow!("its name was not resolved within {} s", patience.connect.as_secs_f32())
        }
        ureq::Error::Timeout(ureq::Timeout::Connect) => {
            anyhow!("no connection within {} s", patience.connect.as_secs_f32())
        }
        ureq::Error::Timeout(_) => {
            anyhow!("no answer within {} s", patience.answer.as_secs_f32())
        }
        ureq::Error::Io(error) => anyhow!("no answer: {error}"),
        error => anyhow!("no answer: {error}"),
    })
}

fn cut(end: u64, total: Option<u64>) -> String {
    let of = total.map_or(String::new(), |total| format!(" of {total}"));
    format!("cut after {end}{of} bytes; the next run goes on from there")
}

/// ureq hands its own error through the reader.
fn is_timeout(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    matches!(inner, Some(ureq::Error::Timeout(_)))
}

/// How far a download has come.
struct Copied<'a> {
    bytes: u64,
    bar: &'a indicatif::ProgressBar,
    stall: Duration,
}

impl Copied<'_> {
    /// Copies `from` to its end. What can't be read is the origin's fault, what can't be written this machine's.
    fn copy(&mut self, mut from: impl Read, to: &mut File, part: &Path) -> Result<(), Fault> {
        let mut buffer = vec![0; 1 << 17];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    to.write_all(&buffer[..count]).map_err(|error| Fault::writing(part, error))?;
                    self.bytes += count as u64;
                    self.bar.inc(count as u64);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    return Err(Fault::Origin(anyhow!("nothing came for {} s", self.stall.as_secs_f32())));
                }
                Err(error) => return Err(Fault::Origin(anyhow!(error))),
            }
        }
    }
}
