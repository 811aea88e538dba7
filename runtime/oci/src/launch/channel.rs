//! The handshake. In: messages over a socket pair. Out: the same, typed. Must never: be interpreted by one side only:
//! both read this table.
//!
//! | child says | parent does | parent answers |
//! | --- | --- | --- |
//! | `Ushered` (with an fd) | takes the process that this one made for its own: `usher` | `GoOn`, to that one |
//! | `Born` | id maps, limits; begins to answer as `topic::sources` has it | `GoOn` |
//! | `NamespacesReady` | notes the container down, runs prestart and createRuntime hooks | `GoOn` |
//! | `Terminal` (with an fd) | keeps it for its own terminal | |
//! | `Listener` (with an fd's number) | hands that fd on: `listener` | `GoOn` |
//! | `Ready` | returns: the container is created; or, where the program starts at once, listens for a last `Failed` until
//! exec closes the socket | |
//! | `Failed` (with a sentence) | undoes everything and reports it | |
//!
//! Over a second pair the child asks for sources of mounts and for devices, and the runtime says `Source` (with an fd) or
//! `Failed`: `topic::sources`.

use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;

use crate::report::Error;
use crate::report::Fails;

/// More than any sentence.
const TEXT_BYTES_MAX: usize = 1 << 16;

/// What the child says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The next message brings the pidfd of the container's process, which another one made.
    Ushered,
    /// It runs, and waits for its id maps and limits.
    Born,
    /// Its namespaces and mounts are there, its root is not yet changed.
    NamespacesReady,
    /// The next message brings the master of its terminal.
    Terminal,
    /// Its filter asks a listener, by the fd with this number.
    Listener(i32),
    /// All is done; it waits for `start`, or is about to exec.
    Ready,
    /// The next message brings the source of a mount.
    Source,
    /// A step failed.
    Failed(String),
}

const GO_ON: u8 = b'G';

/// One end.
#[derive(Debug)]
pub struct Channel(pub UnixStream);

impl Channel {
    /// Both ends; close-on-exec.
    ///
    /// # Errors
    /// socketpair(2)'s.
    pub fn pair() -> Result<(Channel, Channel), Error> {
        let (one, other) = UnixStream::pair().step("make", "a socket pair")?;
        Ok((Channel(one), Channel(other)))
    }

    /// The child's side: says `message`.
    ///
    /// # Errors
    /// The parent is gone.
    pub fn say(&mut self, message: &Message) -> Result<(), Error> {
        if let Message::Listener(fd) = message {
            return self.say_listener(*fd);
        }
        let (letter, text) = match message {
            Message::Ushered => (b'U', ""),
            Message::Born => (b'B', ""),
            Message::NamespacesReady => (b'N', ""),
            Message::Terminal => (b'T', ""),
            Message::Ready => (b'R', ""),
            Message::Source => (b'S', ""),
            Message::Failed(text) => (b'F', text.as_str()),
            // Said above.
            Message::Listener(_) => (b'L', ""),
        };
        let text = &text.as_bytes()[..text.len().min(TEXT_BYTES_MAX)];
        // Checked above: it fits.
        let length = u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
        let bytes = [&[letter][..], &length, text].concat();
        self.0.write_all(&bytes).step("talk to", "the runtime")
    }

    /// The child's side: says no more. Nobody listens to a container that waits for `start`: what fails then is for its
    /// standard error.
    pub fn close(&mut self) {
        // What is closed already is fine; a word on it fails from now on.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }

    /// Under a filter that may let every call wait for a listener which has no fd yet, write(2) excepted: so nothing but
    /// that is called, and no memory is asked for.
    fn say_listener(&self, fd: i32) -> Result<(), Error> {
        let mut bytes = [b'L', 4, 0, 0, 0, 0, 0, 0, 0];
        bytes[5..].copy_from_slice(&fd.to_le_bytes());
        // So few bytes go at once, or not at all.
        rustix::io::write(&self.0, &bytes).step("talk to", "the runtime").map(drop)
    }

    /// The child's side: waits until it may go on. Where the parent has given up, it ends without a word: the parent
    /// tells why.
    ///
    /// # Errors
    /// recv(2)'s.
    pub fn wait(&mut self) -> Result<(), Error> {
        let mut answer = [0];
        match self.0.read_exact(&mut answer) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => sys::process::exit_now(1),
            done => done.step("wait for", "the runtime")?,
        }
        if answer[0] == GO_ON { Ok(()) } else { Err(Error::new("the runtime answered nonsense")) }
    }

