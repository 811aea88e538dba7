//! One virtual machine: boot, talk over the serial console, stop. In: a `Profile`, the built image. Out: what the guest
//! says, its commands' output and status, a serial log. Must never: wait without a deadline, or leave QEMU running.

mod console;
mod kvm;
mod profile;
mod qmp;
pub mod tether;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::context::Build;
use qmp::Control;

pub use console::Console;
pub use kvm::{Acceleration, probe};
pub use profile::{Boot, Disk, DiskBus, Files, Network, Profile};

/// The line that the system prints when it can take containers.
pub const READY: &str = "coracle: ready";

/// How long a machine may take to come up: software emulation on a busy machine is slow, a hang is for ever.
pub const READY_DEADLINE: Duration = Duration::from_secs(180);

/// A running machine.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    console: Console,
    control: Control,
    room: PathBuf,
}

/// What a command in the guest gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Standard output and standard error as they came, to the byte.
    pub bytes: Vec<u8>,
    /// Exit status.
    pub status: i32,
}

impl Vm {
    /// Starts a machine. `log` gets everything that its serial port says.
    pub fn boot(
        build: &Build,
        profile: &Profile,
        files: &Files,
        acceleration: Acceleration,
        log: &Path,
    ) -> Result<Self> {
        let room = build.layout.notes().join(format!("vm-{}-{}", std::process::id(), unique()));
        std::fs::create_dir_all(&room).with_context(|| format!("{}: cannot create", room.display()))?;
        let qemu = build.host.require("qemu-system-x86_64")?;
        let mut command = tether::command(&qemu);
        command.args(profile.arguments(files, acceleration, &room)?);
        command.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]);
        let (control, theirs) = Control::pair()?;
        command.args(qmp::arguments(&theirs));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("qemu-system-x86_64: cannot run")?;
        let console = Console::attach(&mut child, log)?;
        Ok(Self { child, console, control, room })
    }

    /// Waits until the system says that it can take containers.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.expect(READY, READY_DEADLINE)?;
        Ok(())
    }

    /// Types `text` at the console.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.console.send(text.as_bytes())
    }

    /// Waits until `text` appears in what was not yet looked at, and returns everything up to its end.
    pub fn expect(&mut self, text: &str, deadline: Duration) -> Result<Vec<u8>> {
        self.console.expect(text.as_bytes(), Instant::now() + deadline)
    }

    /// Runs a shell command in the guest, as a user would type it, and returns its output and status.
    ///
    /// The frame holds a nonce of its own; the typed line spells it in two halves, so that its echo is no frame.
    /// While the command runs, the terminal neither echoes nor changes bytes, so binary output comes through.
    pub fn command(&mut self, command: &str, deadline: Duration) -> Result<Output> {
        self.command_streaming(command, deadline, &mut |_| Ok(()))
    }

    /// As `command`, and hands the output to `sink` as it comes.
    pub fn command_streaming(
        &mut self,
        command: &str,
        deadline: Duration,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Output> {
        let nonce = unique();
        let until = Instant::now() + deadline;
        let program = self.typed(command, &nonce, until)?;
        self.send(&format!(
            " stty -echo -opost; dmesg -n 1; printf '%s%s\\n' BEGIN- {nonce}; {program} < /dev/null 2>&1; \
             printf '\\n%s%s %s.\\n' END- {nonce} $?; stty echo opost\n"
        ))?;
        self.console.expect(format!("BEGIN-{nonce}").as_bytes(), until)?;
        // The terminal still turned this newline into two bytes or not, depending on when stty took hold.
        self.console.expect(b"\n", until)?;
        let bytes = self.console.stream_until(format!("\nEND-{nonce} ").as_bytes(), until, sink)?;
        let status = self.console.expect(b".", until)?;
        let status = String::from_utf8_lossy(&status[..status.len() - 1]).trim().parse();
        Ok(Output { bytes, status: status.context("the guest's shell gave no status")? })
    }

    /// A word or two that run `command`: itself, quoted, or for one that a terminal line can't hold, a file that is
    /// typed in beforehand.
    fn typed(&mut self, command: &str, nonce: &str, until: Instant) -> Result<String> {
        const LINE_BYTES_MAX: usize = 1000;
        if command.len() <= LINE_BYTES_MAX && command.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Ok(format!("sh -c '{}'", command.replace('\'', "'\\''")));
        }
        let path = format!("/tmp/command-{nonce}");
        self.send(&format!(
            " stty -echo; base64 -d > {path} <<'{nonce}'; printf '%s%s\\n' TYPED- {nonce}\n"
        ))?;
        for line in base64(command.as_bytes()).as_bytes().chunks(512) {
            self.console.send(line)?;
            self.send("\n")?;
        }
        self.send(&format!("{nonce}\n"))?;
        self.console.expect(format!("TYPED-{nonce}").as_bytes(), until)?;
        Ok(format!("sh {path}"))
    }

    /// Presses keys together, by QEMU's names (`ctrl`, `alt`, `delete`).
    pub fn press(&mut self, keys: &[String]) -> Result<()> {
        self.control.press(keys)
    }

    /// Presses the power button (ACPI).
    pub fn power_button(&mut self) -> Result<()> {
        self.control.power_button()
    }

    /// All processors' registers, as QEMU's monitor prints them.
    pub fn registers(&mut self) -> Result<String> {
        self.control.registers()
    }

    /// Waits until QEMU has ended by itself.
    pub fn wait_end(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for QEMU")? {
                return Ok(status);
            }
            if Instant::now() > until {
                bail!("the machine was still running after {} s", deadline.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Copies the console to stdout until QEMU ends, and what comes on stdin to the console once the system is ready.
    /// At the end of stdin the machine is powered off.
    pub fn run_script(&mut self, input: impl std::io::Read + Send + 'static) -> Result<ExitStatus> {
        let until = Instant::now() + READY_DEADLINE;
        let mut stdout = std::io::stdout();
        let mut show = move |bytes: &[u8]| -> Result<()> {
            stdout.write_all(bytes).and_then(|()| stdout.flush()).context("stdout: cannot write")
        };
        self.console.stream_until(READY.as_bytes(), until, &mut show)?;
        show(READY.as_bytes())?;
        let mut writer = self.console.writer()?;
        std::thread::spawn(move || {
            let mut input = input;
            // Errors here mean that the machine is gone; the loop below sees that.
            let _ = std::io::copy(&mut input, &mut writer);
            let _ = writer.write_all(b"\npoweroff\n");
        });
        self.console.stream_to_end(&mut show)?;
        self.wait_end(Duration::from_secs(30))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // The machine may have ended already; both calls are then harmless.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.room);
    }
}

/// A word that occurs nowhere else.
fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let text = format!("{now} {} {count}", std::process::id());
    crate::artifact::sha256_bytes(text.as_bytes())[..16].to_owned()
}

/// RFC 4648 base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_usize, |word, &byte| word << 8 | usize::from(byte))
            << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let letter = if index <= chunk.len() { LETTERS[word >> (18 - 6 * index) & 63] } else { b'=' };
            text.push(char::from(letter));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_rfc_4648s() {
        for (plain, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }
}
