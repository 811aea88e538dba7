//! `cargo xtask qemu` as scripts and people call it: with a command, without one, with a container of one's own, with a
//! guest that panics, and ended by others. In: this very program, the built image. Out: an error that names the first thing that was not as
//! the README says. Must never: look into the machine by any other way than the command's own output and status.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::context::Build;
use crate::stamp::remove_tree;
use crate::vm::READY;

/// Ends what does not end; measures nothing.
const MACHINE_END: Duration = Duration::from_secs(30);

/// Calls it in every way.
pub fn run(build: &Build) -> Result<()> {
    status_and_output(build).context("qemu -- CMD")?;
    powers_off_without_input(build).context("qemu without a command, standard input at its end")?;
    a_panic_is_told(build).context("qemu -- CMD, with a guest that panics")?;
    own_container(build).context("qemu --bundle NAME=DIR")?;
    for signal in [Signal::TERM, Signal::KILL] {
        its_end_is_the_machines(build, signal).with_context(|| format!("xtask, ended by {signal:?}"))?;
    }
    Ok(())
}

/// `xtask qemu --direct WORDS...`, without input and without a terminal.
fn command(build: &Build, words: &[&str]) -> Command {
    let mut command = super::xtask();
    command.arg("--cache-dir").arg(build.layout.cache()).args(["qemu", "--direct"]).args(words);
    command.current_dir(build.layout.root()).stdin(Stdio::null());
    command
}

fn qemu(build: &Build, words: &[&str]) -> Result<Output> {
    command(build, words).output().context("xtask: cannot run")
}

/// The command's output and nothing else, bytes and long lines included, standard error in its place; its status.
fn status_and_output(build: &Build) -> Result<()> {
    let long = "x".repeat(6000);
    let script = format!("printf 'a\\0\\377\\r\\n'; echo to-stderr >&2; printf %s {long} | wc -c; exit 7");
    let output = qemu(build, &["--", &script])?;
    expect("its status", &output, output.status.code() == Some(7))?;
    expect("its output, to the byte", &output, output.stdout == b"a\0\xff\r\nto-stderr\n6000\n")?;
    let output = qemu(build, &["--", "sh", "-c", "echo \"one  two\" it\\'s"])?;
    expect("several words, each kept as it is", &output, output.stdout == b"one  two it's\n")
}

fn powers_off_without_input(build: &Build) -> Result<()> {
    let output = qemu(build, &[])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    expect("exit status 0", &output, output.status.success())?;
    let in_order = text.find(READY).zip(text.find("coracle: shutting down (poweroff)"));
    expect("ready, then an orderly end", &output, in_order.is_some_and(|(ready, end)| ready < end))
}

fn a_panic_is_told(build: &Build) -> Result<()> {
    let output = qemu(build, &["--", "echo c > /proc/sysrq-trigger"])?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    expect("exit status 1", &output, output.status.code() == Some(1))?;
    expect(
        "the panic's reason",
        &output,
        text.contains("the guest's kernel panicked: sysrq triggered crash"),
    )?;
    expect("where the serial log lies", &output, text.contains("serial.log"))
}

/// Whoever ends xtask, whether it can do something about it or not, leaves no QEMU running.
fn its_end_is_the_machines(build: &Build, signal: Signal) -> Result<()> {
    // With input that does not end the console's words are passed on as they come.
    let mut xtask = command(build, &[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(xtask.stdout.take().context("no output")?).split(b'\n');
    let is_ready = |line: &[u8]| line.windows(READY.len()).any(|words| words == READY.as_bytes());
    if !said.any(|line| line.is_ok_and(|line| is_ready(&line))) {
        bail!("the guest ended before it was ready");
    }
    let machines = children(xtask.id());
    rustix::process::kill_process(Pid::from_child(&xtask), signal)?;
    xtask.wait()?;
    if machines.is_empty() {
        bail!("it had started no process");
    }
    let until = Instant::now() + MACHINE_END;
    while machines.iter().any(|&pid| stat(pid).is_some_and(|(state, _)| state != "Z")) {
        if Instant::now() > until {
            bail!("still running: {machines:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The processes that `parent` has started and that are still there.
fn children(parent: u32) -> Vec<u32> {
    let names = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| stat(pid).is_some_and(|(_, of)| of == parent.to_string())).collect()
}

/// State and parent of a process; None when it is gone.
fn stat(pid: u32) -> Option<(String, String)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned);
    fields.next().zip(fields.next())
}

/// Owners, modes, extended attributes and links arrive as they are in the folder, and the container runs.
fn own_container(build: &Build) -> Result<()> {
    let bundle = build.layout.target().join("own-bundle");
    remove_tree(&bundle)?;
    let keeps = make_bundle(build, &bundle).with_context(|| format!("{}: cannot make", bundle.display()))?;
    let script = "cd /containers/own/rootfs && stat -c '%a %u:%g %h %F' tool other up; readlink link; \
                  getfattr -n user.colour tool 2>&1 | grep ^user || echo none; \
                  cp -a /usr/lib/coracle/rootfs/. . && cd .. && runc run own; echo $?";
    let argument = format!("own={}", bundle.display());
    let output = qemu(build, &["--bundle", &argument, "--", script])?;
    let (owner, attribute) = (keeps.owner, if keeps.attributes { "user.colour=\"blue\"" } else { "none" });
    let wanted = format!(
        "4750 {owner} 2 regular file\n4750 {owner} 2 regular file\n1777 0:0 2 directory\ntool\n{attribute}\nown container\n0\n"
    )
    .replace("1777 0:0", &format!("1777 {}", keeps.own));
    expect("owners, modes, attributes, links and a run", &output, output.stdout == wanted.as_bytes())?;
    remove_tree(&bundle)
}

/// What this machine lets a bundle have.
struct Keeps {
    owner: String,
    own: String,
    attributes: bool,
}

fn make_bundle(build: &Build, bundle: &Path) -> Result<Keeps> {
    let root = bundle.join("rootfs");
    std::fs::create_dir_all(root.join("up"))?;
    std::fs::set_permissions(root.join("up"), PermissionsExt::from_mode(0o1777))?;
    let tool = root.join("tool");
    std::fs::write(&tool, "#!/bin/sh\n")?;
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    // Only root can give a file away.
    let chowned = std::os::unix::fs::chown(&tool, Some(123), Some(456)).is_ok();
    let owner = if chowned { "123:456".to_owned() } else { format!("{uid}:{gid}") };
    std::fs::set_permissions(&tool, PermissionsExt::from_mode(0o4750))?;
    std::fs::hard_link(&tool, root.join("other"))?;
    symlink("tool", root.join("link"))?;
    let flags = rustix::fs::XattrFlags::empty();
    let attributes = rustix::fs::setxattr(&tool, "user.colour", b"blue", flags).is_ok();
    let config = build.layout.rootfs_overlay().join("containers/mycontainer/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(config)?)?;
    config["process"]["args"] = serde_json::json!(["/bin/echo", "own container"]);
    std::fs::write(bundle.join("config.json"), config.to_string())?;
    Ok(Keeps { owner, own: format!("{uid}:{gid}"), attributes })
}

fn expect(what: &str, output: &Output, holds: bool) -> Result<()> {
    if holds {
        return Ok(());
    }
    bail!(
        "{what}: not so; {}, standard output:\n{}\nstandard error:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
