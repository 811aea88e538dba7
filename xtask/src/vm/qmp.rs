//! QEMU's machine protocol, as far as tests and benches need it (docs/interop/qmp-spec.rst): keys, the power button, registers.
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
        self.execute(&json!({ "execute": "send-key", "arguments": { "keys": keys } })).map(drop)
    }

    /// Presses the power button.
    pub fn power_button(&mut self) -> Result<()> {
        self.execute(&json!({ "execute": "system_powerdown" })).map(drop)
    }

    /// All processors' registers, as QEMU's monitor prints them. They stand meanwhile: of one that runs they are not told
    /// as they are.
    pub fn registers(&mut self) -> Result<String> {
        self.execute(&json!({ "execute": "stop" }))?;
        let ask = json!({ "command-line": "info registers -a" });
        let said = self.execute(&json!({ "execute": "human-monitor-command", "arguments": ask }))?;
        self.execute(&json!({ "execute": "cont" }))?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    fn execute(&mut self, command: &Value) -> Result<Value> {
        if !self.greeted {
            self.answer()?;
            self.say(&json!({ "execute": "qmp_capabilities" }))?;
            self.greeted = true;
        }
        self.say(command)
    }

    fn say(&mut self, message: &Value) -> Result<Value> {
        writeln!(self.stream.get_mut(), "{message}").context("QEMU's control socket")?;
        self.answer()
    }

    /// What the next message that is no event returns.
    fn answer(&mut self) -> Result<Value> {
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
                return Ok(message.get("return").cloned().unwrap_or_default());
            }
        }
    }
}
