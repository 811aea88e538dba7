//! `runc ps`. In: an id. Out: the container's processes: by itself as `ps -ef` shows them, or, with arguments, what `ps`
//! prints of them. Must never: depend on a `ps` program for the plain form; BusyBox's has no `-e`.

use std::io::Write;
use std::process::Command;

use rustix::process::Pid;

use super::list::Format;
use super::list::columns;
use crate::report::Error;
use crate::report::Fails;
use crate::store;
use crate::store::Store;

/// Lists the processes of a container.
#[derive(Debug, clap::Args)]
pub struct Ps {
    /// Form of the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Name of the container
    id: String,
    /// Arguments for the program `ps`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Ps {
    /// Prints the list.
    ///
    /// # Errors
    /// No such container; `ps` failed.
    pub fn run(&self, store: &Store) -> Result<(), Error> {
        let container = store.open(&self.id)?;
        let cgroup = crate::cgroup::Cgroup::open(&container.record.cgroup)?;
        // Without a cgroup only its first process is known.
        let alone = || Ok(container.process().into_iter().collect());
        let pids = cgroup.map_or_else(alone, |cgroup| cgroup.all_procs())?;
        let text = match self.format {
            Format::Json => {
                let numbers: Vec<i32> = pids.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
                serde_json::to_string(&numbers).map_err(|error| Error::new(error.to_string()))? + "\n"
            }
            Format::Table if self.arguments.is_empty() => match filtered(&["-ef".to_string()], &pids) {
                Ok(text) if text.starts_with("UID ") => text,
                // No ps here, or BusyBox's, which has no such format.
                _ => full_format(&pids),
            },
            Format::Table => filtered(&self.arguments, &pids)?,
        };
        std::io::stdout().write_all(text.as_bytes()).step("write", "standard output")
    }
}

/// Columns of `ps -ef` (ps(1)), less those that need a clock's rate to read.
fn full_format(pids: &[Pid]) -> String {
    let mut rows: Vec<[String; 5]> = vec![["UID", "PID", "PPID", "TTY", "CMD"].map(str::to_string)];
    for pid in pids {
        let number = pid.as_raw_nonzero().get();
        // A process may end while it is looked at.
        rows.extend(row(number));
    }
    columns(&rows)
}

fn row(pid: i32) -> Option<[String; 5]> {
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).ok();
    let status = String::from_utf8_lossy(&read("status")?).into_owned();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()).unwrap_or("?").to_string()
    };
    let terminal = store::process_stat(pid).ok().and_then(|stat| terminal_name(stat.terminal));
    let command = read("cmdline")?;
    let words: Vec<_> = command
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    let command = if words.is_empty() { format!("[{}]", field("Name")) } else { words.join(" ") };
    Some([field("Uid"), pid.to_string(), field("PPid"), terminal.unwrap_or_else(|| "?".to_string()), command])
}

/// The name of a controlling terminal by its device number (proc_pid_stat(5), field 7); the numbers are those of the
/// kernel's admin-guide/devices.txt.
fn terminal_name(number: u32) -> Option<String> {
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match (major, minor) {
        (0, _) => None,
        (4, 0..64) => Some(format!("tty{minor}")),
        (4, _) => Some(format!("ttyS{}", minor - 64)),
        (5, 1) => Some("console".to_string()),
        (136..=143, _) => Some(format!("pts/{}", (major - 136) * 256 + minor)),
        _ => Some(format!("{major}:{minor}")),
    }
}

/// `ps ARGUMENTS`, of which the lines with the container's pids are kept.
fn filtered(arguments: &[String], pids: &[Pid]) -> Result<String, Error> {
    let output = Command::new("ps").args(arguments).output().step("run", "ps")?;
    if !output.status.success() {
        return Err(Error::new(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or_else(|| Error::new("couldn't find PID field in ps output"))?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
        pid.is_some_and(|pid| pids.iter().any(|ours| ours.as_raw_nonzero().get() == pid))
    };
    Ok(std::iter::once(header).chain(lines.filter(ours)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_have_the_names_of_their_numbers() {
        assert_eq!(terminal_name(0), None);
        assert_eq!(terminal_name(136 << 8 | 3).as_deref(), Some("pts/3"));
        assert_eq!(terminal_name(4 << 8 | 64).as_deref(), Some("ttyS0"));
        assert_eq!(terminal_name(4 << 8 | 1).as_deref(), Some("tty1"));
    }
}
