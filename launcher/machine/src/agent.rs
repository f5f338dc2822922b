//! What a machine needs the agent in its guest for.

use serde::{Deserialize, Serialize};

use crate::disk::FileSet;

/// Uses of the guest's agent, beyond what the launcher offers in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct AgentUse {
    /// Whether a probe asks it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub probes: bool,
    /// SSH keys that it passes to the guest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<SshKeys>,
    /// Passwords that it passes to the guest: the name of a file is a user's, its content the password. They may change while
    /// the machine runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passwords: Vec<FileSet>,
}

impl AgentUse {
    /// Whether the machine does without an agent.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// SSH keys of some users of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SshKeys {
    /// The users, each of whom gets all keys.
    pub users: Vec<String>,
    /// Files with one key on each line. They may change while the machine runs.
    pub files: FileSet,
}
