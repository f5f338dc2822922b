//! Links: network interfaces of any kind.

use serde::{Deserialize, Serialize};
use terms::{IfName, MacAddr};

use super::bridge::{BridgePort, BridgeSettings};
use crate::omit::is_default;

/// A network interface as RTM_GETLINK lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// The kernel's number for it, unique in its namespace.
    pub index: u32,
    /// IFLA_IFNAME, 1 to 15 bytes.
    pub name: IfName,
    /// The driver (IFLA_INFO_KIND); `Physical` without one.
    pub kind: LinkKind,
    /// Its Ethernet address; `None` where it has none or an all-zero one (loopback).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Largest packet in bytes. Wider than [`terms::Mtu`]: the loopback's is 65,536.
    pub mtu_bytes: u32,
    /// Whether it is administratively up (IFF_UP); `state` says whether it works.
    #[serde(default)]
    pub up: bool,
    /// Whether the lower layer is present (IFLA_CARRIER).
    #[serde(default)]
    pub carrier: bool,
    /// Operational state (RFC 2863 §3.1.14).
    #[serde(default)]
    pub state: OperState,
    /// Whether it does without address resolution (IFF_NOARP).
    #[serde(default, skip_serializing_if = "is_default")]
    pub noarp: bool,
    /// Accepts the frames of all multicast groups on request (IFF_ALLMULTI).
    #[serde(default, skip_serializing_if = "is_default")]
    pub all_multicast: bool,
    /// Takes all frames on request (IFF_PROMISC).
    #[serde(default, skip_serializing_if = "is_default")]
    pub promiscuous: bool,
    /// Device group, for changing or deleting many at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub group: u32,
    /// The alias (IFLA_IFALIAS): up to 255 bytes of free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The link it is a port of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<IfName>,
    /// Index of the veth peer or the link beneath; counted in namespace `peer_netns` if that is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_index: Option<u32>,
    /// This namespace's number for the namespace the peer is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_netns: Option<i32>,
    /// How IPv6 link-local addresses come about; `None` where IPv6 is not on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr_gen_mode: Option<AddrGenMode>,
    /// Settings of a bridge, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeSettings>,
    /// Settings of a bridge's port, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<BridgePort>,
    /// Packet counters, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<Statistics>,
}

impl Link {
    /// A link that is down and has nothing but a name; for fakes and tests.
    #[must_use]
    pub fn new(index: u32, name: IfName, kind: LinkKind) -> Self {
        Self {
            index,
            name,
            kind,
            mac: None,
            mtu_bytes: 1500,
            up: false,
            carrier: false,
            state: OperState::Down,
            noarp: false,
            all_multicast: false,
            promiscuous: false,
            group: 0,
            alias: None,
            master: None,
            peer_index: None,
            peer_netns: None,
            addr_gen_mode: Some(AddrGenMode::Eui64),
            bridge: None,
            port: None,
            statistics: None,
        }
    }
}

/// What sort of device a link is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LinkKind {
    /// The loopback of the namespace: `lo`.
    Loopback,
    /// A tun or tap device.
    Tun(Tun),
    /// One end of a virtual cable.
    Veth,
    /// An Ethernet bridge of the kernel.
    Bridge,
    /// A MAC-addressed child of another link.
    Macvlan(MacvlanMode),
    /// The same with a character device.
    Macvtap(MacvlanMode),
    /// An intermediate functional block, for shaping what arrives.
    Ifb,
    /// A device without a driver-given kind: hardware, mostly.
    Physical,
    /// Any other kind, by the kernel's name for it.
    Other(String),
}

/// What the kernel says about a tun or tap device (IFLA_INFO_DATA of `drivers/net/tun.c`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tun {
    /// IFLA_TUN_TYPE: whether it carries frames or packets.
    pub mode: TunMode,
    /// Who may attach without CAP_NET_ADMIN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    /// The group id that may attach; `None`: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// IFF_MULTI_QUEUE: one descriptor for each queue.
    pub multi_queue: bool,
    /// IFF_PERSIST: the link stays when its last descriptor is closed.
    pub persist: bool,
    /// Frames carry a virtio-net header. Each process that attaches sets it again.
    pub vnet_hdr: bool,
    /// Frames carry a packet-information header. Each process that attaches sets it again.
    pub packet_info: bool,
}

/// Layer of a tun device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TunMode {
    /// Layer 2: Ethernet frames (IFF_TAP).
    #[default]
    Tap,
    /// Layer 3: IP packets (IFF_TUN).
    Tun,
}

/// How a macvlan's children see each other (MACVLAN_MODE_* of `linux/if_link.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MacvlanMode {
    /// Not at all: no frame passes between them.
    Private,
    /// By way of an outside bridge.
    Vepa,
    /// Directly: frames between them stay in the host.
    Bridge,
    /// One child owns the parent.
    Passthru,
    /// By source address: each child has a list of senders.
    Source,
    /// A mode this program does not know.
    Unknown,
}

/// Operational state (IF_OPER_* of `linux/if.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OperState {
    /// The driver does not say; treated as usable.
    #[default]
    Unknown,
    /// A component is missing, typically hardware (IF_OPER_NOTPRESENT).
    NotPresent,
    /// No packet passes, for instance without carrier (IF_OPER_DOWN).
    Down,
    /// Down because the link beneath is.
    LowerLayerDown,
    /// In a test mode: no packet of the network passes.
    Testing,
    /// Waiting for an event (802.1X and the like).
    Dormant,
    /// Ready to pass packets (IF_OPER_UP).
    Up,
}

/// How IPv6 link-local addresses come about (IN6_ADDR_GEN_MODE_* of `linux/if_link.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AddrGenMode {
    /// From the MAC address (RFC 4291, appendix A).
    Eui64,
    /// None is made, and no router is solicited.
    None,
    /// From a stable secret (RFC 7217).
    StablePrivacy,
    /// From a secret that the kernel draws for the link (RFC 7217).
    Random,
}

/// Counters since the link was made (IFLA_STATS64).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statistics {
    /// Since the link was made.
    pub rx_packets: u64,
    /// Bytes received, with the link-layer header.
    pub rx_bytes: u64,
    /// Received packets that were discarded as damaged.
    pub rx_errors: u64,
    /// Received packets dropped, for lack of room or of a taker.
    pub rx_dropped: u64,
    /// Packets handed to the device and sent.
    pub tx_packets: u64,
    /// Bytes sent, with the link-layer header.
    pub tx_bytes: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets dropped instead of sent.
    pub tx_dropped: u64,
}
