//! A boot test, as data. In: one TOML file of qemu/cases/. Out: `Case`, every default filled in, every mistake found and
//! named by file and field. Must never: start anything, or let an unknown word pass.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::vm::{Boot, DiskBus, READY};

/// Generous on purpose: a deadline ends what hangs, it measures nothing.
const DEADLINE: Duration = Duration::from_secs(60);
const DEADLINE_S_MAX: u64 = 600;
/// What a case file may ask a machine for, in MiB.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 32..=4096;
const MODELS: [&str; 3] = ["virtio-net-pci", "e1000", "e1000e"];

/// A boot test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its file's name, without the ending.
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// It runs once for each way of booting.
    pub boots: Vec<Boot>,
    /// What it runs on.
    pub machine: Machine,
    /// Shares its machine with no other case.
    pub isolated: bool,
    /// What is done.
    pub steps: Vec<Step>,
    /// What is done after `steps` have passed, so that the next case finds the machine as this one did. After a
    /// failure it isn't done: the machine is thrown away.
    pub cleanup: Vec<Step>,
    /// What must make it fail.
    pub weakened: Vec<Weakened>,
}

/// The product without what a case is for: it must fail then.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weakened {
    /// The step at which it must fail, counted from 0.
    pub step: usize,
    /// What its output holds then: the attack has worked.
    pub shows: String,
    /// What is changed in the product's source; where several things stand against an attack, all of them.
    pub edits: Vec<Edit>,
}

/// A change of one file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The file, from the checkout's top folder.
    pub file: PathBuf,
    /// What is cut: it stands there once.
    pub cut: String,
    /// What is put in its place.
    pub put: String,
}

impl Step {
    /// What is typed, if anything is.
    pub fn typed(&self) -> &str {
        match &self.action {
            Action::Run(text, _) | Action::Poll(text, _) | Action::Send(text) => text,
            _ => "",
        }
    }
}

impl Edit {
    /// Of a file's text.
    pub fn apply(&self, text: &str) -> Result<String> {
        match text.matches(&self.cut).count() {
            1 => Ok(text.replacen(&self.cut, &self.put, 1)),
            count => {
                bail!("{}: what is to be cut stands there {count} times:\n{}", self.file.display(), self.cut)
            }
        }
    }
}

/// What a case runs on, but for the way of booting. Cases that ask for the same share a machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Machine {
    /// MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
    /// QEMU's name of the network card; None: no card.
    pub network: Option<String>,
    /// TCP ports of the guest that `fetch` steps ask from outside.
    pub publish: Vec<u16>,
    /// Disks, made for this machine.
    pub disks: Vec<DiskImage>,
    /// What is at /mnt/share in the guest.
    pub share: Option<Share>,
    /// Words for the kernel's command line; only with `direct`.
    pub append: String,
    /// The line that tells that the guest takes commands.
    pub ready: String,
}

/// What a machine is handed besides the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// A folder of qemu/shares/.
    Folder(String),
    /// The test program runtime/tests/NAME.rs, built statically, as /mnt/share/test.
    Test(String),
}

/// A disk that the engine makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskImage {
    /// How it is attached.
    pub bus: DiskBus,
    /// What is on it.
    pub content: DiskContent,
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskContent {
    /// This text at its beginning, zeros behind.
    Text(String),
    /// An ext4 file system with the files of this folder of qemu/shares/.
    Ext4(String),
}

/// One thing to do, and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub action: Action,
    /// How long at most.
    pub deadline: Duration,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Runs a shell command in the guest, once.
    Run(String, Verdict),
    /// Runs a shell command in the guest until the verdict is good.
    Poll(String, Verdict),
    /// Types text at the console.
    Send(String),
    /// Waits for a text on the console.
    Expect(String),
    /// Presses keys together, by QEMU's names.
    Press(Vec<String>),
    /// Presses the power button.
    PowerButton,
    /// Waits until the machine has ended by itself.
    Ends,
    /// Asks a published port of the guest from outside, by HTTP, until the answer holds these texts.
    Fetch(u16, Vec<String>),
}

