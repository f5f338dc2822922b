//! What the suite runs against, as data: a plugin binary, a configuration, and what is peculiar to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::dist::{cache_path, dist_path};

/// Where a binary comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Build {
    /// This repository.
    Ours,
    /// The distribution's package of reference plugins.
    Distribution,
    /// The reference plugins' release 1.9.1.
    V1_9_1,
}

/// What a plugin is in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Makes `CNI_IFNAME`.
    Main,
    /// Works on the interfaces of the previous result.
    Chained,
    /// Works on what is in the namespace, with neither a previous result nor an interface of its own.
    Trailing,
    /// Only hands out addresses.
    Ipam,
}

/// One column of the table.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name in the table.
    pub name: String,
    /// The plugin's type.
    pub plugin: &'static str,
    /// Whose binary.
    pub build: Build,
    /// Its place in a chain.
    pub role: Role,
    /// The cniVersions it claims, oldest first.
    pub versions: &'static [&'static str],
    /// Its configuration without cniVersion, name and prevResult.
    pub conf: Value,
    /// A shell line that gives the node what the plugin builds on.
    pub node: &'static str,
    /// Plugins that run before it, in order.
    pub before: Vec<Value>,
    /// Plugins of others that may come after it.
    pub after: Vec<Follower>,
    /// A device on the node that attachments share and that outlives them by design: what it is like is no residue.
    pub shared: Option<&'static str>,
    /// Name of a device whose presence must stop ADD.
    pub occupied: Option<&'static str>,
    /// Changes that CHECK must notice.
    pub breakages: Vec<Disturbance>,
    /// Changes that CHECK must tolerate.
    pub tolerances: Vec<Disturbance>,
    /// Losses that DEL must survive, besides that of the interface.
    pub uprootings: Vec<Disturbance>,
    /// Merged into the configuration before the DEL that comes after a change of configuration.
    pub changed_conf: Value,
    /// States of the node in which STATUS must say "not available".
    pub unready: Vec<Disturbance>,
    /// Options that a runtime can pass to it.
    pub runtime_options: Vec<RuntimeOption>,
    /// Groups that ask for what such a plugin cannot have, and why.
    pub exempt: BTreeMap<u8, &'static str>,
}

/// A reference plugin that works on what the subject handed on.
#[derive(Debug, Clone)]
pub struct Follower {
    /// Its configuration by release: the older one may lack a field.
    pub conf: fn(Build) -> Value,
    /// What the runtime is told for it, by capability.
    pub capabilities: Value,
    /// Where to look for what it did.
    pub place: Place,
    /// A shell line that succeeds when it did its work.
    pub shows: &'static str,
}

/// A shell line that changes something behind the plugin's back. `$IFNAME` is the pod's interface, `$HOSTIF` the node's
/// end of it, `$TAP` the device that must not exist before ADD, `$NETWORK` the network's name.
#[derive(Debug, Clone)]
pub struct Disturbance {
    /// What it does, in words.
    pub what: &'static str,
    /// Where it runs.
    pub place: Place,
    /// The line.
    pub line: &'static str,
}

/// Whose network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The node's.
    Node,
    /// The pod's.
    Pod,
}

/// An option that a runtime passes, and how its effect shows.
#[derive(Debug, Clone)]
pub struct RuntimeOption {
    /// Description for the table.
    pub what: &'static str,
    /// Merged into the plugin's configuration.
    pub conf: Value,
    /// `CNI_ARGS`.
    pub args: &'static str,
    /// Where to look.
    pub place: Place,
    /// A shell line that succeeds when the option has its effect.
    pub shows: &'static str,
}

impl Subject {
    /// The folder of the plugin's binary and of its delegates, or why it cannot be had.
    ///
    /// # Errors
    /// When the binary has not been built or installed.
    pub fn program(&self) -> Result<PathBuf, String> {
        let (path, hint) = match self.build {
            Build::Ours if self.plugin == "tapvisor-bridge" => (Some(dist_path("tapvisor-bridge")), "make build"),
            Build::Ours => (Some(dist_path("tapvisor-cni")), "make build"),
            Build::Distribution => {
                (Some(Path::new("/usr/lib/cni").join(self.plugin)), "install containernetworking-plugins")
            }
            Build::V1_9_1 => (cache_path(&format!("go/plugins/{}", self.plugin)), "make setup-test"),
        };
        let path = path.ok_or("HOME is not set")?;
        if path.is_file() { Ok(path) } else { Err(format!("{} is missing: {hint}", path.display())) }
    }

    /// The newest version it claims.
    #[must_use]
    pub fn newest(&self) -> &'static str {
        self.versions.last().copied().unwrap_or("1.0.0")
    }

    /// Whether it knows STATUS and GC.
    #[must_use]
    pub fn has_1_1(&self) -> bool {
        self.versions.contains(&"1.1.0")
    }
}
