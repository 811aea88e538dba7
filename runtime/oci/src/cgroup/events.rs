//! The files of a cgroup by which the kernel tells that something happened.
//!
//! In: a cgroup's directory. Out: a wait for a state with a deadline; `Watch`, which tells of OOM kills and the end.
//! Must never: poll in a loop of sleeps; the kernel wakes a poll(2) on these files (cgroup-v2.rst, "[Un]populated
//! Notification").

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::openat;
use rustix::io::Errno;

/// A flat-keyed file (`KEY NUMBER` lines) that is read again and again.
#[derive(Debug)]
pub(super) struct KeyedFile {
    fd: OwnedFd,
}

impl KeyedFile {
    pub(super) fn open(dir: BorrowedFd<'_>, name: &str) -> Result<KeyedFile, Errno> {
        let fd = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(KeyedFile { fd })
    }

    /// The number behind `key`. Reading also arms the next notification.
    pub(super) fn get(&self, key: &str) -> Result<Option<u64>, Errno> {
        let mut buffer = [0u8; 4096];
        let length = rustix::io::retry_on_intr(|| rustix::io::pread(&self.fd, &mut buffer, 0))?;
        let text = std::str::from_utf8(&buffer[..length]).map_err(|_| Errno::INVAL)?;
        Ok(value_of(text, key))
    }
}

/// The number behind `key` in a flat-keyed file's text.
pub(super) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Waits until `key` of `cgroup.events` is `wanted`; false: it isn't when `timeout` is over.
/// A cgroup that is gone has neither processes nor frozen ones.
pub(super) fn wait_for(
    dir: BorrowedFd<'_>,
    key: &str,
    wanted: bool,
    timeout: Duration,
) -> Result<bool, Errno> {
    let gone = |errno| if matches!(errno, Errno::NODEV | Errno::NOENT) { Ok(!wanted) } else { Err(errno) };
    let file = match KeyedFile::open(dir, "cgroup.events") {
        Ok(file) => file,
        Err(errno) => return gone(errno),
    };
    let deadline = Instant::now() + timeout;
    loop {
        match file.get(key) {
            Ok(value) if (value == Some(1)) == wanted => return Ok(true),
            Ok(_) => {}
            Err(errno) => return gone(errno),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        poll_files(&[file.fd.as_fd()], left)?;
    }
}

/// Waits for a change of one of the files, at most `timeout`.
fn poll_files(files: &[BorrowedFd<'_>], timeout: Duration) -> Result<bool, Errno> {
    let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
    let mut fds: Vec<PollFd<'_>> =
        files.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::PRI)).collect();
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// What happened in a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The kernel killed processes for want of memory.
    Oom,
    /// The last process is gone, or the cgroup itself.
    Empty,
    /// Nothing in the time given.
    Nothing,
}

/// A cgroup under observation.
#[derive(Debug)]
pub struct Watch {
    events: KeyedFile,
    /// None: the memory controller isn't enabled there.
    memory: Option<KeyedFile>,
    oom_kills: u64,
}

impl Watch {
    pub(super) fn new(dir: BorrowedFd<'_>) -> Result<Watch, Errno> {
        let events = KeyedFile::open(dir, "cgroup.events")?;
        let memory = match KeyedFile::open(dir, "memory.events") {
            Ok(file) => Some(file),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno),
        };
        let oom_kills = memory.as_ref().map_or(Ok(None), |file| file.get("oom_kill"))?.unwrap_or(0);
        Ok(Watch { events, memory, oom_kills })
    }

    /// The next event, waiting at most `timeout`.
    ///
    /// # Errors
    /// A file that can't be read, but for its being gone.
    pub fn next(&mut self, timeout: Duration) -> Result<Event, Errno> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(memory) = &self.memory {
                match memory.get("oom_kill") {
                    Ok(count) => {
                        let count = count.unwrap_or(0);
                        if std::mem::replace(&mut self.oom_kills, count) < count {
                            return Ok(Event::Oom);
                        }
                    }
                    Err(Errno::NODEV) => return Ok(Event::Empty),
                    Err(errno) => return Err(errno),
                }
            }
            match self.events.get("populated") {
                Ok(Some(0)) | Err(Errno::NODEV) => return Ok(Event::Empty),
                Ok(_) => {}
                Err(errno) => return Err(errno),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Event::Nothing);
            }
            let files: Vec<BorrowedFd<'_>> =
                std::iter::once(&self.events).chain(&self.memory).map(|file| file.fd.as_fd()).collect();
            poll_files(&files, left)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_key() {
        let text = "low 1\noom 2\noom_kill 3\noom_group_kill 4\n";
        assert_eq!(value_of(text, "oom"), Some(2));
        assert_eq!(value_of(text, "oom_kill"), Some(3));
        assert_eq!(value_of(text, "kill"), None);
        assert_eq!(value_of("frozen x\n", "frozen"), None);
    }
}
