//! Hooks (config.md, "POSIX-platform Hooks"). In: a list of programs, the container's state. Out: each was run with the
//! state on its standard input, in order. Must never: let one run longer than its timeout, or hand it an fd of ours.

use std::ffi::CString;
use std::ffi::OsStr;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use crate::report;
use crate::report::Error;
use spec::Hooks;
use spec::hooks::Hook;

/// The end of a failing hook's output is part of the error; more than this is cut.
const OUTPUT_BYTES_MAX: u64 = 4096;

/// Checks that every program is named by an absolute path.
///
/// # Errors
/// One that is not.
pub fn check(hooks: &Hooks) -> Result<(), Error> {
    let kinds = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, list) in kinds {
        for (index, hook) in list.iter().enumerate() {
            let field = |name: &str| format!("hooks.{kind}[{index}].{name}");
            if !hook.path.starts_with('/') {
                return Err(Error::spec(
                    field("path"),
                    format!("{:?}: expected an absolute path", hook.path),
                ));
            }
            if hook.timeout == Some(0) {
                return Err(Error::spec(field("timeout"), "0: expected more than 0 seconds"));
            }
        }
    }
    Ok(())
}

/// The environment of a hook that brings none of its own; so runc has it.
#[derive(Debug, Clone, Copy)]
pub enum Environment<'a> {
    /// The runtime's.
    Caller,
    /// Nothing.
    Empty,
    /// The container's program's.
    Program(&'a [CString]),
}

/// Runs the hooks of one kind; the first failure ends it.
///
/// # Errors
/// Names kind, number and program, with what it printed.
pub fn run(
    kind: &str,
    hooks: &[Hook],
    state: &[u8],
    cwd: &Path,
    environment: Environment<'_>,
) -> Result<(), Error> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state, cwd, environment).map_err(|cause| {
            Error::new(format!("error running {kind} hook #{index}: {}: {cause}", hook.path))
        })?;
    }
    Ok(())
}

/// Runs the hooks that follow a container's end: each, and a failure is only logged, as the specification says. The
/// bundle may be gone by then.
pub fn poststop(hooks: &[Hook], state: &[u8], bundle: &Path) {
    let cwd = if bundle.is_dir() { bundle } else { Path::new("/") };
    for (index, hook) in hooks.iter().enumerate() {
        if let Err(cause) = run_one(hook, state, cwd, Environment::Caller) {
            report::warn(&format!("error running poststop hook #{index}: {}: {cause}", hook.path));
        }
    }
}

fn run_one(hook: &Hook, state: &[u8], cwd: &Path, environment: Environment<'_>) -> Result<(), String> {
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    match environment {
        _ if !hook.env.is_empty() => {
            command.env_clear().envs(hook.env.iter().filter_map(|variable| variable.split_once('=')));
        }
        Environment::Caller => {}
        Environment::Empty => drop(command.env_clear()),
        Environment::Program(variables) => {
            command.env_clear().envs(variables.iter().filter_map(|variable| {
                let bytes = variable.as_bytes();
                let at = bytes.iter().position(|byte| *byte == b'=')?;
                Some((OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])))
            }));
        }
    }
    // Output goes to memory, not to pipes: nobody has to read along, so no thread is needed between clone and exec.
    let output = rustix::fs::memfd_create("hook-output", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|errno| errno.to_string())?;
    let mut output = std::fs::File::from(output);
    let share = || output.try_clone().map(Stdio::from).map_err(|error| error.to_string());
    command.current_dir(cwd).stdin(Stdio::piped()).stdout(share()?).stderr(share()?);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its state is free not to.
        let _ = stdin.write_all(state);
    }
    let status = wait(&mut child, hook.timeout).inspect_err(|_| {
        // It is killed; its output no longer matters.
        let _ = child.kill();
        let _ = child.wait();
    })?;
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    // What can't be read is not shown.
    let _ = output.rewind().and_then(|()| output.take(OUTPUT_BYTES_MAX).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text).trim().to_string();
    let ended = ended(status);
    Err(if text.is_empty() { ended } else { format!("{ended}: {text}") })
}

