//! The VM's side of the pod's network: what the namespace must hold, what the guest is told of it, and the taps.

mod attach;
mod default_route;
mod guest;
mod place;
mod resolv;
mod service;
mod verify;
mod view;

pub(crate) use attach::{AttachError, Descriptors, attach};
pub(crate) use place::VerifyError;
pub(crate) use resolv::{ResolvConf, Resolvers};
pub(crate) use service::{Lease, Service};
pub(crate) use verify::{WiredNic, verify};