/// What the output and the status of a command must be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Exit status.
    pub status: i32,
    /// The whole output, without white space at both ends.
    pub is: Option<String>,
    /// Texts that must be in the output.
    pub contains: Vec<String>,
    /// Texts that must not be in the output.
    pub lacks: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    about: String,
    boots: Option<Vec<Boot>>,
    #[serde(default)]
    machine: RawMachine,
    #[serde(default)]
    isolated: bool,
    steps: Vec<RawStep>,
    #[serde(default)]
    cleanup: Vec<RawStep>,
    #[serde(default)]
    weakened: Vec<Weakened>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMachine {
    memory: Option<u32>,
    cpus: Option<u32>,
    network: Option<String>,
    #[serde(default)]
    publish: Vec<u16>,
    #[serde(default)]
    disks: Vec<RawDisk>,
    share: Option<String>,
    test: Option<String>,
    append: Option<String>,
    ready: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDisk {
    bus: DiskBus,
    text: Option<String>,
    ext4: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    run: Option<String>,
    poll: Option<String>,
    send: Option<String>,
    expect: Option<String>,
    press: Option<Vec<String>>,
    power_button: Option<bool>,
    ends: Option<bool>,
    fetch: Option<u16>,
    status: Option<i32>,
    is: Option<String>,
    contains: Option<Vec<String>>,
    lacks: Option<Vec<String>>,
    deadline_s: Option<u64>,
}

/// Reads every `*.toml` of `cases`, sorted by name. `shares` holds the folders that they name.
pub fn load(cases: &Path, shares: &Path) -> Result<Vec<Case>> {
    let listing = std::fs::read_dir(cases).with_context(|| format!("{}: cannot list", cases.display()))?;
    let mut all = Vec::new();
    for item in listing {
        let path = item.with_context(|| format!("{}: cannot list", cases.display()))?.path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            all.push(parse(&name, &text, shares).with_context(|| path.display().to_string())?);
        }
    }
    if all.is_empty() {
        bail!("{}: holds no case", cases.display());
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// One file's text -> a case.
pub fn parse(name: &str, text: &str, shares: &Path) -> Result<Case> {
    let raw: RawCase = toml::from_str(text)?;
    let boots: Vec<Boot> = match raw.boots {
        None => vec![Boot::Direct],
        Some(boots) if boots.is_empty() => bail!("boots: is empty, so that the case would never run"),
        Some(boots) => boots,
    };
    if raw.about.trim().is_empty() {
        bail!("about: is empty; say in a sentence what the case shows");
    }
    if raw.steps.is_empty() {
        bail!("steps: is empty, so that the case could not fail");
    }
    let machine = resolve_machine(raw.machine, &boots, shares).context("machine")?;
    let steps = resolve_steps("steps", raw.steps, &machine)?;
    let cleanup = resolve_steps("cleanup", raw.cleanup, &machine)?;
    let is_empty = |weakened: &Weakened| weakened.shows.is_empty() || weakened.edits.is_empty();
    if raw.weakened.iter().any(|weakened| weakened.step >= steps.len() || is_empty(weakened)) {
        bail!("weakened: needs the number of a step, edits, and what its output shows then");
    }
    let last = steps.iter().position(|step| step.action == Action::Ends);
    if last.is_some_and(|at| !raw.isolated || at + 1 != steps.len() || !cleanup.is_empty()) {
        bail!("steps: `ends` must be the last step of an isolated case without cleanup");
    }
    Ok(Case {
        name: name.to_owned(),
        about: raw.about,
        boots,
        machine,
        isolated: raw.isolated,
        steps,
        cleanup,
        weakened: raw.weakened,
    })
}

fn resolve_machine(raw: RawMachine, boots: &[Boot], shares: &Path) -> Result<Machine> {
    let append = raw.append.unwrap_or_default();
    if !append.is_empty() && boots.iter().any(|&boot| boot != Boot::Direct) {
        bail!("append: needs boots = [\"direct\"]; GRUB owns the ISO's command line");
    }
    let memory = raw.memory.unwrap_or(512);
    if !MEMORY_MIB.contains(&memory) {
        bail!("memory: {memory} MiB is not between {} and {}", MEMORY_MIB.start(), MEMORY_MIB.end());
    }
    let cpus = raw.cpus.unwrap_or(2);
    if !(1..=8).contains(&cpus) {
        bail!("cpus: {cpus} is not between 1 and 8");
    }
    let network = match raw.network.as_deref() {
        None => Some(MODELS[0].to_owned()),
        Some("none") => None,
        Some(model) if MODELS.contains(&model) => Some(model.to_owned()),
        Some(model) => bail!("network: {model:?} is none of {}, none", MODELS.join(", ")),
    };
    if network.is_none() && !raw.publish.is_empty() {
        bail!("publish: needs a network card");
    }
    let folder = |field: &str, name: &str| {
        if name.contains('/') || !shares.join(name).is_dir() {
            bail!("{field}: there is no folder {name:?} in {}", shares.display());
        }
        Ok(name.to_owned())
    };
    let disks = raw.disks.into_iter().enumerate().map(|(index, disk)| {
        let content = match (disk.text, disk.ext4) {
            (Some(text), None) => DiskContent::Text(text),
            (None, Some(name)) => DiskContent::Ext4(folder(&format!("disks[{index}].ext4"), &name)?),
            _ => bail!("disks[{index}]: needs either text or ext4"),
        };
        Ok(DiskImage { bus: disk.bus, content })
    });
    let share = match (raw.share, raw.test) {
        (None, None) => None,
        (Some(name), None) => Some(Share::Folder(folder("share", &name)?)),
        (None, Some(name)) if name.contains(['/', '.']) => {
            bail!("test: {name:?} is no file of runtime/tests")
        }
        (None, Some(name)) => Some(Share::Test(name)),
        (Some(_), Some(_)) => bail!("share and test: a machine has one of them, both lie at /mnt/share"),
    };
    let machine = Machine {
        memory,
        cpus,
        network,
        publish: raw.publish,
        disks: disks.collect::<Result<_>>()?,
        share,
        append,
        ready: raw.ready.unwrap_or_else(|| READY.to_owned()),
    };
    if boots.contains(&Boot::Plain) && machine != Machine::default() {
        bail!("with \"plain\" in boots nothing can be chosen: that machine is QEMU's own");
    }
    Ok(machine)
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            memory: 512,
            cpus: 2,
            network: Some(MODELS[0].to_owned()),
            publish: Vec::new(),
            disks: Vec::new(),
            share: None,
            append: String::new(),
            ready: READY.to_owned(),
        }
    }
}

