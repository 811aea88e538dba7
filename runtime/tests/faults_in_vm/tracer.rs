//! A command under ptrace(2), with one thing going wrong at one of its system calls. In: words, and what is to go wrong
//! where. Out: how the command ended, and how many calls it made. Must never: trace a container's program: once that has
//! been started, or the command has ended, all are let go.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::Command;
use std::process::Stdio;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::ptrace::Options;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// Whose calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The command's own.
    Runtime,
    /// Those of the process that becomes the container's, until it starts the container's program.
    Child,
    /// The command's own that send a message (sendto(2)), to netlink above all.
    Messages,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The command is killed when the call begins.
    Kill,
    /// The call gives this error and is not made, but for close(2), which closes even when it fails.
    Error(Errno),
}

/// What goes wrong where: at the `nth` call, counted from 1.
#[derive(Debug, Clone, Copy)]
pub struct Injection {
    pub whose: Whose,
    pub nth: usize,
    pub fault: Fault,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Exit status; None: a signal ended it.
    pub status: Option<i32>,
    /// The command's standard error.
    pub stderr: String,
    /// Calls of the command.
    pub runtime_calls: usize,
    /// Calls of the process that becomes the container's.
    pub child_calls: usize,
    /// Of the command's calls, those that send a message.
    pub messages: usize,
    /// Of the command's and its threads' calls, those that sleep.
    pub sleeps: usize,
    /// How many programs it has started.
    pub programs: usize,
    /// The number of the call at which something went wrong; None: it was not reached, or can't fail.
    pub hit: Option<u64>,
}

/// A call that does not return, or whose failure the kernel can't bring about: brk(2) gives an address whatever happens.
const NEVER_FAIL: [i64; 5] =
    [libc::SYS_exit, libc::SYS_exit_group, libc::SYS_rt_sigreturn, libc::SYS_restart_syscall, libc::SYS_brk];
const SLEEP: [i64; 2] = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep];
const NEW_PROCESS: [i32; 3] = [libc::PTRACE_EVENT_FORK, libc::PTRACE_EVENT_VFORK, libc::PTRACE_EVENT_CLONE];
const SYSCALL_ENTRY: u8 = 1;
const SYSCALL_EXIT: u8 = 2;
const SHELL: &str = "kill -STOP $$; exec \"$@\"";
const STDERR: &str = "/tmp/faults.stderr";

/// Runs `words` and waits until the command has ended.
#[allow(clippy::zombie_processes)] // waitpid(2) waits for it, in `follow`
pub fn run(words: &[&str], injection: Option<Injection>) -> Outcome {
    let stderr = File::create(STDERR).unwrap();
    let command = Command::new("sh")
        .args(["-c", SHELL, "sh"])
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let main = Pid::from_raw(i32::try_from(command.id()).unwrap());
    waitpid(main, Some(WaitPidFlag::WUNTRACED)).unwrap();
    ptrace::seize(
        main,
        Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL,
    )
    .unwrap();
    nix::sys::signal::kill(main, Signal::SIGCONT).unwrap();
    let mut tracer = Tracer {
        main,
        injection,
        traced: BTreeSet::from([main]),
        started: false,
        failing: None,
        outcome: Outcome::default(),
    };
    tracer.follow();
    tracer.let_go();
    tracer.outcome.stderr = std::fs::read_to_string(STDERR).unwrap();
    tracer.outcome
}

struct Tracer {
    main: Pid,
    injection: Option<Injection>,
    traced: BTreeSet<Pid>,
    /// Whether the shell has become the command, and that has come to its `main`.
    started: bool,
    /// The process whose present call is to fail, and how.
    failing: Option<(Pid, Errno)>,
    outcome: Outcome,
}

