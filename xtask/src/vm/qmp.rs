//! QEMU's machine protocol, as far as tests need it (docs/interop/qmp-spec.rst): keys and the power button.
//! In: one end of a socket pair whose other end QEMU inherits. Out: an error when QEMU refuses.
//! Must never: need a socket file: a path may be too long for one, and would be left behind when a run is cut.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::FdFlags;
use serde_json::{Value, json};

/// The connection to one machine.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
    greeted: bool,
}

/// QEMU's end: inherited by the next program that is started, and closed here when dropped.
#[derive(Debug)]
pub struct Inherited(UnixStream);

/// QEMU's arguments for the connection.
pub fn arguments(theirs: &Inherited) -> [String; 4] {
    let chardev = format!("socket,id=control,fd={}", theirs.0.as_raw_fd());
    ["-chardev".to_owned(), chardev, "-mon".to_owned(), "chardev=control,mode=control".to_owned()]
}

impl Control {
    /// Both ends.
    pub fn pair() -> Result<(Self, Inherited)> {
        let (ours, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
        ours.set_read_timeout(Some(Duration::from_secs(10))).context("QEMU's control socket")?;
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).context("QEMU's control socket")?;
        Ok((Self { stream: BufReader::new(ours), greeted: false }, Inherited(theirs)))
    }

    /// Presses keys together.
    pub fn press(&mut self, keys: &[String]) -> Result<()> {
        let keys: Vec<Value> = keys.iter().map(|key| json!({ "type": "qcode", "data": key })).collect();
        self.execute(&json!({ "execute": "send-key", "arguments": { "keys": keys } }))
    }

    /// Presses the power button.
    pub fn power_button(&mut self) -> Result<()> {
        self.execute(&json!({ "execute": "system_powerdown" }))
    }

    fn execute(&mut self, command: &Value) -> Result<()> {
        if !self.greeted {
            self.answer()?;
            self.say(&json!({ "execute": "qmp_capabilities" }))?;
            self.greeted = true;
        }
        self.say(command)
    }

    fn say(&mut self, message: &Value) -> Result<()> {
        writeln!(self.stream.get_mut(), "{message}").context("QEMU's control socket")?;
        self.answer()
    }

    /// The next message that is no event.
    fn answer(&mut self) -> Result<()> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).context("QEMU did not answer")? == 0 {
                bail!("QEMU closed its control socket");
            }
            let message: Value = serde_json::from_str(&line).context("QEMU answered nonsense")?;
            if let Some(error) = message.get("error") {
                bail!("QEMU refused: {error}");
            }
            if message.get("event").is_none() {
                return Ok(());
            }
        }
    }
}
