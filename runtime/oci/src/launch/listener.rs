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
use crate::seccomp::Filter;
use crate::seccomp::Listener;
use crate::store::Container;
use crate::store::State;
use crate::store::Status;
use crate::topic::conditions::Conditions;
use crate::topic::console;

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

/// Connects to the listener that a filter asks, and sends it the fd with the number `fd` of the process `pid`, which waits
/// for the answer. Only then: a listener may be started beside the container, and it waits for the end of what it is told,
/// so no other process may hold the connection.
///
/// # Errors
/// Nobody listens there; the fd can't be had.
pub fn hand_on(
    conditions: &Conditions,
    container: &Container,
    status: Status,
    (pid, pidfd): (Pid, BorrowedFd<'_>),
    fd: i32,
) -> Result<(), Error> {
    let listener = conditions.seccomp.as_ref().and_then(Filter::listener);
    let Some(Listener { path, metadata }) = listener else { return Ok(()) };
    let mut socket =
        UnixStream::connect(path).step("failed to connect with seccomp agent: connect to", path)?;
    let flags = rustix::process::PidfdGetfdFlags::empty();
    let fd = rustix::process::pidfd_getfd(pidfd, fd, flags).step("take over", "the seccomp listener's fd")?;
    let state = ProcessState {
        oci_version: &container.record.spec.oci_version,
        fds: ["seccompFd"],
        pid: pid.as_raw_nonzero().get(),
        metadata,
        state: container.state(status, None),
    };
    let text = spec::text("the container process state", &state)?;
    // Listeners take it with one recvmsg(2), the fd and all of the text; only what is longer than the socket's buffer comes
    // behind.
    console::send_with_fd(&socket, &text, fd.as_fd())
        .and_then(|sent| socket.write_all(&text[sent..]).step("send", "the container process state"))
        .map_err(|error| Error::new(format!("seccomp agent: {error}")))
}
