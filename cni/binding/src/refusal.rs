//! Why a request cannot be met in a namespace.

use super::drift::Drift;
use terms::{IfName, IpNetwork};
use wiring::{Digest, MarkError, NicNameError};

/// Why a request cannot be met in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum Refusal {
    /// The pod interface is missing.
    #[error("{0} is not in the namespace: attached after this plugin?")]
    Absent(IfName),
    /// It has no Ethernet address.
    #[error("{0} has no Ethernet address: a VM cannot be joined to it")]
    NotEthernet(IfName),
    /// It has no address to share.
    #[error("{0} has no IP address: masquerade needs one")]
    NoAddress(IfName),
    /// A masquerade subnet is in use.
    #[error("interface {nic:?}: subnet {subnet} overlaps {what} of the pod")]
    Overlap {
        nic: String,
        /// The requested `cidr` or `cidr6` as a network.
        subnet: IpNetwork,
        /// The address with its link, or the route, as text.
        what: String,
    },
    /// The MTU does not fit the family or the link.
    #[error("interface {nic:?}: MTU {mtu}: {rule}")]
    Mtu {
        nic: String,
        /// The MTU asked for, or the link's.
        mtu: u32,
        rule: String,
    },
    /// A name leaves no room for the taps' names.
    #[error(transparent)]
    Name(#[from] NicNameError),
    /// A link has a name that ours must have.
    #[error("link {0} is there already and was not made by this plugin")]
    Foreign(IfName),
    /// The namespace is wired for another request.
    #[error("{link} carries the mark of request {found}, this one is {asked}: DEL that one first")]
    OtherRequest {
        link: IfName,
        /// The request it was made for.
        found: Digest,
        /// The request of this call.
        asked: Digest,
    },
    /// The namespace is wired for this request, by a release that wires otherwise.
    #[error("{link} was wired by another release: generation {found}, this plugin's is {ours}: DEL that one first", ours = wiring::GENERATION)]
    OtherRelease {
        link: IfName,
        /// The generation in its mark.
        found: u32,
    },
    /// The namespace is wired in part.
    #[error("{0}, although taps carry this request's mark: DEL first")]
    Incomplete(Box<Drift>),
    /// What must be restored does not fit the mark.
    #[error(transparent)]
    Mark(#[from] MarkError),
}