/// How a program ended, in runc's words.
fn ended(status: std::process::ExitStatus) -> String {
    const SIGNALS: [(i32, &str); 10] = [
        (libc::SIGHUP, "hangup"),
        (libc::SIGINT, "interrupt"),
        (libc::SIGILL, "illegal instruction"),
        (libc::SIGABRT, "aborted"),
        (libc::SIGBUS, "bus error"),
        (libc::SIGKILL, "killed"),
        (libc::SIGSEGV, "segmentation fault"),
        (libc::SIGPIPE, "broken pipe"),
        (libc::SIGTERM, "terminated"),
        (libc::SIGSYS, "bad system call"),
    ];
    let name = |signal| SIGNALS.iter().find(|(number, _)| *number == signal).map(|(_, name)| *name);
    match status.signal().and_then(name) {
        Some(name) => format!("signal: {name}"),
        None => status.to_string(),
    }
}

fn wait(child: &mut std::process::Child, timeout: Option<u32>) -> Result<std::process::ExitStatus, String> {
    let Some(seconds) = timeout else { return child.wait().map_err(|error| error.to_string()) };
    let until = Instant::now() + Duration::from_secs(u64::from(seconds));
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(status);
        }
        if Instant::now() >= until {
            return Err(format!("killed after its timeout of {seconds} s"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["PATH=/bin:/usr/bin".into(), "A=1".into()],
            timeout: Some(10),
        }
    }

    #[test]
    fn the_state_is_on_standard_input_and_the_environment_is_its_own() {
        run(
            "prestart",
            &[hook("test \"$(cat)\" = state && test $A = 1 && test -z \"$HOME\"")],
            b"state",
            Path::new("/"),
            Environment::Caller,
        )
        .unwrap();
    }

    #[test]
    fn a_hook_without_an_environment_has_that_of_its_place() {
        let bare = |script: &str| Hook { env: Vec::new(), ..hook(script) };
        let in_place = |script: &str, environment| {
            run("startContainer", &[bare(script)], b"", Path::new("/"), environment).is_ok()
        };
        assert!(in_place("test -n \"$CARGO_MANIFEST_DIR\"", Environment::Caller));
        assert!(in_place("test -z \"$CARGO_MANIFEST_DIR\"", Environment::Empty));
        let program = [c"A=b=c".to_owned()];
        let only = "test \"$A\" = b=c && test -z \"$CARGO_MANIFEST_DIR\"";
        assert!(in_place(only, Environment::Program(&program)));
    }

    #[test]
    fn a_failure_names_kind_number_program_and_output() {
        let error = run(
            "poststop",
            &[hook("true"), hook("echo why >&2; exit 3")],
            b"",
            Path::new("/"),
            Environment::Empty,
        )
        .unwrap_err()
        .to_string();
        assert!(error.starts_with("error running poststop hook #1: /bin/sh: exit status: 3: why"), "{error}");
        let hooks = [hook("kill -SYS $$")];
        let error = run("poststop", &hooks, b"", Path::new("/"), Environment::Empty).unwrap_err().to_string();
        assert_eq!(error, "error running poststop hook #0: /bin/sh: signal: bad system call");
    }

    #[test]
    fn a_timeout_kills() {
        let slow = Hook { timeout: Some(1), ..hook("exec sleep 100") };
        let error =
            run("prestart", &[slow], b"", Path::new("/"), Environment::Empty).unwrap_err().to_string();
        assert!(error.contains("timeout of 1 s"), "{error}");
    }

    #[test]
    fn a_relative_program_is_refused() {
        let hooks =
            Hooks { poststart: vec![Hook { path: "x".into(), ..Hook::default() }], ..Hooks::default() };
        assert!(check(&hooks).unwrap_err().to_string().starts_with("hooks.poststart[0].path:"));
    }
}
