//! The serial console. In: QEMU's stdin and stdout. Out: bytes up to a text that was waited for; everything in a log.
//! Must never: wait longer than asked, or for a guest that has panicked or ended.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// What the kernel says when it is lost.
const PANIC: &[u8] = b"Kernel panic - not syncing";

/// Both directions of a serial console.
#[derive(Debug)]
pub struct Console {
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// What came and was not yet looked at.
    pending: Vec<u8>,
    /// Stays whole: a panic is seen even if its text was cut across two reads or consumed.
    recent: Vec<u8>,
    log: PathBuf,
    errors: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Console {
    /// Takes over the streams of a QEMU process that was started with `-serial stdio` and pipes.
    pub fn attach(child: &mut Child, log: &Path) -> Result<Self> {
        if let Some(parent) = log.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("{}: cannot create", parent.display()))?;
        }
        let mut file =
            File::create(log).with_context(|| format!("{}: cannot create the serial log", log.display()))?;
        let input = child.stdin.take().context("QEMU has no stdin")?;
        let mut stdout = child.stdout.take().context("QEMU has no stdout")?;
        let mut stderr = child.stderr.take().context("QEMU has no stderr")?;
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                // A full disk must not end the test run; the verdict does not depend on the log.
                let _ = file.write_all(&buffer[..count]);
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let errors = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let sink = errors.clone();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            if let Ok(mut errors) = sink.lock() {
                *errors = text;
            }
        });
        Ok(Self { input, output, pending: Vec::new(), recent: Vec::new(), log: log.to_owned(), errors })
    }

    /// Types bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.input.write_all(bytes).and_then(|()| self.input.flush());
        written.map_err(|_| self.ended())
    }

    /// A second handle for typing.
    pub fn writer(&self) -> Result<File> {
        use std::os::fd::AsFd;
        Ok(File::from(self.input.as_fd().try_clone_to_owned().context("cannot duplicate the console")?))
    }

    /// Everything up to and including `text`.
    pub fn expect(&mut self, text: &[u8], until: Instant) -> Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.pending, text) {
                return Ok(self.pending.drain(..at + text.len()).collect());
            }
            self.receive(text, until)?;
        }
    }

    /// Everything before `text`, handed to `sink` as it comes; `text` itself is consumed.
    pub fn stream_until(
        &mut self,
        text: &[u8],
        until: Instant,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let found = find(&self.pending, text);
            // The last bytes may be the beginning of `text`.
            let sure = found.unwrap_or_else(|| (self.pending.len() + 1).saturating_sub(text.len()));
            let bytes: Vec<u8> = self.pending.drain(..sure).collect();
            sink(&bytes)?;
            all.extend_from_slice(&bytes);
            if found.is_some() {
                self.pending.drain(..text.len());
                return Ok(all);
            }
            self.receive(text, until)?;
        }
    }

    /// Everything until QEMU ends.
    pub fn stream_to_end(&mut self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        sink(&std::mem::take(&mut self.pending))?;
        while let Ok(bytes) = self.output.recv() {
            sink(&bytes)?;
        }
        Ok(())
    }

    fn receive(&mut self, awaited: &[u8], until: Instant) -> Result<()> {
        let bytes = match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(bytes) => bytes,
            Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "the guest did not say {:?} in time; its last lines:\n{}\nserial log: {}",
                    String::from_utf8_lossy(awaited),
                    self.tail(),
                    self.log.display()
                );
            }
        };
        self.pending.extend_from_slice(&bytes);
        self.recent.extend_from_slice(&bytes);
        if find(&self.recent, PANIC).is_some() {
            // The reason stands behind the word, and may need a moment more.
            while let Ok(more) = self.output.recv_timeout(std::time::Duration::from_millis(500)) {
                self.recent.extend_from_slice(&more);
            }
            let text = String::from_utf8_lossy(&self.recent);
            let reason = text.lines().find_map(|line| line.split_once("Kernel panic - not syncing: "));
            let reason = reason.map_or("without a word", |(_, reason)| reason.trim());
            bail!(
                "the guest's kernel panicked: {reason}\nits last lines:\n{}\nserial log: {}",
                self.tail(),
                self.log.display()
            );
        }
        let keep = self.recent.len().saturating_sub(4096);
        self.recent.drain(..keep);
        Ok(())
    }

    fn ended(&self) -> anyhow::Error {
        // The thread that reads stderr ends with QEMU; give it a moment.
        std::thread::sleep(std::time::Duration::from_millis(200));
        let errors = self.errors.lock().map(|text| text.trim().to_owned()).unwrap_or_default();
        let errors = if errors.is_empty() { String::new() } else { format!("\nQEMU said: {errors}") };
        anyhow::anyhow!(
            "the machine ended; its last lines:\n{}{errors}\nserial log: {}",
            self.tail(),
            self.log.display()
        )
    }

    fn tail(&self) -> String {
        let text = String::from_utf8_lossy(&self.recent);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..]
            .iter()
            .map(|line| format!("    {line}"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    /// A program in QEMU's place.
    fn console(script: &str) -> (tempfile::TempDir, Child, Console) {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let console = Console::attach(&mut child, &dir.path().join("log")).unwrap();
        (dir, child, console)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn what_was_awaited_is_consumed_and_the_rest_stays() {
        let (_dir, _child, mut console) = console("printf 'one two three'; sleep 1");
        assert_eq!(console.expect(b"two", soon()).unwrap(), b"one two");
        assert_eq!(console.expect(b"three", soon()).unwrap(), b" three");
    }

    #[test]
    fn a_text_cut_in_two_is_found_and_not_shown() {
        let (_dir, _child, mut console) = console("printf 'abcEN'; sleep 0.2; printf 'Ddef'; sleep 1");
        let mut shown = Vec::new();
        let all = console
            .stream_until(b"END", soon(), &mut |bytes| {
                shown.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        assert_eq!((all, shown), (b"abc".to_vec(), b"abc".to_vec()));
    }

    #[test]
    fn a_panic_ends_the_wait_with_its_reason() {
        let (_dir, _child, mut console) =
            console("printf 'Kernel panic - not syncing: Attempted to kill init!\\n'; sleep 20");
        let message = console.expect(b"ready", soon()).unwrap_err().to_string();
        assert!(message.contains("panicked") && message.contains("kill init"), "{message}");
    }

    #[test]
    fn an_end_names_what_qemu_said() {
        let (_dir, _child, mut console) = console("echo 'no such image' >&2");
        let message = console.expect(b"ready", soon()).unwrap_err().to_string();
        assert!(message.contains("ended") && message.contains("no such image"), "{message}");
    }

    #[test]
    fn a_silent_guest_runs_into_the_deadline() {
        let (_dir, _child, mut console) = console("sleep 20");
        let message =
            console.expect(b"ready", Instant::now() + Duration::from_millis(100)).unwrap_err().to_string();
        assert!(message.contains("did not say"), "{message}");
    }
}
