//! What a VM asks of its pod's network: the request, the mark that says it was met, and the names both sides use.
//!
//! The controller and `tapvisor run` write a [`Request`]; the CNI plugin obeys it and leaves a [`Mark`] on each VM tap;
//! the launcher starts only if every mark carries the digest of its own request.

mod mark;
mod masquerade;
mod names;
mod request;
mod service;

pub use mark::{GENERATION, MTU_KEY, Mark, MarkError, address_key};
pub use masquerade::{Family, GuestSubnet, MASQUERADE_GATEWAY_LINK_LOCAL, MASQUERADE_GATEWAY_MAC, overlap, reserved};
pub use names::{NicKey, NicNameError};
pub use request::{Binding, Digest, Interface, Mesh, Owner, Port, Request, RequestError};
pub use service::{VIRTUAL_ROUTER, service_link_local};

/// The annotation, `args.cni` key and configuration key that hold a request.
pub const ANNOTATION: &str = "tapvisor.io/wiring";

/// The host's nft table for Services on one machine, family `inet`.
pub const SERVICES_TABLE: &str = "tapvisor-services";
