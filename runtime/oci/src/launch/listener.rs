//! Whoever decides about system calls with SCMP_ACT_NOTIFY (config-linux.md, "The Container Process State"). In:
//! `listenerPath`, `listenerMetadata`, the number of the fd that the filter gave the process. Out: the fd and who it is
//! about, sent to the listener. Must never: let the process go on before the listener has its fd.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use rustix::process::Pid;
use serde::Serialize;

use crate::report::Error;
use crate::report::Fails;
use crate::spec;
use crate::store::Container;
use crate::store::State;
use crate::store::Status;
use crate::topic::conditions::Conditions;
use crate::topic::console;

/// The connection to a listener, and what it is to be told.
#[derive(Debug)]
pub struct Listener {
    socket: UnixStream,
    metadata: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: State<'a>,
}

/// Connects to the listener that a filter needs, before anything is made; None where the filter needs none.
///
/// # Errors
/// Nobody listens there.
pub fn connect(conditions: &Conditions) -> Result<Option<Listener>, Error> {
    let Some((path, metadata)) = &conditions.listener else { return Ok(None) };
    let socket = UnixStream::connect(path).step("failed to connect with seccomp agent: connect to", path)?;
    Ok(Some(Listener { socket, metadata: metadata.clone() }))
}

impl Listener {
    /// Sends the fd with the number `fd` of the process `pid`, which waits for the answer.
    ///
    /// # Errors
    /// The fd can't be had, or the listener is gone.
    pub fn hand_on(
        mut self,
        container: &Container,
        status: Status,
        pid: Pid,
        pidfd: BorrowedFd<'_>,
        fd: i32,
    ) -> Result<(), Error> {
        let flags = rustix::process::PidfdGetfdFlags::empty();
        let fd =
            rustix::process::pidfd_getfd(pidfd, fd, flags).step("take over", "the seccomp listener's fd")?;
        let state = ProcessState {
            oci_version: &container.record.spec.oci_version,
            fds: ["seccompFd"],
            pid: pid.as_raw_nonzero().get(),
            metadata: &self.metadata,
            state: container.state(status),
        };
        let text = spec::text("the container process state", &state)?;
        // The fd has to come with the first byte, and the text may not fit into one message.
        let (first, rest) = text.split_at(1);
        console::send_fd(&self.socket, first, fd.as_fd())
            .and_then(|()| self.socket.write_all(rest).step("send", "the container process state"))
            .map_err(|error| Error::new(format!("seccomp agent: {error}")))
    }
}
