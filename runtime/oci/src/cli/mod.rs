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

use std::path::PathBuf;

use clap::CommandFactory;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;

use super::cgroup::Cgroup;
use super::report::Error;
use super::store::Container;
use super::store::Status;
use super::store::Store;

/// Open Container Initiative runtime: runs containers by its specification.
#[derive(Debug, Parser)]
#[command(name = "runc", disable_version_flag = true, subcommand_required = true)]
pub struct Cli {
    /// Options for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub verb: Verb,
}

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

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a container; `start` runs its program
    Create(create::Create),
    /// Create a container and run its program
    Run(create::Run),
    /// Run the program of a created container
    Start(Id),
    /// Print the state of a container as JSON
    State(Id),
    /// Run another program in a running container
    Exec(Box<exec::Exec>),
    /// List containers
    List(list::List),
    /// Send a signal to a container, TERM if none is named
    Kill(kill::Kill),
    /// Delete a container that has stopped
    Delete(delete::Delete),
    /// List the processes of a container
    Ps(ps::Ps),
    /// Write a new config.json
    Spec(spec::SpecArgs),
    /// Freeze all processes of a container
    Pause(Id),
    /// Let the processes of a paused container go on
    Resume(Id),
    /// Change limits of a container
    Update(Box<update::Update>),
    /// Print what this runtime knows, as JSON
    Features,
    /// Save a running container: not supported yet
    Checkpoint(checkpoint::Unread),
    /// Bring a saved container back: not supported yet
    Restore(checkpoint::Unread),
    /// Show what a container uses, and out-of-memory kills
    Events(events::Events),
}

/// The command line, whose help pages have the headings of runc's: callers look for them.
pub fn command() -> clap::Command {
    const REST: &str = "{about}\n\nUSAGE:\n   {usage}\n\n{all-args}";
    // Callers read its lines by their order. The image's manifest names the commit; the program must not differ by it.
    let version = env!("CARGO_PKG_VERSION");
    let version =
        format!("version {version} (coracle)\ncommit: coracle-{version}\nspec: {}", super::SPEC_VERSION);
    let flag = clap::Arg::new("version").short('v').long("version").action(clap::ArgAction::Version);
    Cli::command()
        // clap keeps it as long as the program runs, and is asked once.
        .version(&*version.leak())
        .arg(flag.help("Print the version"))
        .help_template(format!("NAME:\n   runc - {REST}"))
        .mut_subcommands(|verb| {
            let name = format!("NAME:\n   runc {} - {REST}", verb.get_name());
            verb.help_template(name)
        })
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
        Verb::Checkpoint(_) => Err(checkpoint::refuse("checkpoint")),
        Verb::Restore(_) => Err(checkpoint::refuse("restore")),
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
