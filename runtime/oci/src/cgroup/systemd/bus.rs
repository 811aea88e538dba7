//! A connection to systemd: one call at a time, and the ends of jobs.
//!
//! In: calls. Out: answers, or what systemd says against them. Must never: wait longer than `TIMEOUT` for one answer.

use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use super::wire;
use super::wire::Call;
use super::wire::Message;
use super::wire::Object;
use super::wire::Reader;
use super::wire::Writer;
use crate::report::Error;

/// How long one answer, or the end of one job, may take; runc waits as long.
const TIMEOUT: Duration = Duration::from_secs(30);
/// An answer's line before the first message; longer than any.
const LINE_BYTES_MAX: usize = 4096;
/// systemd itself takes root's calls here, without a bus between.
const PRIVATE: &str = "/run/systemd/private";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
const MANAGER: Object = Object {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const PROPERTIES: Object = Object { interface: "org.freedesktop.DBus.Properties", ..MANAGER };
const BUS: Object = Object {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};
const JOB_REMOVED: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// A call that has not been done.
#[derive(Debug)]
pub struct Failure {
    /// The error's name; empty: there was no answer.
    name: String,
    /// Why.
    text: String,
}

impl Failure {
    /// Whether systemd refused by the error whose last part is `name`.
    pub fn is(&self, name: &str) -> bool {
        self.name.ends_with(name)
    }

    /// Whether systemd refused.
    pub fn is_answer(&self) -> bool {
        !self.name.is_empty()
    }

    /// The error, where it ends what was to be done with `unit`.
    pub fn on(self, step: &str, unit: &str) -> Error {
        Error::new(format!("unable to {step} {unit}: systemd: {}", self.text))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure { name: String::new(), text: error.to_string() }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Jobs that have ended, and how.
    ended: Vec<(String, String)>,
}

impl Bus {
    /// Connects to the system's manager, or to the caller's own; directly, or where that can't be by a bus.
    ///
    /// # Errors
    /// Neither answers.
    pub fn connect(is_user: bool) -> Result<Bus, Error> {
        let mut tried = String::new();
        for (path, by_bus) in addresses(is_user).into_iter().flatten() {
            match Bus::open(&path, by_bus) {
                Ok(bus) => return Ok(bus),
                Err(failure) => tried += &format!("; {}: {}", path.display(), failure.text),
            }
        }
        let whose =
            if is_user { "the user's systemd (XDG_RUNTIME_DIR tells where it is)" } else { "systemd" };
        Err(Error::new(format!("--systemd-cgroup: {whose} does not answer{tried}")))
    }

    fn open(path: &Path, by_bus: bool) -> Result<Bus, Failure> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut bus = Bus { stream, serial: 0, ended: Vec::new() };
        // Who calls, the kernel tells: by a name of its own, root of a user namespace would be taken for the host's.
        bus.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let mut line = Vec::new();
        while !line.starts_with(b"OK") {
            line.clear();
            bus.read_line(&mut line)?;
            if line.starts_with(b"REJECTED") || line.starts_with(b"ERROR") {
                return Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied).into());
            }
        }
        if by_bus {
            bus.call_to(BUS, "Hello", "", Writer::default())?;
            let mut rule = Writer::default();
            rule.text(b's', JOB_REMOVED);
            bus.call_to(BUS, "AddMatch", "s", rule)?;
            bus.call("Subscribe", "", Writer::default())?;
        }
        Ok(bus)
    }

    /// No byte more: messages may follow at once.
    fn read_line(&mut self, line: &mut Vec<u8>) -> std::io::Result<()> {
        let mut byte = [0];
        while !line.ends_with(b"\n") && line.len() < LINE_BYTES_MAX {
            self.stream.read_exact(&mut byte)?;
            line.extend(byte);
        }
        if line.ends_with(b"\n") { Ok(()) } else { Err(malformed()) }
    }

    /// Calls a method of the manager.
    ///
    /// # Errors
    /// What systemd says against it; it does not answer.
    pub fn call(&mut self, member: &str, signature: &str, body: Writer) -> Result<Message, Failure> {
        self.call_to(MANAGER, member, signature, body)
    }

    /// A property of the manager that is text.
    ///
    /// # Errors
    /// As `call`.
    pub fn manager_property(&mut self, name: &str) -> Result<String, Failure> {
        let mut body = Writer::default();
        body.text(b's', MANAGER.interface);
        body.text(b's', name);
        let reply = self.call_to(PROPERTIES, "Get", "ss", body)?;
        let text = Reader::new(&reply.body).variant_text().map(str::to_string);
        text.ok_or_else(|| malformed().into())
    }

    /// Waits for the end of the job that `reply` names, and gives its result.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn job_result(&mut self, reply: &Message) -> Result<String, Failure> {
        let job = Reader::new(&reply.body).text(b'o').unwrap_or_default();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(at) = self.ended.iter().position(|(ended, _)| *ended == job) {
                return Ok(self.ended.swap_remove(at).1);
            }
            self.receive(deadline)?;
        }
    }

    fn call_to(
        &mut self,
        object: Object,
        member: &str,
        signature: &str,
        body: Writer,
    ) -> Result<Message, Failure> {
        self.serial += 1;
        let bytes = Call { object, member, signature, body }.into_bytes(self.serial);
        self.stream.write_all(&bytes)?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let message = self.receive(deadline)?;
            if message.reply_to != self.serial {
                continue;
            }
            if message.error.is_empty() {
                return Ok(message);
            }
            let text = Reader::new(&message.body).text(b's').unwrap_or(&message.error).to_string();
            return Err(Failure { name: message.error, text });
        }
    }

    /// The next message; ends of jobs are noted down.
    fn receive(&mut self, deadline: Instant) -> Result<Message, Failure> {
        let message = self.read(deadline).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => std::io::Error::from(std::io::ErrorKind::TimedOut),
            _ => error,
        })?;
        if message.is_job_end {
            let mut body = Reader::new(&message.body);
            let (_number, job, _unit, result) =
                (body.u32(), body.text(b'o'), body.text(b's'), body.text(b's'));
            if let (Some(job), Some(result)) = (job, result) {
                self.ended.push((job.to_string(), result.to_string()));
            }
        }
        Ok(message)
    }

    fn read(&mut self, deadline: Instant) -> std::io::Result<Message> {
        // A timeout of nothing would be none.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        let mut fixed = [0; wire::FIXED_BYTES];
        self.stream.read_exact(&mut fixed)?;
        let mut bytes = fixed.to_vec();
        bytes.resize(wire::FIXED_BYTES + wire::rest_length(&fixed).ok_or_else(malformed)?, 0);
        self.stream.read_exact(&mut bytes[wire::FIXED_BYTES..])?;
        wire::parse(&bytes).ok_or_else(malformed)
    }
}

