//! QEMU's machine protocol, as far as tests need it (docs/interop/qmp-spec.rst): keys and the power button.
//! In: the socket's path. Out: an error when QEMU refuses. Must never: keep the connection.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Presses keys together.
pub fn press(socket: &Path, keys: &[String]) -> Result<()> {
    let keys: Vec<Value> = keys.iter().map(|key| json!({ "type": "qcode", "data": key })).collect();
    execute(socket, &json!({ "execute": "send-key", "arguments": { "keys": keys } }))
}

/// Presses the power button.
pub fn power_button(socket: &Path) -> Result<()> {
    execute(socket, &json!({ "execute": "system_powerdown" }))
}

fn execute(socket: &Path, command: &Value) -> Result<()> {
    let stream = UnixStream::connect(socket).context("QEMU's control socket can't be reached")?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).context("QEMU's control socket")?;
    let mut reader = BufReader::new(stream.try_clone().context("QEMU's control socket")?);
    let mut writer = stream;
    answer(&mut reader)?;
    for message in [&json!({ "execute": "qmp_capabilities" }), command] {
        writeln!(writer, "{message}").context("QEMU's control socket")?;
        answer(&mut reader)?;
    }
    Ok(())
}

/// The next message that is no event.
fn answer(reader: &mut impl BufRead) -> Result<()> {
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).context("QEMU did not answer")? == 0 {
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