    /// The parent's side: the next message; None when the child ended without a word.
    ///
    /// # Errors
    /// Nonsense.
    pub fn hear(&mut self) -> Result<Option<Message>, Error> {
        let mut head = [0; 5];
        match self.0.read_exact(&mut head) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            done => done.step("listen to", "the container's process")?,
        }
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > TEXT_BYTES_MAX {
            return Err(Error::new("the container's process said nonsense"));
        }
        let mut text = vec![0; length];
        self.0.read_exact(&mut text).step("listen to", "the container's process")?;
        Ok(Some(match head[0] {
            b'U' => Message::Ushered,
            b'L' => match <[u8; 4]>::try_from(text) {
                Ok(fd) => Message::Listener(i32::from_le_bytes(fd)),
                Err(_) => return Err(Error::new("the container's process said nonsense")),
            },
            b'B' => Message::Born,
            b'N' => Message::NamespacesReady,
            b'T' => Message::Terminal,
            b'R' => Message::Ready,
            b'S' => Message::Source,
            b'F' => Message::Failed(String::from_utf8_lossy(&text).into_owned()),
            _ => return Err(Error::new("the container's process said nonsense")),
        }))
    }

    /// The parent's side, after `Ready`: waits until the program runs, which closes the child's end.
    ///
    /// # Errors
    /// What the child says failed.
    pub fn hear_exec(&mut self) -> Result<(), Error> {
        match self.hear() {
            Ok(Some(Message::Failed(text))) => {
                Err(Error::new(format!("unable to start container process: {text}")))
            }
            // It was killed, perhaps, with something half said: its status tells.
            _ => Ok(()),
        }
    }

    /// The parent's side: lets the child go on.
    ///
    /// # Errors
    /// The child is gone.
    pub fn go_on(&mut self) -> Result<(), Error> {
        self.0.write_all(&[GO_ON]).step("answer", "the container's process")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_arrives_as_it_was_said() {
        let (mut child, mut parent) = Channel::pair().unwrap();
        let failed = Message::Failed("mount \"proc\": no".into());
        for message in [
            Message::Ushered,
            Message::Born,
            Message::NamespacesReady,
            Message::Terminal,
            Message::Listener(0x0102_0304),
            Message::Ready,
            Message::Source,
            failed,
        ] {
            child.say(&message).unwrap();
            assert_eq!(parent.hear().unwrap(), Some(message));
        }
        parent.go_on().unwrap();
        child.wait().unwrap();
        drop(child);
        assert_eq!(parent.hear().unwrap(), None);
    }

    #[test]
    fn after_ready_comes_a_failure_or_the_end() {
        for failure in [None, Some("exec /bin/x: exec format error")] {
            let (mut child, mut parent) = Channel::pair().unwrap();
            if let Some(text) = failure {
                child.say(&Message::Failed(text.into())).unwrap();
            }
            drop(child);
            let heard = parent.hear_exec().map_err(|error| error.to_string());
            let expected = failure.map(|text| format!("unable to start container process: {text}"));
            assert_eq!(heard.err(), expected);
        }
    }

    #[test]
    fn a_closed_end_says_no_more() {
        let (mut child, mut parent) = Channel::pair().unwrap();
        child.close();
        assert!(child.say(&Message::Failed("lost".into())).is_err());
        assert_eq!(parent.hear().unwrap(), None);
    }

    #[test]
    fn nonsense_is_an_error_and_no_memory_is_wasted_on_it() {
        let (child, mut parent) = Channel::pair().unwrap();
        (&child.0).write_all(&[b'F', 0xff, 0xff, 0xff, 0xff]).unwrap();
        assert!(parent.hear().is_err());
    }
}
