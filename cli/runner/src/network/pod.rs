//! Attaching a VM's pod to its networks, and detaching it from all of them however far that came.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cni_protocol::runtime::{Attachment as CniAttachment, ConfigError, ConfigList, Runtime, RuntimeError};
use cni_protocol::spec::CniResult;
use hostnet::linux::Linux;
use hostnet::netns::{Netns, NetnsError};
use hostnet::op::LinkChange;
use hostnet::{Failure, Kernel as _, Op};
use serde_json::Value;
use terms::{ContainerId, IfName, ObjectKey};

use crate::layout::Layout;
use crate::record::{Attachment, Attachments};
use crate::resolv::Resolv;

/// Why a pod could not be attached or detached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The VM's network namespace cannot be made, entered or removed.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The loopback in it cannot be brought up.
    #[error("the VM's network namespace")]
    Loopback(#[source] Failure),
    /// What was written down is no configuration any more.
    #[error("network {network}")]
    Config {
        /// Name of the network.
        network: String,
        /// What is wrong with its configuration.
        #[source]
        source: Box<ConfigError>,
    },
    /// A plugin of a network failed.
    #[error("network {network} for interface {interface}")]
    Plugin {
        /// Name of the network.
        network: String,
        /// Which interface, by its name in the manifest.
        interface: String,
        /// The error of the plugin, or of executing it.
        #[source]
        source: Box<RuntimeError>,
    },
}

/// The pod of one VM: its namespace and its attachments.
#[derive(Debug, Clone)]
pub struct PodNetwork {
    /// Namespace and name of the VM.
    pub key: ObjectKey,
    /// The pod's id towards the plugins.
    pub container_id: ContainerId,
    /// Where its namespace is mounted.
    pub netns: PathBuf,
    /// Its networks in the order of ADD.
    pub attachments: Attachments,
    /// Where the results are kept.
    pub cache: PathBuf,
}

/// What the plugins returned for all networks together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wired {
    /// Addresses on the primary network: of each family the first, which is the guest's behind a bridge binding.
    pub addresses: Vec<IpAddr>,
    /// Links that the plugins made on the host's side.
    pub host_links: Vec<IfName>,
    /// Name servers and search domains that the networks give.
    pub resolv: Resolv,
    /// The same of each network alone, by its pod interface.
    pub of_networks: Vec<(IfName, Resolv)>,
    /// What the binding plugin warns of.
    pub warnings: Vec<String>,
}

impl PodNetwork {
    /// The pod of a VM that was written down.
    #[must_use]
    pub fn of(layout: &Layout, key: &ObjectKey, container_id: ContainerId, attachments: Attachments) -> Self {
        Self { key: key.clone(), container_id, netns: layout.netns(key), attachments, cache: layout.cni_cache() }
    }

