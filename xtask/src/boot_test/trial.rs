//! One case on a running machine. In: its steps. Out: nothing, or the step that failed and why.
//! Must never: wait without a deadline, or call good what the guest didn't say.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::case::{Action, Case, Step, Verdict};
use super::machine::Running;
use crate::vm::Output;

/// Between two tries of `poll` and `fetch`.
const PAUSE: Duration = Duration::from_millis(200);
/// How much of an output a failure shows.
const SHOWN_BYTES_MAX: usize = 4000;

/// Steps, then cleanup.
pub fn run(case: &Case, machine: &mut Running) -> Result<()> {
    for (field, steps) in [("steps", &case.steps), ("cleanup", &case.cleanup)] {
        for (index, step) in steps.iter().enumerate() {
            take(step, machine).with_context(|| format!("{field}[{index}], {}", title(&step.action)))?;
        }
    }
    Ok(())
}

fn take(step: &Step, machine: &mut Running) -> Result<()> {
    let until = Instant::now() + step.deadline;
    match &step.action {
        Action::Run(command, verdict) => judge(&machine.vm.command(command, step.deadline)?, verdict),
        Action::Poll(command, verdict) => again(until, || {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_secs(10));
            // An unanswered command is the end; an answer that isn't good yet is not.
            let output = machine.vm.command(command, left).map_err(Trouble::Final)?;
            judge(&output, verdict).map_err(Trouble::NotYet)
        }),
        Action::Send(text) => machine.vm.send(text),
        Action::Expect(text) => machine.vm.expect(text, step.deadline).map(drop),
        Action::Press(keys) => machine.vm.press(keys),
        Action::PowerButton => machine.vm.power_button(),
        Action::Ends => {
            let status = machine.vm.wait_end(step.deadline)?;
            if !status.success() {
                bail!("QEMU ended with {status}");
            }
            Ok(())
        }
        Action::Fetch(guest, texts) => {
            let host = machine.published.iter().find(|(port, _)| port == guest).context("not published")?.1;
            again(until, || {
                let answer = fetch(host).map_err(Trouble::NotYet)?;
                match texts.iter().find(|&text| !answer.contains(text)) {
                    None => Ok(()),
                    Some(text) => {
                        Err(Trouble::NotYet(anyhow::anyhow!("no {text:?} in the answer:\n{}", cut(&answer))))
                    }
                }
            })
        }
    }
}

/// Why a try was not good.
enum Trouble {
    NotYet(anyhow::Error),
    Final(anyhow::Error),
}

fn again(until: Instant, mut attempt: impl FnMut() -> Result<(), Trouble>) -> Result<()> {
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::NotYet(error)) if Instant::now() >= until => {
                return Err(error.context("not so until the deadline; the last try"));
            }
            Err(Trouble::NotYet(_)) => std::thread::sleep(PAUSE),
        }
    }
}

/// The output and status of a command against what they must be.
fn judge(output: &Output, verdict: &Verdict) -> Result<()> {
    let text = String::from_utf8_lossy(&output.bytes);
    if output.status != verdict.status {
        bail!("exit status {} instead of {}; output:\n{}", output.status, verdict.status, cut(&text));
    }
    if let Some(whole) = verdict.is.as_ref().filter(|whole| whole.trim() != text.trim()) {
        bail!("the output is not {whole:?} but:\n{}", cut(&text));
    }
    if let Some(missing) = verdict.contains.iter().find(|&part| !text.contains(part)) {
        bail!("no {missing:?} in the output:\n{}", cut(&text));
    }
    if let Some(extra) = verdict.lacks.iter().find(|&part| text.contains(part)) {
        bail!("{extra:?} in the output:\n{}", cut(&text));
    }
    Ok(())
}

/// One HTTP request to a port of 127.0.0.1; QEMU accepts before it knows whether the guest does.
fn fetch(port: u16) -> Result<String> {
    let patience = Duration::from_secs(5);
    let address = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, patience).context("cannot connect")?;
    stream.set_read_timeout(Some(patience)).context("cannot set a deadline")?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: guest\r\n\r\n").context("cannot ask")?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer).context("no answer")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn title(action: &Action) -> String {
    let (verb, text) = match action {
        Action::Run(text, _) => ("run", text.clone()),
        Action::Poll(text, _) => ("poll", text.clone()),
        Action::Send(text) => ("send", format!("{text:?}")),
        Action::Expect(text) => ("expect", format!("{text:?}")),
        Action::Press(keys) => ("press", keys.join("+")),
        Action::PowerButton => return "power_button".to_owned(),
        Action::Ends => return "ends".to_owned(),
        Action::Fetch(port, _) => ("fetch", port.to_string()),
    };
    format!("{verb} {}", text.trim())
}

fn cut(text: &str) -> String {
    let text = text.trim_end();
    let mut start = text.len().saturating_sub(SHOWN_BYTES_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(status: i32, text: &str) -> Output {
        Output { bytes: text.as_bytes().to_vec(), status }
    }

    #[test]
    fn each_part_of_a_verdict_can_fail() {
        let good = Verdict::default();
        assert!(judge(&output(0, "x"), &good).is_ok());
        assert!(
            judge(&output(1, "x"), &good).unwrap_err().to_string().contains("exit status 1 instead of 0")
        );
        let is = Verdict { is: Some("x".into()), ..Verdict::default() };
        assert!(judge(&output(0, "x\n"), &is).is_ok());
        assert!(judge(&output(0, "xx"), &is).is_err());
        let contains = Verdict { contains: vec!["a".into(), "b".into()], ..Verdict::default() };
        assert!(judge(&output(0, "ab"), &contains).is_ok());
        assert!(judge(&output(0, "a"), &contains).unwrap_err().to_string().contains("no \"b\""));
        let lacks = Verdict { lacks: vec!["a".into()], ..Verdict::default() };
        assert!(judge(&output(0, "b"), &lacks).is_ok());
        assert!(judge(&output(0, "a"), &lacks).is_err());
    }

    #[test]
    fn a_try_is_repeated_until_it_is_good_or_time_is_up() {
        let mut count = 0;
        let soon = Instant::now() + Duration::from_secs(30);
        let third = again(soon, || {
            count += 1;
            if count == 3 { Ok(()) } else { Err(Trouble::NotYet(anyhow::anyhow!("no"))) }
        });
        assert!(third.is_ok() && count == 3);
        let late = again(Instant::now(), || Err(Trouble::NotYet(anyhow::anyhow!("no"))));
        assert!(format!("{:#}", late.unwrap_err()).ends_with(": no"));
        assert!(again(soon, || Err(Trouble::Final(anyhow::anyhow!("gone")))).is_err());
    }

    #[test]
    fn a_long_output_is_cut_at_its_beginning() {
        let text = format!("{}ü the end", "x".repeat(SHOWN_BYTES_MAX - 9));
        assert!(cut(&text).ends_with("ü the end") && cut(&text).len() < SHOWN_BYTES_MAX + 10);
    }
}
