//! What a machine needs the agent in its guest for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// Passwords that it passes to the guest: each key is a user's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passwords: Vec<CredentialSource>,
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
    /// Where the keys are: each value has one key on each line.
    pub source: CredentialSource,
}

/// The contents of a Secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CredentialSource {
    /// Files in a folder, which may change while the machine runs.
    Folder(PathBuf),
    /// Values by key.
    Values(BTreeMap<String, String>),
}

impl std::fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => f.debug_tuple("Folder").field(path).finish(),
            Self::Values(values) => f.debug_tuple("Values").field(&values.keys()).finish(),
        }
    }
}
