//! The versions of CNI that we speak.
//!
//! In: a `cniVersion`. Out: an ordered value. Must never: let an unknown one through.

use super::error;
use super::error::Error;

/// A supported `cniVersion`, ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u8, u8, u8);

impl Version {
    /// The first one, also meant by a missing `cniVersion`.
    pub const V0_1_0: Version = Version(0, 1, 0);
    /// The last one whose results are one address per family.
    pub const V0_2_0: Version = Version(0, 2, 0);
    /// CHECK came with it.
    pub const V0_4_0: Version = Version(0, 4, 0);
    /// The family of an address left the result with it.
    pub const V1_0_0: Version = Version(1, 0, 0);
    /// GC and STATUS came with it.
    pub const V1_1_0: Version = Version(1, 1, 0);
    /// All, rising.
    pub const ALL: [Version; 7] = [
        Version::V0_1_0,
        Version::V0_2_0,
        Version(0, 3, 0),
        Version(0, 3, 1),
        Version::V0_4_0,
        Version::V1_0_0,
        Version::V1_1_0,
    ];

    /// Reads one.
    ///
    /// # Errors
    /// Code 1 when we don't speak it.
    pub fn parse(text: &str) -> Result<Version, Error> {
        let text = if text.is_empty() { "0.1.0" } else { text };
        Version::ALL.into_iter().find(|version| version.to_string() == text).ok_or_else(|| {
            let all: Vec<String> = Version::ALL.iter().map(Version::to_string).collect();
            let message = format!("cniVersion {text:?} is not supported; use one of {}", all.join(", "));
            Error::new(error::INCOMPATIBLE_VERSION, message)
        })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.0, self.1, self.2)
    }
}