    /// Makes the namespace and attaches it to every network in order.
    ///
    /// # Errors
    /// The first failure. The plugins that were asked have undone their part; call [`Self::detach`] for the rest.
    pub fn attach(&self) -> Result<Wired, NetworkError> {
        let netns = Netns::create(&self.netns)?;
        raise_loopback(&netns)?;
        let (warnings, mut wired) = (Arc::new(Mutex::new(Vec::new())), Wired::default());
        let runtime = self.runtime(&warnings);
        for (index, attachment) in self.attachments.list.iter().enumerate() {
            let list = list_of(attachment)?;
            tracing::info!(network = %list.name(), interface = attachment.called(), "ADD");
            let result =
                runtime.add(&list, &self.cni(attachment)).map_err(|source| self.plugin_error(attachment, source))?;
            wired.note(&result, &attachment.ifname, index == 0);
        }
        wired.warnings = std::mem::take(&mut warnings.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(wired)
    }

    /// Detaches from every network in reverse and removes the namespace. Goes on past failures, and is repeatable.
    ///
    /// The namespace stays as long as a network that was attached is not detached: plugins need it, or the addresses in it, to
    /// find what they made on the host.
    ///
    /// # Errors
    /// All failures.
    pub fn detach(&self) -> Result<(), Vec<NetworkError>> {
        let runtime = self.runtime(&Arc::default());
        let failures: Vec<_> = self
            .attachments
            .list
            .iter()
            .rev()
            .filter_map(|attachment| self.detach_one(&runtime, attachment).err())
            .collect();
        if !failures.is_empty() {
            return Err(failures);
        }
        Netns::remove(&self.netns).map_err(|error| vec![error.into()])
    }

    /// The same, but the namespace goes and the networks are forgotten whatever could not be detached.
    ///
    /// # Errors
    /// All failures: what may remain on the host.
    pub fn abandon(&self) -> Result<(), Vec<NetworkError>> {
        let Err(mut failures) = self.detach() else { return Ok(()) };
        let runtime = self.runtime(&Arc::default());
        for attachment in &self.attachments.list {
            let forgotten = list_of(attachment).and_then(|list| {
                runtime.forget(&list, &self.cni(attachment)).map_err(|source| self.plugin_error(attachment, source))
            });
            failures.extend(forgotten.err());
        }
        failures.extend(Netns::remove(&self.netns).err().map(NetworkError::from));
        Err(failures)
    }

    /// DEL. What fails of a network that was never attached, or is detached already, is a line in the log.
    fn detach_one(&self, runtime: &Runtime, attachment: &Attachment) -> Result<(), NetworkError> {
        let list = list_of(attachment)?;
        let cni = self.cni(attachment);
        tracing::info!(network = %list.name(), interface = attachment.called(), "DEL");
        let is_attached = !matches!(runtime.cached_one(list.name(), &cni.container_id, &cni.if_name), Ok(None));
        match runtime.del(&list, &cni).map_err(|source| self.plugin_error(attachment, source)) {
            Err(error) if !is_attached => {
                tracing::warn!(error = %crate::chain(&error), "DEL of a network that was not attached failed");
                Ok(())
            }
            detached => detached,
        }
    }

    /// Whether an attachment from the runtime's cache was made for the pod of this VM.
    pub(crate) fn is_of(attachment: &CniAttachment, key: &ObjectKey) -> bool {
        let has = |name: &str, wanted: &str| attachment.args.iter().any(|(key, value)| key == name && value == wanted);
        has(POD_NAMESPACE, key.namespace()) && has(POD_NAME, &pod_name(key))
    }

    fn runtime(&self, warnings: &Arc<Mutex<Vec<String>>>) -> Runtime {
        let warnings = Arc::clone(warnings);
        Runtime::new(&self.cache, self.attachments.folders.clone()).with_log(move |plugin, line| {
            tracing::warn!(plugin, line, "output of a plugin");
            if let Some(warning) = line.strip_prefix("tapvisor: ").filter(|_| plugin == "tapvisor") {
                warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning.to_owned());
            }
        })
    }

    /// As a container runtime of Kubernetes would put it.
    fn cni(&self, attachment: &Attachment) -> CniAttachment {
        // DEL of a namespace that is gone comes with none, as from containerd.
        let netns = self.netns.exists().then(|| self.netns.clone());
        let mut cni = CniAttachment::new(self.container_id.clone(), netns, attachment.ifname.clone());
        let pairs = [
            ("IgnoreUnknown", "1".to_owned()),
            (POD_NAMESPACE, self.key.namespace().to_owned()),
            (POD_NAME, pod_name(&self.key)),
            ("K8S_POD_INFRA_CONTAINER_ID", self.container_id.to_string()),
        ];
        cni.args = pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if !self.attachments.annotations.is_empty() {
            let annotations = Value::Object(self.attachments.annotations.clone());
            cni.capability_args.insert("io.kubernetes.cri.pod-annotations".to_owned(), annotations);
        }
        cni
    }

    fn plugin_error(&self, attachment: &Attachment, source: RuntimeError) -> NetworkError {
        let (network, interface) = (attachment.network().to_owned(), attachment.called().to_owned());
        NetworkError::Plugin { network, interface, source: Box::new(source) }
    }
}

const POD_NAMESPACE: &str = "K8S_POD_NAMESPACE";
const POD_NAME: &str = "K8S_POD_NAME";

fn pod_name(key: &ObjectKey) -> String {
    format!("virt-launcher-{}", key.name())
}

