//! The verbs as the protocol knows them.

use std::hash::{BuildHasher as _, RandomState};

use cni_protocol::plugin::{Add, Added, Attachment, AttachmentKey, Check, Collect, Del, NetConf, Plugin, Status};
use cni_protocol::spec::{CniResult, Code, Error};
use hostnet::facts::LinkKind;
use hostnet::{Ask, Kernel as _, Linux, LinuxPair, Locks, Netns};
use terms::{MacAddr, NetworkName};

use super::conf::Conf;
use super::desired::{Desired, Ends};
use super::error::{BridgeError, Refusal};
use super::ipam::Ipam;
use super::names::Key;
use super::plan::NewMacs;
use super::record::{PATIENCE, Record, records};
use super::{del, uplink, verbs};

/// The plugin. A verb leaves the thread that called it in either namespace: one call, one process.
#[derive(Debug, Clone, Default)]
pub struct Bridge;

fn pair(pod: &Netns) -> Result<LinuxPair<'static>, BridgeError> {
    Ok(LinuxPair::with_pod(pod.try_clone()?)?)
}

impl Plugin for Bridge {
    fn about(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "tapvisor-bridge {version}: a CNI plugin that joins pods to a bridge of the host, with the configuration of the \
             reference plugin `bridge`. Container runtimes execute it."
        )
    }

    fn add(&self, call: &Add) -> Result<Added, Error> {
        let conf = Conf::read(&call.conf, &call.attachment.args)?;
        let key = key(&call.conf, &call.attachment);
        let mut kernels = pair(call.netns.open())?;
        verbs::refuse_occupied(&mut kernels, &call.attachment.if_name)?;
        kernels.return_to_host().map_err(BridgeError::from)?;
        let ipam = Ipam::of(conf.ipam.clone());
        remove_left_over(call, &key, ipam.as_ref())?;
        let addresses = match &ipam {
            Some(ipam) => ipam.add(&call.conf, &call.attachment)?,
            None => CniResult::default(),
        };
        let added = join(&mut kernels, call, &conf, &key, addresses);
        Ok(Added::Result(added.inspect_err(|_| {
            // Whatever failed, the IPAM plugin must be executed on the host.
            let returned = kernels.return_to_host();
            ipam.iter().filter(|_| returned.is_ok()).for_each(|ipam| ipam.release(&call.conf, &call.attachment));
        })?))
    }

    fn del(&self, call: &Del) -> Result<(), Error> {
        let key = key(&call.conf, &call.attachment);
        let ipam = Ipam::of(Conf::ipam_of(&call.conf));
        remove(call.conf.name(), &key, || ipam.map_or(Ok(()), |ipam| ipam.del(&call.conf, &call.attachment)))
    }

    fn check(&self, call: &Check) -> Result<(), Error> {
        let conf = Conf::read(&call.conf, &call.attachment.args)?;
        if let Some(ipam) = Ipam::of(conf.ipam.clone()) {
            ipam.check(&call.conf, &call.attachment)?;
        }
        let sandbox = call.netns.path().to_string_lossy();
        let mut made = call.previous.clone().unwrap_or_default();
        let pod_end = &call.attachment.if_name;
        let index = made.interfaces.iter().position(|link| link.name == pod_end.as_str() && link.sandbox == sandbox);
        let mac = index.and_then(|index| made.interfaces.get(index)).and_then(|link| link.mac.parse().ok());
        let Some(pod_mac) = mac else {
            let msg = format!("prevResult: no interface {pod_end} in {sandbox} with an Ethernet address");
            return Err(Error::new(Code::INVALID_CONFIG, msg));
        };
        made.ips.retain(|ip| ip.interface.is_none() || ip.interface == index);
        let key = key(&call.conf, &call.attachment);
        let host_end = key.host_end().map_err(|error| BridgeError::from(Refusal::from(error)))?;
        let ends = Ends { host_end, pod_end: pod_end.clone(), pod_mac };
        let desired = Desired::of(&conf, ends, &mut made).map_err(BridgeError::from)?;
        let mut kernels = pair(call.netns.open())?;
        Ok(verbs::check(&mut kernels, &desired)?)
    }

    fn gc(&self, call: &Collect) -> Result<(), Error> {
        let network = call.conf.name();
        let ipam = Ipam::of(Conf::ipam_of(&call.conf));
        let mut errors = Vec::new();
        // Without a list nothing is said about what is valid.
        if let Some(valid) = call.conf.valid_attachments() {
            for text in records().keys(network).map_err(BridgeError::from)? {
                if is_valid(network, &text, valid) {
                    continue;
                }
                let key = Key::recorded(text);
                errors.extend(collect(&call.conf, &key, ipam.as_ref()).err().map(|error| error.to_string()));
            }
        }
        // Of calls that were killed.
        errors.extend(Locks::default().sweep().err().map(|error| error.to_string()));
        errors.extend(ipam.and_then(|ipam| ipam.gc(&call.conf).err()).map(|error| error.to_string()));
        if errors.is_empty() { Ok(()) } else { Err(BridgeError::TearDown(errors).into()) }
    }

    fn status(&self, call: &Status) -> Result<(), Error> {
        let args = cni_protocol::plugin::Args::default();
        let conf = Conf::read(&call.conf, &args)?;
        let not_ready = |why: String| Error::new(Code::NOT_AVAILABLE, why);
        if conf.point_to_point {
            return Ipam::of(conf.ipam).map_or(Ok(()), |ipam| ipam.status(&call.conf));
        }
        let named = std::iter::once(conf.bridge.clone()).chain(conf.uplink.clone());
        let facts = Linux::here().gather(&Ask::of_links(named));
        let facts = facts.map_err(|error| not_ready(format!("links cannot be read: {error}")))?;
        if let Some(link) = facts.link(&conf.bridge).filter(|link| link.kind != LinkKind::Bridge) {
            return Err(not_ready(Refusal::NoBridge(link.name.clone()).to_string()));
        }
        if let Some(gone) = conf.uplink.as_ref().filter(|name| facts.link(name).is_none()) {
            return Err(not_ready(Refusal::NoUplink(gone.clone()).to_string()));
        }
        Ipam::of(conf.ipam).map_or(Ok(()), |ipam| ipam.status(&call.conf))
    }
}

