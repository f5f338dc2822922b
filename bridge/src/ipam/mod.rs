//! Addresses: from ranges in process, or from another plugin.

mod delegate;
mod host_local;

use cni_protocol::plugin::{Args, Attachment, AttachmentKey, NetConf, Verb};
use cni_protocol::spec::{CniResult, Code, Error};

use host_local::Pools;
pub(crate) use host_local::leases;

/// The type whose configuration and files are served in process.
const HOST_LOCAL: &str = "host-local";

/// What hands out a network's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ipam {
    /// Ranges, in process.
    HostLocal,
    /// Another plugin, executed as a runtime does.
    Delegate(String),
}

impl Ipam {
    /// By the type in the configuration; `None` on layer 2.
    pub(crate) fn of(kind: Option<String>) -> Option<Self> {
        kind.map(|kind| if kind == HOST_LOCAL { Self::HostLocal } else { Self::Delegate(kind) })
    }

    /// Reserves addresses; when that fails, nothing is left of it.
    pub(crate) fn add(&self, conf: &NetConf, attachment: &Attachment) -> Result<CniResult, Error> {
        let Self::Delegate(kind) = self else {
            return host_local::add(conf, &Pools::read(conf, &attachment.args)?, &owner(attachment));
        };
        let added = delegate::add(kind, conf).and_then(|result| match result.ips.is_empty() {
            true => Err(Error::new(Code::INTERNAL, format!("IPAM plugin {kind} returned no address"))),
            false => Ok(result),
        });
        added.inspect_err(|_| self.release(conf, attachment))
    }

    /// Releases what an ADD reserved that fails later; the failure to be reported is that one.
    pub(crate) fn release(&self, conf: &NetConf, attachment: &Attachment) {
        if let Err(error) = self.del(conf, attachment) {
            eprintln!("tapvisor-bridge: addresses of a failed ADD are not released: {error}");
        }
    }

    pub(crate) fn del(&self, conf: &NetConf, attachment: &Attachment) -> Result<(), Error> {
        match self {
            Self::HostLocal => host_local::del(conf, Pools::data_dir_of(conf).as_deref(), &owner(attachment)),
            Self::Delegate(kind) => delegate::call(kind, Verb::Del, conf, None).map(drop),
        }
    }

    /// Releases the addresses of an attachment that the runtime has forgotten.
    pub(crate) fn del_stale(&self, conf: &NetConf, owner: &AttachmentKey) -> Result<(), Error> {
        match self {
            Self::HostLocal => host_local::del(conf, Pools::data_dir_of(conf).as_deref(), owner),
            Self::Delegate(kind) => delegate::call(kind, Verb::Del, conf, Some(owner)).map(drop),
        }
    }

    pub(crate) fn check(&self, conf: &NetConf, attachment: &Attachment) -> Result<(), Error> {
        match self {
            Self::HostLocal => host_local::check(conf, Pools::data_dir_of(conf).as_deref(), &owner(attachment)),
            Self::Delegate(kind) => delegate::call(kind, Verb::Check, conf, None).map(drop),
        }
    }

    pub(crate) fn status(&self, conf: &NetConf) -> Result<(), Error> {
        match self {
            Self::HostLocal => host_local::status(conf, &Pools::read(conf, &Args::default())?),
            Self::Delegate(kind) => delegate::call(kind, Verb::Status, conf, None).map(drop),
        }
    }

    pub(crate) fn gc(&self, conf: &NetConf) -> Result<(), Error> {
        match self {
            Self::HostLocal => host_local::gc(conf, Pools::data_dir_of(conf).as_deref()),
            Self::Delegate(kind) => delegate::call(kind, Verb::Gc, conf, None).map(drop),
        }
    }
}

fn owner(attachment: &Attachment) -> AttachmentKey {
    AttachmentKey { container_id: attachment.container_id.clone(), if_name: attachment.if_name.clone() }
}