impl Wired {
    fn note(&mut self, result: &CniResult, ifname: &IfName, is_primary: bool) {
        if is_primary {
            self.addresses = first_addresses(result, ifname);
        }
        let mut links: BTreeSet<_> = self.host_links.drain(..).collect();
        links.extend(
            result.interfaces.iter().filter(|link| link.sandbox.is_empty()).filter_map(|l| l.name.parse().ok()),
        );
        self.host_links = links.into_iter().collect();
        let domain = Some(result.dns.domain.clone()).filter(|domain| !domain.is_empty());
        let own = Resolv {
            servers: result.dns.nameservers.iter().filter_map(|server| server.parse().ok()).collect(),
            search: domain.into_iter().chain(result.dns.search.iter().cloned()).collect(),
            options: result.dns.options.clone(),
        };
        self.resolv.servers.extend_from_slice(&own.servers);
        self.resolv.search.extend_from_slice(&own.search);
        self.resolv.options.extend_from_slice(&own.options);
        self.of_networks.push((ifname.clone(), own));
    }
}

/// Of each family the first address that a result has for the interface, in the result's order.
fn first_addresses(result: &CniResult, ifname: &IfName) -> Vec<IpAddr> {
    let is_own = |index: Option<usize>| {
        let interface = index.and_then(|index| result.interfaces.get(index));
        interface.is_none_or(|interface| !interface.sandbox.is_empty() && interface.name == ifname.as_str())
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in result.ips.iter().filter(|held| is_own(held.interface)).map(|held| held.address.ip()) {
        if addresses.iter().all(|known| known.is_ipv4() != address.is_ipv4()) {
            addresses.push(address);
        }
    }
    addresses
}

fn list_of(attachment: &Attachment) -> Result<ConfigList, NetworkError> {
    ConfigList::from_value(attachment.config.clone())
        .map_err(|source| NetworkError::Config { network: attachment.network().to_owned(), source: Box::new(source) })
}

/// What the runtime's `loopback` plugin does in a cluster: sockets on 127.0.0.1 and ::1 work.
fn raise_loopback(netns: &Netns) -> Result<(), NetworkError> {
    #[expect(clippy::expect_used, reason = "a constant that is a valid name")]
    let link = "lo".parse().expect("lo is an interface name");
    let up = [Op::SetLink { link, set: LinkChange::up() }];
    netns.run(|| Linux::here().execute(&up))?.map_err(NetworkError::Loopback)
}

#[cfg(test)]
mod tests {
    use cni_protocol::spec::Version;
    use serde_json::json;

    use super::*;

    // spec: DHCP-5
    #[test]
    fn a_vm_has_the_first_address_of_a_family_a_network_its_own_servers() {
        let result = |servers: &[&str]| {
            let document = json!({
                "interfaces": [{"name": "veth7"}, {"name": "eth0", "sandbox": "/run/netns/a"}],
                "ips": [{"address": "192.0.2.9/24", "interface": 0}, {"address": "10.77.0.2/24", "interface": 1},
                    {"address": "fd77::2/64", "interface": 1}, {"address": "10.78.0.2/24", "interface": 1},
                    {"address": "fd78::2/64"}],
                "dns": {"nameservers": servers},
            });
            CniResult::from_document(&document, Version::NEWEST).unwrap()
        };
        let (eth0, net1): (IfName, IfName) = ("eth0".parse().unwrap(), "net1".parse().unwrap());
        let mut wired = Wired::default();
        wired.note(&result(&["192.0.2.53"]), &eth0, true);
        wired.note(&result(&["192.0.2.54"]), &net1, false);
        assert_eq!(wired.addresses, ["10.77.0.2", "fd77::2"].map(|text| text.parse::<IpAddr>().unwrap()));
        let servers: Vec<_> = wired.of_networks.iter().map(|(link, own)| (link.as_str(), own.to_text())).collect();
        let expected = [("eth0", "nameserver 192.0.2.53\n"), ("net1", "nameserver 192.0.2.54\n")];
        assert_eq!(servers, expected.map(|(link, text)| (link, text.to_owned())));
        assert_eq!(wired.resolv.servers.len(), 2);
    }
}