fn resolve_steps(field: &str, raw: Vec<RawStep>, machine: &Machine) -> Result<Vec<Step>> {
    raw.into_iter()
        .enumerate()
        .map(|(index, step)| resolve_step(step, machine).with_context(|| format!("{field}[{index}]")))
        .collect()
}

fn resolve_step(raw: RawStep, machine: &Machine) -> Result<Step> {
    let judges_command = raw.run.is_some() || raw.poll.is_some();
    if !judges_command && (raw.status.is_some() || raw.is.is_some() || raw.lacks.is_some()) {
        bail!("status, is and lacks judge the output of run and poll only");
    }
    if !judges_command && raw.fetch.is_none() && raw.contains.is_some() {
        bail!("contains judges the output of run, poll and fetch only");
    }
    let contains = raw.contains.unwrap_or_default();
    let verdict = || Verdict {
        status: raw.status.unwrap_or(0),
        is: raw.is.clone(),
        contains: contains.clone(),
        lacks: raw.lacks.clone().unwrap_or_default(),
    };
    let mut actions = Vec::new();
    actions.extend(raw.run.map(|command| Action::Run(command, verdict())));
    actions.extend(raw.poll.map(|command| Action::Poll(command, verdict())));
    actions.extend(raw.send.map(Action::Send));
    actions.extend(raw.expect.map(Action::Expect));
    actions.extend(raw.press.map(Action::Press));
    actions.extend(raw.power_button.filter(|&yes| yes).map(|_| Action::PowerButton));
    actions.extend(raw.ends.filter(|&yes| yes).map(|_| Action::Ends));
    actions.extend(raw.fetch.map(|port| Action::Fetch(port, contains.clone())));
    let [action] = <[Action; 1]>::try_from(actions).map_err(|actions| {
        anyhow::anyhow!(
            "has {} actions; a step is exactly one of run, poll, send, expect, press, power_button, ends, fetch",
            actions.len()
        )
    })?;
    match &action {
        Action::Run(text, _) | Action::Poll(text, _) | Action::Send(text) | Action::Expect(text)
            if text.is_empty() =>
        {
            bail!("its text is empty");
        }
        Action::Press(keys) if keys.is_empty() => bail!("press: names no key"),
        Action::Fetch(port, _) if !machine.publish.contains(port) => {
            bail!("fetch: machine.publish does not name {port}")
        }
        Action::Fetch(_, texts) if texts.is_empty() => bail!("fetch: needs contains, or it could not fail"),
        _ => {}
    }
    let deadline = match raw.deadline_s {
        None => DEADLINE,
        Some(seconds @ 1..=DEADLINE_S_MAX) => Duration::from_secs(seconds),
        Some(seconds) => bail!("deadline_s: {seconds} is not between 1 and {DEADLINE_S_MAX}"),
    };
    Ok(Step { action, deadline })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Case> {
        parse("example", text, Path::new("/nowhere"))
    }

    /// What a mistake is told as.
    fn mistake(text: &str) -> String {
        format!("{:#}", read(text).unwrap_err())
    }

    #[test]
    fn the_shortest_case_gets_every_default() {
        let case = read("about = 'a'\n[[steps]]\nrun = 'true'\n").unwrap();
        assert_eq!((case.boots, case.isolated), (vec![Boot::Direct], false));
        assert_eq!((case.machine.memory, case.machine.cpus), (512, 2));
        assert_eq!(case.machine.ready, READY);
        let step = Step { action: Action::Run("true".into(), Verdict::default()), deadline: DEADLINE };
        assert_eq!(case.steps, [step]);
    }

    #[test]
    fn an_unknown_word_is_named_wherever_it_stands() {
        assert!(mistake("abuot = 'a'\nabout = 'a'\nsteps = [{ run = 'x' }]").contains("abuot"));
        assert!(mistake("about = 'a'\nsteps = [{ run = 'x', statsu = 1 }]").contains("statsu"));
        assert!(mistake("about = 'a'\nsteps = [{ run = 'x' }]\n[machine]\nmemroy = 1").contains("memroy"));
        assert!(mistake("about = 'a'\nboots = ['floppy']\nsteps = [{ run = 'x' }]").contains("floppy"));
    }

    #[test]
    fn a_step_is_one_action_and_is_named_by_its_place() {
        let text = mistake("about = 'a'\nsteps = [{ run = 'x' }, { run = 'x', send = 'y' }]");
        assert!(text.contains("steps[1]") && text.contains("2 actions"), "{text}");
        let text = mistake("about = 'a'\nsteps = [{ run = 'x' }]\ncleanup = [{ deadline_s = 1 }]");
        assert!(text.contains("cleanup[0]") && text.contains("0 actions"), "{text}");
    }

    #[test]
    fn a_case_that_could_not_fail_is_refused() {
        assert!(mistake("about = 'a'\nsteps = []").contains("steps: is empty"));
        assert!(mistake("about = 'a'\nboots = []\nsteps = [{ run = 'x' }]").contains("boots"));
        let fetch = "about = 'a'\nsteps = [{ fetch = 80 }]\n[machine]\npublish = [80]";
        assert!(mistake(fetch).contains("needs contains"));
        let judged = "about = 'a'\nsteps = [{ send = 'x', status = 1 }]";
        assert!(mistake(judged).contains("judge"));
    }

    #[test]
    fn an_end_comes_last_and_alone() {
        let shared = "about = 'a'\nsteps = [{ send = 'poweroff' }, { ends = true }]";
        assert!(mistake(shared).contains("isolated"));
        assert!(read(&format!("isolated = true\n{shared}")).is_ok());
        assert!(
            mistake("isolated = true\nabout = 'a'\nsteps = [{ ends = true }, { run = 'x' }]")
                .contains("last")
        );
    }

    #[test]
    fn a_machine_that_cannot_be_had_is_refused_with_the_field() {
        let with =
            |line: &str| mistake(&format!("about = 'a'\nsteps = [{{ run = 'x' }}]\n[machine]\n{line}"));
        assert!(with("memory = 1").contains("memory"));
        assert!(with("cpus = 0").contains("cpus"));
        assert!(with("network = 'rtl8139'").contains("rtl8139"));
        assert!(with("share = 'none-such'").contains("none-such"));
        assert!(with("share = '../cases'").contains("share"));
        assert!(with("test = '../x'").contains("test"));
        assert!(with("disks = [{ bus = 'ahci' }]").contains("disks[0]"));
        let iso = "about = 'a'\nboots = ['bios-cd']\nsteps = [{ run = 'x' }]\n[machine]\nappend = 'quiet'";
        assert!(mistake(iso).contains("append"));
    }

    #[test]
    fn every_case_of_the_project_reads() {
        let qemu = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("qemu");
        let cases = load(&qemu.join("cases"), &qemu.join("shares")).unwrap();
        assert!(cases.iter().any(|case| case.name == "boot"));
    }

    #[test]
    fn what_is_to_be_weakened_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let cases = load(&root.join("qemu/cases"), &root.join("qemu/shares")).unwrap();
        let mut count = 0;
        for case in &cases {
            for edit in case.weakened.iter().flat_map(|weakened| &weakened.edits) {
                let text = std::fs::read_to_string(root.join(&edit.file)).unwrap();
                assert_ne!(edit.apply(&text).unwrap(), text, "{}", case.name);
                count += 1;
            }
        }
        assert!(count > 0);
    }

    #[test]
    fn a_weakened_product_is_told_by_its_step_and_its_edits() {
        let with =
            |weakened: &str| format!("about = 'a'\nsteps = [{{ run = 'x' }}]\n[[weakened]]\n{weakened}");
        let edits = "edits = [{ file = 'f', cut = 'a', put = 'b' }]";
        let case = read(&with(&format!("step = 0\nshows = 's'\n{edits}"))).unwrap();
        let edit = &case.weakened[0].edits[0];
        assert_eq!(edit.apply("xax").unwrap(), "xbx");
        assert!(edit.apply("aa").unwrap_err().to_string().contains("2 times"));
        assert!(edit.apply("x").is_err());
        assert!(mistake(&with(&format!("step = 1\nshows = 's'\n{edits}"))).contains("weakened"));
        assert!(mistake(&with(&format!("step = 0\nshows = ''\n{edits}"))).contains("weakened"));
        assert!(mistake(&with("step = 0\nshows = 's'\nedits = []")).contains("weakened"));
    }
}
