//! `dhcp daemon`: holds the leases of this machine's containers. One thread a lease, which sleeps until it is time to
//! renew; one a question.
//!
//! In: questions on a Unix socket. Out: leases, in their servers' eyes too; files in /run/cni/dhcp, from which a daemon
//! that is started again goes on. Must never: let a lease's end pass in silence: the interface goes down.
//!
//! A lease keeps its network namespace open, so that it can be given back when the container is gone already.

use std::collections::BTreeMap;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use serde_json::Value;
use serde_json::json;
use sys::start::ExitCode;

use super::client::Client;
use super::client::Failure;
use super::lease_file::LeaseFile;
use super::message::Lease;
use crate::error;
use crate::error::Error;
use crate::plan::Attachment;
use crate::version::Version;

const STATE: &str = "/run/cni/dhcp";
const QUESTION_LEN_MAX: u64 = 64 * 1024;
const QUESTION_WAIT: Duration = Duration::from_secs(10);
/// How long one renewal waits for its answer, and how long it is until the next at least (RFC 2131, 4.4.5 has a minute; a
/// lease of a few minutes could end within that).
const RENEWAL_WAIT: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_secs(1);

struct Daemon {
    state: PathBuf,
    held: Mutex<BTreeMap<Attachment, Arc<Held>>>,
}

/// A lease that is held.
struct Held {
    attachment: Attachment,
    client: Client,
    file: LeaseFile,
    lease: Mutex<Lease>,
    is_over: Mutex<bool>,
    wake: Condvar,
}

