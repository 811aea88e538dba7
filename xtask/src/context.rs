//! What all stages read, constant during a run. In: the command line's global options and probed facts.
//! Out: `Build`. Must never: change once made.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::host::Host;
use crate::layout::Layout;
use crate::sources::Sources;
use crate::ui::Ui;

/// Everything that stages read, passed first.
#[derive(Debug)]
pub struct Build {
    /// Every path.
    pub layout: Layout,
    /// The pinned sources, checked.
    pub sources: Sources,
    /// The machine: its tools and cores.
    pub host: Host,
    /// Where sources may come from.
    pub fetch: FetchOptions,
    /// Whether the kernel is built in a tree that is kept.
    pub incremental: bool,
    /// How many jobs a compiler may run at once.
    pub jobs: NonZeroUsize,
    /// Says what goes on.
    pub ui: Ui,
}

/// Where sources may come from.
#[derive(Debug, Clone, Default)]
pub struct FetchOptions {
    /// Nothing but the cache and a mirror folder is asked.
    pub offline: bool,
    /// Tried before the recorded origins.
    pub mirror: Option<Mirror>,
    /// How long an origin is waited for.
    pub patience: Patience,
}

/// How long an origin is waited for before the next one is tried: a machine with no way out moves on within seconds.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For its name to be resolved, and again for a connection.
    pub connect: Duration,
    /// For the beginning of an answer.
    pub answer: Duration,
    /// For more bytes, once they have begun to come.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            stall: Duration::from_secs(30),
        }
    }
}

/// A place that holds the tarballs under their file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mirror {
    /// A folder on this machine.
    Folder(PathBuf),
    /// An address to which `/FILE` is appended.
    Url(String),
}
