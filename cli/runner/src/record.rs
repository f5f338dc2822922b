//! What is known of a VM outside its processes: the status that commands read, and the attachments that DEL needs.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use terms::{ContainerId, IfName, Invalid, NetworkName, ObjectKey};
use wiring::Owner;

use super::owner::POD_OWNER;
use super::process::Process;
use api::run_strategy::{FinalPhase, RunStrategy};

/// Which kind of object asked for the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Kept, and started and stopped over and over.
    VirtualMachine,
    /// Runs once, as in KubeVirt.
    VirtualMachineInstance,
}

/// Where a VM is in its life, in the words of KubeVirt's printable status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Its network or its launcher is coming up.
    Starting,
    /// The guest's processors run.
    Running,
    /// The guest's processors are stopped, on request.
    Paused,
    /// The guest was asked to end.
    Stopping,
    /// It failed before it ever ran and waits for its next try.
    CrashLoopBackOff,
    /// It does not run, and can be started.
    Stopped,
    /// It did what it was started for.
    Succeeded,
    /// It failed and its run strategy does not start it again.
    Failed,
}

impl From<FinalPhase> for Phase {
    fn from(end: FinalPhase) -> Self {
        match end {
            FinalPhase::Stopped => Self::Stopped,
            FinalPhase::Succeeded => Self::Succeeded,
            FinalPhase::Failed => Self::Failed,
        }
    }
}

/// Whether anything of the VM is outside its folder: a namespace, attachments, processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnHost {
    /// There may be; said before the first thing is made.
    Present,
    /// There is nothing; said after the last thing was removed.
    Absent,
}

/// `status.json`: rewritten whole whenever something changes, by the supervisor alone while there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Status {
    /// `metadata.namespace` of the object.
    pub namespace: String,
    /// `metadata.name` of the object.
    pub name: String,
    /// `kind` of the object.
    pub kind: Kind,
    /// What happens when it ends.
    pub strategy: RunStrategy,
    /// Where it is in its life.
    pub phase: Phase,
    /// Why it is there, when that needs saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The engine that runs it, or last did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Why the launcher chose this engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_reason: Option<String>,
    /// What could not be removed when it ended; the next command that acts tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// Whether anything of it is outside its folder.
    pub on_host: OnHost,
    /// Whether it stays known after it has ended.
    pub kept: bool,
    /// Whether it is kept from the moment its guest first runs: a start that fails is to leave nothing.
    #[serde(default)]
    pub kept_once_running: bool,
    /// User and group of its processes and of the files that they may write. No other VM has them while this record
    /// lasts. Earlier releases did not write it and ran all VMs as one user.
    #[serde(default = "earlier_owner")]
    pub owner: Owner,
    /// The CNI container id of this VM's networks.
    pub container_id: ContainerId,
    /// Its network namespace while it has one.
    pub netns: PathBuf,
    /// The network its first interface is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkName>,
    /// Addresses of the pod interface on the primary network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Links the plugins left on the host's side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_links: Vec<IfName>,
    /// The supervisor, once it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<Process>,
    /// The launcher while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<Process>,
    /// Time between the power button and the end by force.
    pub grace_period_seconds: u64,
    /// When `run` took note of it.
    pub created_unix_seconds: u64,
    /// When the guest last began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since_unix_seconds: Option<u64>,
    /// How often it was started again by itself.
    #[serde(default)]
    pub restarts: u32,
    /// Whether Services lead to it: its guest runs and, if it has a readiness probe, answers that.
    #[serde(default)]
    pub ready: bool,
}

fn earlier_owner() -> Owner {
    POD_OWNER
}

impl Status {
    /// Namespace and name, checked.
    ///
    /// # Errors
    /// When the file was not written by this program.
    pub fn key(&self) -> Result<ObjectKey, Invalid> {
        ObjectKey::new(&self.namespace, &self.name)
    }

    /// Whether it has ended and nothing brings it back but the user.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Succeeded | Phase::Failed)
    }
}

/// `attachments.json`: everything ADD and DEL need, in the order of ADD.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Attachments {
    /// One for each network, the binding last.
    pub list: Vec<Attachment>,
    /// Annotations of the instance, for plugins that read them.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub annotations: serde_json::Map<String, serde_json::Value>,
    /// Where the plugins are, so that DEL finds what ADD found whatever the environment says then.
    pub folders: Vec<PathBuf>,
}

/// One network of the VM's pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Attachment {
    /// The interface the plugins make, or, for the binding, the key under which it is known.
    pub ifname: IfName,
    /// The interface in the manifest that it serves; the binding serves all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The complete configuration list, so that DEL does not depend on files that may have changed since.
    pub config: serde_json::Value,
}

impl Attachment {
    /// What messages call its interface: the name in the manifest, where there is one.
    #[must_use]
    pub fn called(&self) -> &str {
        self.interface.as_deref().unwrap_or(self.ifname.as_str())
    }

    /// The name in its configuration, empty if it has none.
    #[must_use]
    pub fn network(&self) -> &str {
        self.config.get("name").and_then(serde_json::Value::as_str).unwrap_or_default()
    }
}
