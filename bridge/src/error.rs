//! Everything that can go wrong in this plugin, and the one table of its codes.

use cni_protocol::spec::{Code, Error};
use hostnet::{ApplyError, KernelError, LockError, NetnsError, RecordError};
use terms::{IfName, IpNetwork, Mtu};

/// Why a network cannot be joined as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0} is in the pod already: it was not made by this call")]
    Occupied(IfName),
    #[error("{0}, the name of the host's end, is on the host already: it was not made by this call")]
    HostEnd(IfName),
    #[error("{0} is on the host already, but is no bridge")]
    NoBridge(IfName),
    #[error(
        "bridge {0} has no VLAN filtering: turn it on with `ip link set {0} type bridge vlan_filtering 1`, or leave vlan and vlanTrunk out"
    )]
    NoVlanFiltering(IfName),
    #[error("this kernel has no VLANs on bridges (CONFIG_BRIDGE_VLAN_FILTERING): leave vlan and vlanTrunk out")]
    NoVlans,
    #[error("bridge {bridge} has address {found} instead of the gateway's {wanted}: set forceAddress to replace it")]
    OtherAddress { bridge: IfName, found: IpNetwork, wanted: IpNetwork },
    #[error("{link} for the gateway of the VLAN is there already and is no cable of bridge {bridge}")]
    VlanGateway { link: IfName, bridge: IfName },
    #[error("uplink {0} is not on the host")]
    NoUplink(IfName),
    #[error("uplink {0} is a bridge or a loopback, which cannot be a port of a bridge")]
    UplinkKind(IfName),
    #[error("uplink {uplink} is in {master} already: take it out of there, or name {master} as the bridge")]
    UplinkTaken { uplink: IfName, master: IfName },
    #[error(
        "uplink {uplink} has {what}, which nothing would answer for while it is a port: move its addresses and routes to bridge \
         {bridge} and make it a port yourself, or name a link without any"
    )]
    UplinkUsed { uplink: IfName, what: String, bridge: IfName },
    #[error("mtu {mtu}: uplink {uplink} passes at most {most} bytes: set mtu to at most that, or the uplink's to more")]
    UplinkMtu { mtu: u32, uplink: IfName, most: u32 },
    #[error("address {0} has no gateway, and its network has no address for one")]
    NoGateway(IpNetwork),
    #[error("mtu {mtu}: the pod has IPv6 addresses, which need at least 1280")]
    SmallMtu { mtu: Mtu },
    #[error("name of a link: {0}")]
    Name(#[from] terms::Invalid),
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BridgeError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the namespace cannot be entered")]
    Netns(#[from] NetnsError),
    #[error("the kernel cannot be read")]
    Read(#[from] KernelError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("not all could be removed: {}", .0.join("; "))]
    TearDown(Vec<String>),
    #[error("the attachment is not as it was made: {}", .0.join("; "))]
    Drift(Vec<String>),
    #[error("the attachment's record")]
    Record(#[from] RecordError),
    #[error("calls of this plugin cannot be serialized")]
    Lock(#[from] LockError),
    #[error("address {0} is a duplicate, or its check did not end")]
    Duplicate(IpNetwork),
}

impl From<BridgeError> for Error {
    fn from(error: BridgeError) -> Self {
        let code = match &error {
            BridgeError::Refused(_) => Code::INVALID_CONFIG,
            BridgeError::Lock(LockError::Busy { .. }) => Code::TRY_AGAIN,
            BridgeError::Netns(_) => Code::INVALID_NETNS,
            BridgeError::Read(_) | BridgeError::Apply(_) | BridgeError::TearDown(_) | BridgeError::Duplicate(_) => {
                Code::INTERNAL
            }
            BridgeError::Drift(_) => CODE_DRIFT,
            BridgeError::Record(_) | BridgeError::Lock(_) => Code::IO,
        };
        Self::from_chain(code, &error)
    }
}

/// CHECK found something missing or altered; a code of our own, from the range that is left to plugins.
const CODE_DRIFT: Code = Code::plugin(0);