/// What came is no D-Bus message, or no answer to what was asked.
fn malformed() -> std::io::Error {
    std::io::ErrorKind::InvalidData.into()
}

/// Where systemd may be reached, and whether by a bus.
fn addresses(is_user: bool) -> [Option<(PathBuf, bool)>; 3] {
    if !is_user {
        return [Some((PRIVATE.into(), false)), Some((SYSTEM_BUS.into(), true)), None];
    }
    let folder = std::env::var("XDG_RUNTIME_DIR").ok().filter(|folder| !folder.is_empty());
    let below = |path: &str| folder.as_ref().map(|folder| Path::new(folder).join(path));
    let bus = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    let named = bus.strip_prefix("unix:path=").map(|path| {
        // A key or another address may follow.
        let end = path.bytes().position(|byte| matches!(byte, b',' | b';')).unwrap_or(path.len());
        (PathBuf::from(&path[..end]), true)
    });
    [below("systemd/private").map(|path| (path, false)), below("bus").map(|path| (path, true)), named]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager that answers one call, over a real socket: first with the end of a job, then with what it is told.
    fn answered(answer: &'static [u8]) -> Result<Message, Failure> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut bus = Bus { stream: ours, serial: 0, ended: Vec::new() };
        std::thread::spawn(move || {
            theirs.write_all(answer).unwrap();
            // The call is read, so that its sender is not disturbed.
            let _ = theirs.read(&mut [0; 1024]);
        });
        bus.call("StopUnit", "", Writer::default())
    }

    /// What `open` makes of a peer that says `greeting`, over a real socket.
    fn opened(greeting: &'static [u8]) -> Result<(Bus, UnixStream), Failure> {
        let path = std::env::temp_dir().join(format!("bus-{}-{:p}", std::process::id(), greeting));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let peer = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut said = [0; 29];
            stream.read_exact(&mut said).unwrap();
            stream.write_all(greeting).unwrap();
            (stream, said)
        });
        let bus = Bus::open(&path, false);
        let (stream, said) = peer.join().unwrap();
        assert_eq!(&said, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
        std::fs::remove_file(&path).unwrap();
        Ok((bus?, stream))
    }

    #[test]
    fn a_peer_lets_in_or_not() {
        let (mut bus, _peer) = opened(
            b"DATA\r\nOK 0123\r\nl\x02\x01\x01\x00\x00\x00\x00\x0a\x00\x00\x00\x08\x00\x00\x00\
            \x05\x01u\x00\x01\x00\x00\x00",
        )
        .unwrap();
        // The message that follows at once is not lost.
        assert_eq!(bus.call("Subscribe", "", Writer::default()).unwrap().reply_to, 1);
        assert_eq!(opened(b"REJECTED EXTERNAL\r\n").unwrap_err().text, "permission denied");
        assert_eq!(opened(&[b'x'; LINE_BYTES_MAX]).unwrap_err().text, "invalid data");
    }

    #[test]
    fn an_answer_is_told_from_what_else_comes() {
        let signal = b"l\x04\x01\x01\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\
            l\x02\x01\x01\x00\x00\x00\x00\x0a\x00\x00\x00\x08\x00\x00\x00\x05\x01u\x00\x01\x00\x00\x00";
        assert_eq!(answered(signal).unwrap().reply_to, 1);
    }

    #[test]
    fn an_error_and_an_end_are_told() {
        let error = b"l\x03\x01\x01\x09\x00\x00\x00\x0a\x00\x00\x00'\x00\x00\x00\
            \x05\x01u\x00\x01\x00\x00\x00\x04\x01s\x00\x0c\x00\x00\x00a.NoSuch\
            Unit\x00\x00\x00\x00\x08\x01g\x00\x01s\x00\x00\x04\x00\x00\x00gone\
            \x00";
        let failure = answered(error).unwrap_err();
        assert!(failure.is("NoSuchUnit"), "{failure:?}");
        assert_eq!(failure.on("stop", "a.scope").to_string(), "unable to stop a.scope: systemd: gone");
        let failure = answered(b"no message at all").unwrap_err();
        assert!(failure.on("stop", "a.scope").to_string().ends_with("invalid data"));
        assert!(!answered(b"l\x02").unwrap_err().is_answer());
    }
}