/// Joins a pod to the network with the addresses that it was given.
fn join(
    kernels: &mut LinuxPair<'_>,
    call: &Add,
    conf: &Conf,
    key: &Key,
    mut addresses: CniResult,
) -> Result<CniResult, BridgeError> {
    let pod_mac = conf.mac.unwrap_or_else(random_mac);
    let pod_end = call.attachment.if_name.clone();
    let ends = Ends { host_end: key.host_end().map_err(Refusal::from)?, pod_end, pod_mac };
    let desired = Desired::of(conf, ends, &mut addresses)?;
    let masqueraded: Vec<_> = desired.elements.masqueraded.iter().map(|(_, ip)| *ip).collect();
    let record = Record {
        container_id: call.attachment.container_id.clone(),
        if_name: call.attachment.if_name.clone(),
        checked_mac: conf.checks_mac.then_some(pod_mac),
        uplink: conf.uplink.clone(),
        gateway_link: (!masqueraded.is_empty()).then(|| desired.gateway_link()).transpose()?,
        masqueraded,
    };
    let (network, records) = (call.conf.name(), records());
    records.create(network, key.as_str(), &record.to_bytes())?;
    let macs = NewMacs { bridge: random_mac(), host_end: random_mac(), gateway: random_mac() };
    let sandbox = call.netns.path().to_string_lossy();
    let hold = |kind| Ok(records.hold(kind, PATIENCE)?);
    let added = verbs::remember_uplink(kernels, &desired, hold)
        .and_then(|()| verbs::add(kernels, &desired, addresses, (&sandbox, &macs), hold));
    let waits = conf.duplicate_detection && desired.has_ipv6();
    let added = added.and_then(|result| match waits {
        true => verbs::await_addresses(kernels, &desired).map(|()| result),
        false => Ok(result),
    });
    if let Err(error) = &added {
        kernels.return_to_host()?;
        let left = match error {
            // Before the first change of what is the attachment's: what has its name is another's.
            BridgeError::Refused(_) => {
                uplink::forget(&mut Linux::here(), network, key, Some(&record)).map_err(Error::from)
            }
            // Undone already, but for what came after the plan.
            _ => remove(network, key, || Ok(())),
        };
        if let Err(error) = left {
            eprintln!("tapvisor-bridge: a failed ADD left something: {error}");
        }
    }
    added
}

/// Removes what an ADD left that was killed, so that this one begins from nothing.
fn remove_left_over(call: &Add, key: &Key, ipam: Option<&Ipam>) -> Result<(), Error> {
    let network = call.conf.name();
    match records().read(network, key.as_str()).map_err(BridgeError::from)? {
        Some(_) => remove(network, key, || ipam.map_or(Ok(()), |ipam| ipam.del(&call.conf, &call.attachment))),
        None => Ok(()),
    }
}

/// Removes an attachment, whatever is left of it; its record last, so that what failed can be tried again.
fn remove(network: &NetworkName, key: &Key, release: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    let records = records();
    let mut kernel = Linux::here();
    let mut left = del::links(&mut kernel, key);
    let read = records.read(network, key.as_str()).map_err(BridgeError::from);
    let record = read.map(|bytes| bytes.and_then(|bytes| Record::from_bytes(&bytes)));
    let record = record.unwrap_or_else(|error| {
        left.push(Error::from(error).to_string());
        None
    });
    if let Some(record) = &record {
        match del::elements(&mut kernel, &records, network, key, record) {
            Ok(more) => left.extend(more),
            Err(error) => left.push(Error::from(error).to_string()),
        }
    }
    // Afterwards: the next owner of the addresses may have the same elements.
    let released = release();
    if !left.is_empty() {
        left.extend(released.err().map(|error| error.to_string()));
        return Err(BridgeError::TearDown(left).into());
    }
    released?;
    Ok(uplink::forget(&mut kernel, network, key, record.as_ref())?)
}

/// Removes an attachment that the runtime no longer knows.
fn collect(conf: &NetConf, key: &Key, ipam: Option<&Ipam>) -> Result<(), Error> {
    let bytes = records().read(conf.name(), key.as_str()).map_err(BridgeError::from)?;
    let record = bytes.and_then(|bytes| Record::from_bytes(&bytes));
    remove(conf.name(), key, || match (ipam, record) {
        (Some(ipam), Some(Record { container_id, if_name, .. })) => {
            ipam.del_stale(conf, &AttachmentKey { container_id, if_name })
        }
        _ => Ok(()),
    })
}

fn is_valid(network: &NetworkName, key: &str, valid: &[AttachmentKey]) -> bool {
    valid.iter().any(|one| Key::of(network, &one.container_id, &one.if_name).as_str() == key)
}

fn key(conf: &NetConf, attachment: &Attachment) -> Key {
    Key::of(conf.name(), &attachment.container_id, &attachment.if_name)
}

/// A locally administered address of five random bytes: the standard library seeds its hashers from the kernel.
fn random_mac() -> MacAddr {
    let [a, b, c, d, e, ..] = RandomState::new().hash_one(0_u8).to_be_bytes();
    MacAddr::local([a, b, c, d, e])
}
