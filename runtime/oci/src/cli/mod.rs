//! runc's command line, one file a verb.
//!
//! In: arguments. Out: what the verb is to do, checked. Must never: do a topic's work itself.

pub mod activation;
pub mod checkpoint;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod kill;
pub mod list;
pub mod ps;
pub mod spec;
pub mod update;

use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::path::PathBuf;

use clap::Args;
use clap::FromArgMatches;
use clap::Subcommand;
use clap::ValueEnum;

use super::cgroup::Cgroup;
use super::report::Error;
use super::store::Container;
use super::store::Status;
use super::store::Store;

/// Options for every command.
#[derive(Debug, clap::Args)]
pub struct Global {
    /// Log more
    #[arg(long)]
    pub debug: bool,
    /// Log to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Where containers are noted down [default: /run/runc, for others than root runc in XDG_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Let systemd make cgroups
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Whether the caller has no privileges
    #[arg(long, value_name = "true|false|auto", default_value = "auto")]
    pub rootless: String,
}

/// Forms of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time=... level=... msg=...`
    Text,
    /// An object a line.
    Json,
}

/// A command with its arguments.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "VERBS says what each does")]
pub enum Verb {
    Create(create::Create),
    Run(create::Run),
    Start(Id),
    State(Id),
    Exec(Box<exec::Exec>),
    List(list::List),
    Kill(kill::Kill),
    Delete(delete::Delete),
    Ps(ps::Ps),
    Spec(spec::SpecArgs),
    Pause(Id),
    Resume(Id),
    Update(Box<update::Update>),
    Features,
    Checkpoint(Box<checkpoint::Checkpoint>),
    Restore(Box<checkpoint::Restore>),
    Events(events::Events),
}

/// Adds the arguments of a command to it.
type Arguments = fn(clap::Command) -> clap::Command;

/// The commands, in the order of the help page: name, its line there, arguments.
const VERBS: [(&str, &str, Arguments); 17] = [
    ("create", "Create a container; `start` runs its program", arguments::<create::Create>),
    ("run", "Create a container and run its program", arguments::<create::Run>),
    ("start", "Run the program of a created container", arguments::<Id>),
    ("state", "Print the state of a container as JSON", arguments::<Id>),
    ("exec", "Run another program in a running container", arguments::<exec::Exec>),
    ("list", "List containers", arguments::<list::List>),
    ("kill", "Send a signal to a container, TERM if none is named", arguments::<kill::Kill>),
    ("delete", "Delete a container that has stopped", arguments::<delete::Delete>),
    ("ps", "List the processes of a container", arguments::<ps::Ps>),
    ("spec", "Write a new config.json", arguments::<spec::SpecArgs>),
    ("pause", "Freeze all processes of a container", arguments::<Id>),
    ("resume", "Let the processes of a paused container go on", arguments::<Id>),
    ("update", "Change limits of a container", arguments::<update::Update>),
    ("features", "Print what this runtime knows, as JSON", with_help),
    ("checkpoint", "Save a running container in images, by criu", arguments::<checkpoint::Checkpoint>),
    ("restore", "Bring a saved container back, by criu", arguments::<checkpoint::Restore>),
    ("events", "Show what a container uses, and out-of-memory kills", arguments::<events::Events>),
];

/// The command line, whose help pages have the headings of runc's: callers look for them.
pub fn command() -> clap::Command {
    VERBS.into_iter().fold(without_verbs(), with_verb)
}

fn with_verb(
    command: clap::Command,
    (name, about, arguments): (&'static str, &'static str, Arguments),
) -> clap::Command {
    command.subcommand(arguments(clap::Command::new(name).about(about)))
}

fn without_verbs() -> clap::Command {
    const ABOUT: &str = "Open Container Initiative runtime: runs containers by its specification";
    // Callers read its lines by their order. The image's manifest names the commit; the program must not differ by it.
    let version = env!("CARGO_PKG_VERSION");
    let version =
        format!("version {version} (coracle)\ncommit: coracle-{version}\nspec: {}", super::SPEC_VERSION);
    let flag = clap::Arg::new("version").short('v').long("version").action(clap::ArgAction::Version);
    let command = clap::Command::new("runc").disable_version_flag(true).subcommand_required(true);
    // clap keeps the version as long as the program runs, and is asked once.
    let command = with_help(Global::augment_args(command)).about(ABOUT).version(&*version.leak());
    command.arg(flag.help("Print the version")).arg_required_else_help(true)
}

/// A command with the arguments of `A`, whose own description is not for users.
fn arguments<A: clap::Args>(verb: clap::Command) -> clap::Command {
    let about = verb.get_about().cloned().unwrap_or_default();
    with_help(A::augment_args(verb)).about(about)
}

fn with_help(command: clap::Command) -> clap::Command {
    let name = match command.get_name() {
        "runc" => "runc".to_string(),
        verb => format!("runc {verb}"),
    };
    command.help_template(format!("NAME:\n   {name} - {{about}}\n\nUSAGE:\n   {{usage}}\n\n{{all-args}}"))
}