/// Runs `dhcp daemon WORDS...` and returns its exit code.
pub fn main(words: &[String]) -> ExitCode {
    match socket_of(words).and_then(|socket| serve(&socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            drop(writeln!(std::io::stderr(), "dhcp: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// `-socketpath PATH`, also with two dashes and with `=`, as the reference has it.
fn socket_of(words: &[String]) -> Result<PathBuf, String> {
    let mut socket = PathBuf::from(super::SOCKET);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let bare = word.trim_start_matches('-');
        let (name, value) = bare.split_once('=').map_or((bare, None), |(name, value)| (name, Some(value)));
        if name != "socketpath" || bare == word {
            return Err(format!("{word}: unknown; usage: dhcp daemon [-socketpath PATH]"));
        }
        let value = value.or_else(|| words.next().map(String::as_str));
        socket = PathBuf::from(value.ok_or_else(|| format!("{word} needs a path"))?);
    }
    Ok(socket)
}

fn serve(socket: &Path) -> Result<(), String> {
    let daemon = Arc::new(Daemon { state: PathBuf::from(STATE), held: Mutex::default() });
    let failed = |path: &Path, cause: std::io::Error| format!("{}: {cause}", path.display());
    for folder in [socket.parent().unwrap_or(Path::new("/")), &daemon.state] {
        std::fs::create_dir_all(folder).map_err(|cause| failed(folder, cause))?;
    }
    if UnixStream::connect(socket).is_ok() {
        return Err(format!("{}: another daemon answers there", socket.display()));
    }
    let _ = std::fs::remove_file(socket); // one that did not end well left it
    let listener = UnixListener::bind(socket).map_err(|cause| failed(socket, cause))?;
    daemon.go_on();
    for stream in listener.incoming().flatten() {
        let daemon = Arc::clone(&daemon);
        std::thread::spawn(move || daemon.answer(stream));
    }
    Ok(())
}

impl Daemon {
    /// Takes up the leases that a daemon before this one held.
    fn go_on(&self) {
        for entry in std::fs::read_dir(&self.state).into_iter().flatten().flatten() {
            match LeaseFile::read(entry.path()) {
                Some((file, attachment, client, lease, age)) => {
                    let since = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
                    self.hold(Held::new(attachment, client, file, lease), since);
                }
                None => drop(std::fs::remove_file(entry.path())),
            }
        }
    }

    fn answer(&self, mut stream: UnixStream) {
        let mut question = Vec::new();
        let read = stream
            .set_read_timeout(Some(QUESTION_WAIT))
            .and_then(|()| (&stream).take(QUESTION_LEN_MAX).read_to_end(&mut question));
        if read.is_err() {
            return;
        }
        let question: Value = serde_json::from_slice(&question).unwrap_or_default();
        let answer = self.act(&question).unwrap_or_else(|error| error.to_json(Version::V1_1_0));
        if stream.write_all(answer.to_string().as_bytes()).is_err() && question["verb"] == "ADD" {
            // Who asked is gone, and nobody else knows of the lease.
            let mut back = question;
            back["verb"] = json!("DEL");
            let _ = self.act(&back);
        }
    }

    fn act(&self, question: &Value) -> Result<Value, Error> {
        let text = |key: &str| question[key].as_str().unwrap_or_default().to_string();
        let attachment = Attachment { network: text("network"), id: text("id"), ifname: text("ifname") };
        let more = &question["more"];
        match question["verb"].as_str().unwrap_or_default() {
            "ADD" => return self.add(attachment, more),
            "CHECK" => {
                let held = self.all().get(&attachment).cloned();
                let held = held.filter(|held| !*locked(&held.is_over)).ok_or_else(|| {
                    let message = format!("dhcp holds no lease for {} {}", attachment.id, attachment.ifname);
                    Error::new(error::CHECK_FAILED, message)
                })?;
                return locked(&held.lease).reply().to_json(Version::V1_1_0);
            }
            "DEL" => {
                let held = self.all().remove(&attachment);
                held.iter().for_each(|held| held.release());
            }
            "GC" => {
                let valid = more["valid"].as_array().cloned().unwrap_or_default();
                let is_valid = |held: &Attachment| {
                    held.network != attachment.network
                        || valid
                            .iter()
                            .any(|keep| keep[0] == held.id.as_str() && keep[1] == held.ifname.as_str())
                };
                let over: Vec<_> = self.all().extract_if(.., |held, _| !is_valid(held)).collect();
                over.iter().for_each(|(_, held)| held.release());
            }
            "STATUS" => {}
            other => return Err(Error::new(error::INVALID_ENVIRONMENT, format!("{other:?} is no verb"))),
        }
        Ok(json!({}))
    }

    fn add(&self, attachment: Attachment, more: &Value) -> Result<Value, Error> {
        let path = more["netns"].as_str().unwrap_or_default();
        let netns = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let netns = netns.map_err(|errno| Error::new(error::INVALID_NETNS, format!("{path}: {errno}")))?;
        let option = |pair: &Value| {
            let value = pair[1].as_array()?.iter().map(|byte| u8::try_from(byte.as_u64()?).ok());
            Some((u8::try_from(pair[0].as_u64()?).ok()?, value.collect::<Option<Vec<u8>>>()?))
        };
        let options = more["options"].as_array().into_iter().flatten().filter_map(option).collect();
        let client = Client { netns, ifname: attachment.ifname.clone(), options };
        // One of an attachment that was never detached; the server knows the client, and gives the same address.
        if let Some(old) = self.all().remove(&attachment) {
            old.end();
        }
        let lease = client.acquire().map_err(|failure| Error::new(error::OTHER, told(&failure)))?;
        let answer = lease.reply().to_json(Version::V1_1_0)?;
        let held = Held::new(attachment, client, LeaseFile::new(&self.state, path), lease);
        held.note();
        self.hold(held, Instant::now());
        Ok(answer)
    }

    fn hold(&self, held: Held, since: Instant) {
        let held = Arc::new(held);
        self.all().insert(held.attachment.clone(), Arc::clone(&held));
        std::thread::spawn(move || held.keep(since));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Attachment, Arc<Held>>> {
        locked(&self.held)
    }
}

impl Held {
    fn new(attachment: Attachment, client: Client, file: LeaseFile, lease: Lease) -> Held {
        let lease = Mutex::new(lease);
        Held { attachment, client, file, lease, is_over: Mutex::default(), wake: Condvar::new() }
    }

    /// Renews until it is given back, refused, or at its end.
    fn keep(&self, mut since: Instant) {
        let mut wait = locked(&self.lease).renew.saturating_sub(since.elapsed());
        loop {
            if self.is_over_within(wait) {
                return;
            }
            let lease = locked(&self.lease).clone();
            let age = since.elapsed();
            let is_late = age >= lease.rebind;
            let left = if is_late { lease.length } else { lease.rebind }.saturating_sub(age);
            let renewed = if age >= lease.length {
                Err(Failure::Refused)
            } else {
                let asked = Instant::now();
                let wait = RENEWAL_WAIT.min(left.max(PAUSE_MIN));
                self.client.renew(&lease, is_late, wait).map(|lease| (lease, asked))
            };
            wait = match renewed {
                Ok((lease, asked)) => {
                    since = asked;
                    let renew = lease.renew;
                    *locked(&self.lease) = lease;
                    self.note();
                    renew
                }
                Err(Failure::Other(message)) => {
                    self.log(&message);
                    (left / 2).max(PAUSE_MIN)
                }
                Err(Failure::Refused) => {
                    if !self.is_over_within(Duration::ZERO) {
                        self.log("the lease has ended; the interface goes down");
                        self.client.take_down();
                        self.end();
                    }
                    return;
                }
            };
        }
    }

    /// Sleeps, and says whether it is over.
    fn is_over_within(&self, wait: Duration) -> bool {
        let is_over = locked(&self.is_over);
        let slept = self.wake.wait_timeout_while(is_over, wait, |is_over| !*is_over);
        *slept.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Ends it here, and says whether it had ended before.
    fn end(&self) -> bool {
        let had_ended = std::mem::replace(&mut *locked(&self.is_over), true);
        self.wake.notify_all();
        self.file.remove();
        had_ended
    }

    /// Ends it here and at its server, who may have given the address to somebody else if it had ended before.
    fn release(&self) {
        if self.end() {
            return;
        }
        let lease = locked(&self.lease).clone();
        if let Err(failure) = self.client.release(&lease) {
            self.log(&format!("the lease could not be given back: {}", told(&failure)));
        }
    }

    fn note(&self) {
        let lease = locked(&self.lease).clone();
        // Held while the file is written, or the end would come between and the file stay.
        let is_over = locked(&self.is_over);
        if *is_over {
            return;
        }
        if let Err(cause) = self.file.write(&self.attachment, &self.client, &lease) {
            self.log(&format!("the lease can't be noted down: {cause}"));
        }
    }

    fn log(&self, message: &str) {
        let Attachment { network, id, ifname } = &self.attachment;
        drop(writeln!(std::io::stderr(), "dhcp: {network} {id} {ifname}: {message}"));
    }
}

fn told(failure: &Failure) -> String {
    match failure {
        Failure::Refused => "the DHCP server refuses".to_string(),
        Failure::Other(message) => message.clone(),
    }
}

/// A thread that panicked left nothing half done here: each lock guards one value.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sockets_path_is_given_as_the_reference_has_it() {
        let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        for text in ["-socketpath /x", "--socketpath /x", "-socketpath=/x", "--socketpath=/x"] {
            assert_eq!(socket_of(&words(text)).unwrap(), Path::new("/x"), "{text}");
        }
        assert_eq!(socket_of(&[]).unwrap(), Path::new("/run/cni/dhcp.sock"));
        for wrong in ["-socketpath", "socketpath /x", "-other"] {
            assert!(socket_of(&words(wrong)).is_err(), "{wrong}");
        }
    }
}
