//! What a launcher answers to `status`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use terms::{IfName, MacAddr};

use crate::agent::AgentStatus;

/// The version of the control socket's messages, in every [`Status`].
pub const VERSION: u32 = 1;

/// The machine's state as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Not a single instruction yet.
    Starting,
    /// The guest's processors run.
    Running,
    /// The processors are halted, on request or after a disk failed.
    Paused,
    /// It was asked to power off.
    Stopping,
}

impl std::fmt::Display for State {
    /// The word that it is in a message.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
        })
    }
}

/// The engine, and what executes the guest's instructions there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "engine", content = "accelerator", rename_all = "camelCase")]
pub enum EngineKind {
    /// Our own machine on KVM.
    Kvm,
    /// QEMU, with this accelerator.
    Qemu(Accelerator),
}

impl std::fmt::Display for EngineKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Qemu(Accelerator::Tcg) => "qemu (tcg)",
            Self::Qemu(Accelerator::Kvm) => "qemu (kvm)",
        })
    }
}

/// What executes the guest's instructions in QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Accelerator {
    /// QEMU's own translation, without KVM.
    Tcg,
    /// The host's processor, by /dev/kvm.
    Kvm,
}

/// The answer to `status`. Fields beyond `state` may be absent from launchers of other releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of the messages; 0 from a launcher that did not say.
    #[serde(default)]
    pub version: u32,
    /// Where the machine is in its life.
    pub state: State,
    /// Whether the launcher waits for a guest that another launcher runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incoming: bool,
    /// Namespace of the VM object.
    #[serde(default)]
    pub namespace: String,
    /// Name of the VM object.
    #[serde(default)]
    pub name: String,
    /// SMBIOS system UUID in its 36-character form; empty if unknown.
    #[serde(default)]
    pub uuid: String,
    /// The engine and its accelerator.
    #[serde(flatten)]
    pub engine: Option<EngineKind>,
    /// Why this engine was chosen, as a message for users; empty from older launchers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub engine_reason: String,
    /// The result of the probe of /dev/kvm, as a message for users.
    #[serde(default)]
    pub kvm: String,
    /// The NICs in the machine's order.
    #[serde(default)]
    pub nics: Vec<NicStatus>,
    /// The confinement of the launcher's process; absent from older launchers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<ConfinementStatus>,
    /// How often the guest was reset.
    #[serde(default)]
    pub resets: u64,
    /// How often the watchdog acted.
    #[serde(default)]
    pub watchdog_fired: u64,
    /// The agent in the guest; absent where the machine has no channel for one, and from older launchers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentStatus>,
}

impl Status {
    /// A machine of which nothing else is known.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self {
            version: VERSION,
            state,
            incoming: false,
            namespace: String::new(),
            name: String::new(),
            uuid: String::new(),
            engine: None,
            engine_reason: String::new(),
            kvm: String::new(),
            nics: Vec::new(),
            confinement: None,
            resets: 0,
            watchdog_fired: 0,
            agent: None,
        }
    }
}

/// The confinement of a launcher's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfinementStatus {
    /// Whether Landlock rules are in force.
    pub landlock: bool,
    /// Whether the seccomp filter is in force.
    pub seccomp: bool,
}

/// One NIC as the launcher serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NicStatus {
    /// Name of the interface in the manifest.
    pub name: String,
    /// The name of the VM tap.
    #[serde(default)]
    pub tap: Option<IfName>,
    /// Ethernet address of the guest's NIC.
    pub mac: MacAddr,
    /// The MTU that the guest is given, in bytes; 0 if unknown.
    #[serde(default)]
    pub mtu_bytes: u32,
    /// Number of queue pairs; 0 if unknown.
    #[serde(default)]
    pub queues: u16,
    /// Whether the guest's link has no carrier.
    #[serde(default)]
    pub link_down: bool,
    /// What the guest cannot be given of its network: one message each.
    #[serde(default)]
    pub not_told: Vec<String>,
    /// Counters of the DHCP service; `None` on a network without addresses.
    #[serde(default)]
    pub service: Option<ServiceStatus>,
}

impl NicStatus {
    /// A NIC of which nothing else is known.
    #[must_use]
    pub fn new(name: &str, mac: MacAddr) -> Self {
        Self {
            name: name.to_owned(),
            tap: None,
            mac,
            mtu_bytes: 0,
            queues: 0,
            link_down: false,
            not_told: Vec::new(),
            service: None,
        }
    }
}

/// Counters of one NIC's DHCP service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// DHCPv4; `None` on a network without IPv4 addresses.
    pub ipv4: Option<LeaseStatus>,
    /// DHCPv6; `None` on a network without IPv6 addresses.
    pub ipv6: Option<LeaseStatus>,
    /// Router solicitations from the guest.
    pub router_solicitations: u64,
    /// Router advertisements to the guest.
    pub router_advertisements: u64,
    /// Messages from other clients than the guest, which are ignored.
    pub strangers_ignored: u64,
    /// Ethernet addresses that sent DHCP messages.
    pub clients: Vec<MacAddr>,
}

/// The lease of one address family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// The address of the lease.
    pub address: IpAddr,
    /// Number of DHCP messages from the guest.
    #[serde(default)]
    pub asked: u64,
    /// Number of answers to the guest.
    #[serde(default)]
    pub answered: u64,
    /// Whether the guest holds the address.
    #[serde(default)]
    pub leased: bool,
    /// How often it was granted.
    #[serde(default)]
    pub grants: u64,
}