impl Tracer {
    /// Until the command has ended.
    fn follow(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)).unwrap() {
                WaitStatus::Exited(pid, status) if pid == self.main => {
                    self.outcome.status = Some(status);
                    self.traced.remove(&pid);
                    return;
                }
                WaitStatus::Signaled(pid, ..) if pid == self.main => {
                    self.traced.remove(&pid);
                    return;
                }
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                    self.traced.remove(&pid);
                }
                WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => self.executed(pid),
                WaitStatus::PtraceEvent(pid, _, event) => {
                    self.traced.insert(pid);
                    // A new process is traced from its birth on: when the command is killed before its first stop is
                    // heard of, it has to be let go all the same, or it stays stopped, and dead it stays a zombie, for
                    // which its pid namespace's first process waits.
                    if NEW_PROCESS.contains(&event)
                        && let Ok(new) = ptrace::getevent(pid)
                    {
                        self.traced.insert(Pid::from_raw(i32::try_from(new).unwrap()));
                    }
                    go_on(pid, None);
                }
                WaitStatus::PtraceSyscall(pid) => {
                    self.call(pid);
                    go_on(pid, None);
                }
                WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal)),
                _ => {}
            }
        }
    }

    fn executed(&mut self, pid: Pid) {
        if pid == self.main {
            // It may be the command's sealed copy, which begins anew.
            self.started = false;
            go_on(pid, None);
        } else {
            self.outcome.programs += 1;
            self.traced.remove(&pid);
            gone_is_fine(ptrace::detach(pid, None));
        }
    }

    fn call(&mut self, pid: Pid) {
        let Ok(info) = ptrace::syscall_info(pid) else { return };
        match info.op {
            SYSCALL_ENTRY if pid != self.main || self.started => self.enter(pid),
            SYSCALL_ENTRY => self.started = begins_main(pid),
            SYSCALL_EXIT => self.leave(pid),
            _ => {}
        }
    }

    fn enter(&mut self, pid: Pid) {
        let (whose, count) = if pid == self.main {
            (Whose::Runtime, &mut self.outcome.runtime_calls)
        } else {
            (Whose::Child, &mut self.outcome.child_calls)
        };
        *count += 1;
        let count = *count;
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        let sends = registers.orig_rax == libc::SYS_sendto as u64;
        self.outcome.messages += usize::from(sends);
        self.outcome.sleeps += usize::from(SLEEP.iter().any(|call| *call as u64 == registers.orig_rax));
        let messages = self.outcome.messages;
        let is_here = |here: &Injection| match here.whose {
            Whose::Messages => sends && here.nth == messages,
            _ => (here.whose, here.nth) == (whose, count),
        };
        let Some(injection) = self.injection.filter(is_here) else { return };
        match injection.fault {
            Fault::Kill => {
                self.outcome.hit = Some(registers.orig_rax);
                gone_is_fine(nix::sys::signal::kill(self.main, Signal::SIGKILL));
            }
            Fault::Error(errno) => {
                if NEVER_FAIL.iter().any(|call| *call as u64 == registers.orig_rax) {
                    return;
                }
                self.outcome.hit = Some(registers.orig_rax);
                // The kernel closes whatever close(2) returns: it is made, and only what it returns is another.
                if registers.orig_rax != libc::SYS_close as u64 {
                    // A call that does not exist is not made.
                    registers.orig_rax = u64::MAX;
                    gone_is_fine(ptrace::setregs(pid, registers));
                }
                self.failing = Some((pid, errno));
            }
        }
    }

    fn leave(&mut self, pid: Pid) {
        let Some((_, errno)) = self.failing.take_if(|(failing, _)| *failing == pid) else { return };
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        registers.rax = (-i64::from(errno as i32)) as u64;
        gone_is_fine(ptrace::setregs(pid, registers));
    }

    /// The container's process, which waits for `start` perhaps, goes on untraced.
    fn let_go(&mut self) {
        for pid in std::mem::take(&mut self.traced) {
            if ptrace::interrupt(pid).is_err() {
                // It has ended, and may have to be told that somebody knows.
                let _ = waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
                continue;
            }
            // Whichever stop comes first will do; a signal that was on its way is handed on.
            match waitpid(pid, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => {}
                Ok(WaitStatus::Stopped(_, signal)) => gone_is_fine(ptrace::detach(pid, signal)),
                Ok(_) => gone_is_fine(ptrace::detach(pid, None)),
            }
        }
    }
}

/// Whether this call is the last one of the program's start (`sys::start`): it ignores SIGPIPE. What comes before belongs to
/// no face, and no face can report its failure.
fn begins_main(pid: Pid) -> bool {
    ptrace::getregs(pid)
        .is_ok_and(|call| call.orig_rax == libc::SYS_rt_sigaction as u64 && call.rdi == libc::SIGPIPE as u64)
}

fn go_on(pid: Pid, signal: Option<Signal>) {
    gone_is_fine(ptrace::syscall(pid, signal));
}

/// A process may be killed while it is stopped.
fn gone_is_fine(result: nix::Result<()>) {
    assert!(matches!(result, Ok(()) | Err(Errno::ESRCH)), "{result:?}");
}
