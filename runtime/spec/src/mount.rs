//! `mounts[]` of config.json (config.md, "Mounts").

use serde::Deserialize;
use serde::Serialize;

use super::linux::IdMapping;

/// A mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where, inside the container.
    pub destination: String,
    /// File system type; `bind` or empty with a bind option.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Device name, or the path of a bind mount, from the bundle on if relative.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// As in fstab(5), and those of the specification.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// User ids of an idmapped mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of an idmapped mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}