/// Reads the command line.
///
/// # Errors
/// clap's, which print themselves; help is one of them.
pub fn parse(argv: Vec<OsString>) -> Result<(Global, Verb), clap::Error> {
    // To make the arguments of all commands takes longer than all the rest of a start.
    let called = verb_of(&argv).and_then(|verb| VERBS.into_iter().find(|(name, ..)| *name == verb));
    let command = match (called, &argv[..]) {
        (Some(verb), _) => with_verb(without_verbs(), verb),
        (None, [_, flag]) if flag == "--version" || flag == "-v" => without_verbs(),
        (None, _) => command(),
    };
    // Never dropped: to free its many parts one by one is time for nothing.
    let mut command = ManuallyDrop::new(command);
    let words = command.try_get_matches_from_mut(argv)?;
    Ok((Global::from_arg_matches(&words)?, Verb::from_arg_matches(&words)?))
}

/// The command that the words name, found without reading them all.
pub fn verb_of(argv: &[OsString]) -> Option<&str> {
    const WITH_VALUE: [&str; 4] = ["--log", "--log-format", "--root", "--rootless"];
    let mut words = argv.iter().skip(1).map(|word| word.to_str());
    loop {
        match words.next()? {
            Some(word) if WITH_VALUE.contains(&word) => drop(words.next()),
            Some(word) if word.starts_with('-') => {}
            word => return word,
        }
    }
}

/// A container's name.
#[derive(Debug, clap::Args)]
pub struct Id {
    /// Name of the container
    pub id: String,
}

/// Runs a verb and gives the exit status.
///
/// # Errors
/// What the verb could not do.
pub fn run(store: &Store, verb: Verb) -> Result<i32, Error> {
    match verb {
        Verb::Create(args) => args.run(store).map(|()| 0),
        Verb::Run(args) => args.run(store),
        Verb::Start(args) => create::start(&store.open(&args.id)?).map(|()| 0),
        Verb::State(args) => list::show_state(&store.open(&args.id)?).map(|()| 0),
        Verb::Exec(args) => args.run(store),
        Verb::List(args) => args.run(store).map(|()| 0),
        Verb::Kill(args) => args.run(store).map(|()| 0),
        Verb::Delete(args) => args.run(store).map(|()| 0),
        Verb::Ps(args) => args.run(store).map(|()| 0),
        Verb::Spec(args) => args.run().map(|()| 0),
        Verb::Pause(args) => pause(&store.open(&args.id)?).map(|()| 0),
        Verb::Resume(args) => resume(&store.open(&args.id)?).map(|()| 0),
        Verb::Update(args) => {
            let container = store.open(&args.id)?;
            if container.status() == Status::Stopped {
                return Err(Error::new("cannot update a stopped container"));
            }
            args.update_shares(&container)?;
            cgroup_of(&container)?.update(&args.wanted()?, container.unit().as_ref()).map(|()| 0)
        }
        Verb::Features => features::show().map(|()| 0),
        Verb::Checkpoint(args) => args.run(store).map(|()| 0),
        Verb::Restore(args) => args.run(store),
        Verb::Events(args) => {
            let container = store.open(&args.id)?;
            if container.status() == Status::Stopped {
                return Err(Error::new(format!("container with id {} is not running", args.id)));
            }
            args.show(&cgroup_of(&container)?, &mut std::io::stdout()).map(|()| 0)
        }
    }
}

/// The cgroup of a container whose process lives.
///
/// # Errors
/// It is gone, or was never made.
pub fn cgroup_of(container: &Container) -> Result<Cgroup, Error> {
    let path = &container.record.cgroup;
    if path.as_os_str().is_empty() {
        return Err(Error::new("the container has no cgroup of its own: its rootless caller may make none"));
    }
    Cgroup::open(path)?
        .ok_or_else(|| Error::new(format!("cgroup {} of the container is gone", path.display())))
}

fn pause(container: &Container) -> Result<(), Error> {
    match container.status() {
        Status::Running | Status::Created => cgroup_of(container)?.freeze(),
        status => Err(Error::new(format!("container not running or created: {status}"))),
    }
}

fn resume(container: &Container) -> Result<(), Error> {
    match container.status() {
        Status::Paused => cgroup_of(container)?.thaw(),
        _ => Err(Error::new("container not paused")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_those_that_are_known_with_all_their_arguments() {
        let known = Verb::augment_subcommands(clap::Command::new("runc"));
        let mut made = command();
        made.build();
        let shape = |verb: &clap::Command| {
            let ids = verb.get_arguments().map(|argument| argument.get_id().to_string());
            (verb.get_name().to_string(), ids.filter(|id| id != "help").collect::<Vec<_>>())
        };
        let made: Vec<_> =
            made.get_subcommands().filter(|verb| verb.get_name() != "help").map(shape).collect();
        assert_eq!(made, known.get_subcommands().map(shape).collect::<Vec<_>>());
        command().debug_assert();
    }

    #[test]
    fn the_command_is_found_behind_the_options_for_all() {
        let of = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            verb_of(&words).map(str::to_string)
        };
        assert_eq!(of("runc run x").as_deref(), Some("run"));
        assert_eq!(
            of("runc --debug --root exec --log=/run --log-format json state x").as_deref(),
            Some("state")
        );
        assert_eq!(of("runc --root"), None);
    }

    #[test]
    fn a_command_line_is_read() {
        let words = ["runc", "--root", "/r", "exec", "-t", "x", "sh", "-c", "exit"].map(OsString::from);
        let (global, verb) = parse(words.to_vec()).unwrap();
        assert_eq!(global.root, Some(PathBuf::from("/r")));
        assert!(matches!(verb, Verb::Exec(_)));
        let error = parse(vec!["runc".into(), "walk".into()]).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::InvalidSubcommand);
    }
}
