//! What a launcher answers to `status`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use terms::{IfName, MacAddr};

/// The version of the control socket's messages, in every [`Status`].
pub const VERSION: u32 = 1;

/// The machine's state as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Not a single instruction yet.
    Starting,
    /// The processors run.
    Running,
    /// The processors stand.
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

/// What executes the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "engine", content = "accelerator", rename_all = "camelCase")]
pub enum EngineKind {
    /// Our own machine on KVM.
    Kvm,
    /// QEMU.
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
    /// QEMU's translator.
    Tcg,
    /// The host's processor.
    Kvm,
}

/// The machine as the launcher sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of the messages; 0 from a launcher that did not say.
    #[serde(default)]
    pub version: u32,
    /// Whether it runs.
    pub state: State,
    /// Namespace of the VM object.
    #[serde(default)]
    pub namespace: String,
    /// Name of the VM object.
    #[serde(default)]
    pub name: String,
    /// SMBIOS system UUID.
    #[serde(default)]
    pub uuid: String,
    /// What executes it.
    #[serde(flatten)]
    pub engine: Option<EngineKind>,
    /// What was found out about /dev/kvm.
    #[serde(default)]
    pub kvm: String,
    /// In the machine's order.
    #[serde(default)]
    pub nics: Vec<NicStatus>,
    /// What the launcher's process is confined by, from one that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<ConfinementStatus>,
    /// How often the guest was reset.
    #[serde(default)]
    pub resets: u64,
    /// How often the watchdog acted.
    #[serde(default)]
    pub watchdog_fired: u64,
}

impl Status {
    /// A machine of which nothing else is known.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self {
            version: VERSION,
            state,
            namespace: String::new(),
            name: String::new(),
            uuid: String::new(),
            engine: None,
            kvm: String::new(),
            nics: Vec::new(),
            confinement: None,
            resets: 0,
            watchdog_fired: 0,
        }
    }
}

/// What confines a launcher's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfinementStatus {
    /// Landlock's rules.
    pub landlock: bool,
    /// The filter of system calls.
    pub seccomp: bool,
}

/// One NIC as the launcher serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NicStatus {
    /// Name in the manifest.
    pub name: String,
    /// The VM tap.
    #[serde(default)]
    pub tap: Option<IfName>,
    /// The guest's address.
    pub mac: MacAddr,
    /// The guest's MTU.
    #[serde(default)]
    pub mtu_bytes: u32,
    /// Queue pairs.
    #[serde(default)]
    pub queues: u16,
    /// Whether the manifest gives the guest's link no carrier.
    #[serde(default)]
    pub link_down: bool,
    /// What of its network the guest is not told, in sentences.
    #[serde(default)]
    pub not_told: Vec<String>,
    /// What the guest is answered; `None` on a network without addresses.
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

/// What a NIC's guest asked and was answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// By DHCPv4; `None` when the network has no such addresses.
    pub ipv4: Option<LeaseStatus>,
    /// By DHCPv6; `None` when the network has no such addresses.
    pub ipv6: Option<LeaseStatus>,
    /// Router solicitations of the guest's.
    pub router_solicitations: u64,
    /// Router advertisements to the guest.
    pub router_advertisements: u64,
    /// Messages of clients that are not served.
    pub strangers_ignored: u64,
    /// Who sends DHCP messages.
    pub clients: Vec<MacAddr>,
}

/// One family's lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// The address that is offered.
    pub address: IpAddr,
    /// Messages of the guest's.
    #[serde(default)]
    pub asked: u64,
    /// Answers to the guest.
    #[serde(default)]
    pub answered: u64,
    /// Whether the guest holds the address.
    #[serde(default)]
    pub leased: bool,
    /// How often it was granted.
    #[serde(default)]
    pub grants: u64,
}
