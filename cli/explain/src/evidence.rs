//! What was read of the network of a VM: the input of `diagnose`.

use std::net::IpAddr;

use hostnet::{Facts, RouteQuery};
use terms::IfName;
use wiring::Request;

use super::launcher::Status;
use crate::record::{Network, VmStatus};

/// Everything a diagnosis is made of.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// What its keeper knows of the VM.
    pub(crate) status: VmStatus,
    /// What its NICs were asked to be.
    pub(crate) request: Request,
    /// Its networks' configurations, for what they promise.
    pub(crate) networks: Vec<Network>,
    /// Whether the host has address translation by the older iptables, whose rules cannot be read here.
    pub(crate) has_older_nat: bool,
    /// Facts of the host's network namespace.
    pub(crate) host: Facts,
    /// The VM's; why not, if it cannot be read.
    pub(crate) pod: Result<Facts, String>,
    /// Packets that strict reverse-path filtering has dropped in the VM's namespace.
    pub(crate) pod_reverse_path_drops: u64,
    /// The same on the host.
    pub(crate) host_reverse_path_drops: u64,
    /// When the namespace was made.
    pub(crate) wired_unix_seconds: u64,
    /// What the launcher says; why not, if it does not.
    pub(crate) launcher: Result<Status, String>,
    /// Ports that were probed, with the outcome.
    pub probes: Vec<Probe>,
    /// Which ways the kernel was asked for.
    pub(crate) ways: Vec<AskedRoute>,
    /// Ports that the user asks about.
    pub(crate) wanted_ports: Vec<u16>,
    /// The time of all this.
    pub(crate) now_unix_seconds: u64,
}

/// A port that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Name of the NIC's pod interface.
    pub(crate) pod_interface: IfName,
    /// Namespace that the probe started in.
    pub(crate) from: From,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) outcome: Outcome,
}

/// A route that the kernel was asked for (RTM_GETROUTE), and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AskedRoute {
    /// The NIC's name in the VM.
    pub(crate) nic: String,
    /// Namespace whose routing was asked.
    pub(crate) at: From,
    pub(crate) purpose: Purpose,
    pub(crate) journey: RouteQuery,
    /// The index of the link that it leaves by; the error number if it does not leave.
    pub(crate) leads: Result<u32, Option<i32>>,
}

/// Which packet a route is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To the VM, from the namespace that is asked.
    ToVm,
    /// Beyond all networks that the namespace knows, from the VM.
    Beyond,
}

/// The namespace that a probe starts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The host: the whole way.
    Host,
    /// The VM's namespace: the last step.
    Pod,
}

/// What became of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The connection was accepted.
    Answered,
    /// The connection was refused.
    Refused,
    /// Nothing came back in time.
    Silent,
    /// It never left this machine, or a router reported the destination unreachable.
    Unreachable(String),
}
