//! What the supervisor or the controller knows of a VM: the second input, next to the kernel's state.

use std::net::IpAddr;
use std::path::PathBuf;

use protocol::control::Status;
use serde_json::Value;
use terms::IfName;
use wiring::Request;

/// A VM as its keeper knows it.
#[derive(Debug, Clone)]
pub struct VmRecord {
    /// Where it is in its life.
    pub status: VmStatus,
    /// What its NICs were asked to be.
    pub request: Request,
    /// Its networks' configurations, for what they promise.
    pub networks: Vec<Network>,
    /// What its launcher says of itself.
    pub launcher: Launcher,
}

/// Where a VM is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmStatus {
    /// `metadata.namespace` of the object.
    pub namespace: String,
    /// `metadata.name` of the object.
    pub name: String,
    /// What keeps it, for the commands of remedies.
    pub place: Place,
    /// `kind` of the object.
    pub kind: Kind,
    /// Where it is in its life.
    pub phase: Phase,
    /// Why it is there, when that needs saying.
    pub reason: Option<String>,
    /// Whether anything of it is on the host: a namespace, attachments, processes.
    pub is_on_host: bool,
    /// Its network namespace while it has one.
    pub netns: PathBuf,
    /// Addresses of the pod interface on the primary network.
    pub addresses: Vec<IpAddr>,
    /// When the guest last began to run.
    pub running_since_unix_seconds: Option<u64>,
    /// How often it was started again by itself.
    pub restarts: u32,
}

/// What keeps a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `tapvisor` on this machine.
    Machine {
        /// The VM as an argument of its commands.
        argument: String,
        /// The log in which the launcher says why it does not answer.
        log: PathBuf,
    },
    /// The controllers of a cluster.
    Cluster {
        /// The node that the VM runs on.
        node: String,
        /// Its launcher pod.
        pod: String,
    },
}

/// The launcher's status, or how to get it.
#[derive(Debug, Clone, PartialEq)]
pub enum Launcher {
    /// It is asked at its control socket.
    Socket(PathBuf),
    /// It was asked already; why not, if it did not answer.
    Asked(Result<Box<Status>, String>),
}

/// Which kind of object asked for the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Kept, and started and stopped over and over.
    VirtualMachine,
    /// Runs once, as in KubeVirt.
    VirtualMachineInstance,
}

/// Where a VM is in its life, in the words of KubeVirt's printable status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its network or its launcher is coming up.
    Starting,
    /// The guest's processors run.
    Running,
    /// The guest's processors are halted on request.
    Paused,
    /// The guest was asked to end.
    Stopping,
    /// It failed before it ever ran and waits for its next try.
    CrashLoopBackOff,
    /// It does not run, and can be started.
    Stopped,
    /// It did what it was started for.
    Succeeded,
    /// It failed and is not started again by itself.
    Failed,
}

/// One network of the VM's pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// The interface the plugins make.
    pub ifname: IfName,
    /// The complete CNI configuration list.
    pub config: Value,
}

impl Network {
    /// The name in its configuration, empty if it has none.
    #[must_use]
    pub fn network(&self) -> &str {
        self.config.get("name").and_then(Value::as_str).unwrap_or_default()
    }
}
