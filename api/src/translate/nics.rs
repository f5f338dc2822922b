//! NICs: which networks the pod is plugged into, how each is wired, what the guest sees.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use terms::{IfName, Ipv4Network, Ipv6Network, Queues};
use wiring::{Binding, Interface, Mesh, Port};

use super::{BindingPlugin, BindingPlugins, TranslateContext, TranslateError, identity};
use crate::kubevirt::{self, Network, VirtualMachineInstance};
use machine::{Nic, NicModel};

/// A network that the pod is plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NetworkUse {
    /// The network's name in the specification.
    pub name: String,
    /// What it is.
    pub source: NetworkSource,
    /// The interface's name in the pod.
    pub pod_interface: IfName,
}

/// What a network is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum NetworkSource {
    /// The pod network.
    Pod,
    /// A NetworkAttachmentDefinition.
    Multus {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Whether it replaces the pod network.
        default: bool,
    },
}

/// Annotation by which Istio is asked for a sidecar.
const ISTIO_INJECT: &str = "sidecar.istio.io/inject";

pub(super) struct Nics {
    pub(super) networks: Vec<NetworkUse>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) nics: Vec<Nic>,
}

pub(super) fn plan(instance: &VirtualMachineInstance, context: &TranslateContext<'_>) -> Nics {
    let mut subnets = Subnets::around(&instance.spec.nics);
    let mut planned = Nics { networks: Vec::new(), interfaces: Vec::new(), nics: Vec::new() };
    let mut attached = Vec::new();
    for nic in &instance.spec.nics {
        let pod_interface = if nic.network.is_primary() {
            context.primary_interface.clone()
        } else {
            // "pod" and hexadecimal digits always are a name; the primary's would be refused as used twice.
            identity::secondary_interface(&nic.name).unwrap_or_else(|_| context.primary_interface.clone())
        };
        planned.interfaces.push(interface(instance, nic, &pod_interface, context, &mut subnets));
        planned.nics.push(guest_nic(nic));
        attached.push((!nic.network.is_primary(), nic.network_position, network_use(instance, nic, pod_interface)));
    }
    attached.sort_by_key(|(secondary, position, _)| (*secondary, *position));
    planned.networks.extend(attached.into_iter().map(|(_, _, network)| network));
    planned
}

/// Interfaces whose plugin joins none here.
pub(super) fn unknown_plugins(
    instance: &VirtualMachineInstance,
    context: &TranslateContext<'_>,
) -> Vec<TranslateError> {
    let refused = |(index, nic): (usize, &kubevirt::Nic)| {
        let plugin = nic.plugin.as_ref()?;
        let reason = match context.bindings {
            BindingPlugins::Unknown => return None,
            BindingPlugins::None => "there are binding plugins in a cluster alone, use masquerade or bridge".to_owned(),
            BindingPlugins::Known(known) => match known.get(plugin) {
                Some(BindingPlugin::ManagedTap) => return None,
                Some(BindingPlugin::NotSupported(why)) => format!("plugin {plugin:?}: {why}"),
                None => format!("spec.configuration.network.binding of the KubeVirt object has no plugin {plugin:?}"),
            },
        };
        Some(TranslateError::Plugin { path: format!("spec.domain.devices.interfaces[{index}].binding.name"), reason })
    };
    instance.spec.nics.iter().enumerate().filter_map(refused).collect()
}

fn network_use(instance: &VirtualMachineInstance, nic: &kubevirt::Nic, pod_interface: IfName) -> NetworkUse {
    let source = match &nic.network {
        Network::Pod { .. } => NetworkSource::Pod,
        Network::Multus { namespace, name, is_default } => NetworkSource::Multus {
            namespace: namespace.clone().unwrap_or_else(|| instance.metadata.key.namespace().to_owned()),
            name: name.clone(),
            default: *is_default,
        },
    };
    NetworkUse { name: nic.name.clone(), source, pod_interface }
}

fn interface(
    instance: &VirtualMachineInstance,
    nic: &kubevirt::Nic,
    pod_interface: &IfName,
    context: &TranslateContext<'_>,
    subnets: &mut Subnets,
) -> Interface {
    let mut interface = Interface::new(&nic.name, pod_interface.clone(), nic.binding);
    interface.mac = Some(mac(instance, nic, context.vm_uid));
    interface.queues = queues(instance, nic);
    interface.without_service = nic.plugin.is_some();
    if nic.binding == Binding::Masquerade {
        let (cidr, cidr6) = subnets.take(nic);
        interface.cidr = Some(cidr);
        interface.cidr6 = Some(cidr6);
        interface.ports = nic.ports.iter().map(|p| Port { protocol: p.protocol, port: p.port }).collect();
        let asked = instance.metadata.annotations.get(ISTIO_INJECT).is_some_and(|value| value == "true");
        let mesh = asked && context.has_mesh_sidecar && nic.network.is_primary();
        interface.mesh = mesh.then_some(Mesh::Istio);
    }
    interface
}

fn guest_nic(nic: &kubevirt::Nic) -> Nic {
    Nic {
        name: nic.name.clone(),
        model: nic.model,
        link_down: nic.link_down,
        boot_order: nic.boot_order,
        acpi_index: nic.acpi_index,
        pci: nic.pci,
        dhcp: nic.dhcp.clone(),
    }
}

/// A bridge-bound guest gets a derived address too: the pod interface's own would change with each start.
fn mac(instance: &VirtualMachineInstance, nic: &kubevirt::Nic, vm_uid: Option<&str>) -> terms::MacAddr {
    let owner = || vm_uid.map_or_else(|| instance.metadata.key.to_string(), str::to_owned);
    nic.mac.unwrap_or_else(|| identity::mac(&owner(), &nic.name))
}

/// A queue pair for each virtual CPU, where the model has queues and the manifest asks for them.
fn queues(instance: &VirtualMachineInstance, nic: &kubevirt::Nic) -> Queues {
    let wanted = instance.spec.multiqueue && nic.model == NicModel::Virtio;
    let count = if wanted { instance.spec.cpu.count().min(256) } else { 1 };
    Queues::try_from(u64::from(count)).unwrap_or_default()
}

/// Subnets for masquerade NICs: those given, and free ones after KubeVirt's default for the rest.
struct Subnets {
    taken: Vec<Ipv4Network>,
    taken6: Vec<Ipv6Network>,
}

impl Subnets {
    fn around(nics: &[kubevirt::Nic]) -> Self {
        let masqueraded = nics.iter().filter(|nic| nic.binding == Binding::Masquerade);
        let (cidrs, cidrs6): (Vec<_>, Vec<_>) = masqueraded.map(|nic| given(&nic.network)).unzip();
        Self { taken: cidrs.into_iter().flatten().collect(), taken6: cidrs6.into_iter().flatten().collect() }
    }

    fn take(&mut self, nic: &kubevirt::Nic) -> (Ipv4Network, Ipv6Network) {
        let (cidr, cidr6) = given(&nic.network);
        (cidr.unwrap_or_else(|| self.free()), cidr6.unwrap_or_else(|| self.free6()))
    }

    /// 10.0.2.0/24, 10.0.3.0/24 and on; 172.29.2.0/24 and on when a given subnet covers those.
    fn free(&mut self) -> Ipv4Network {
        let blocks =
            [[10, 0], [172, 29]].into_iter().flat_map(|[a, b]| (2..=255).map(move |n| Ipv4Addr::new(a, b, n, 0)));
        let mut candidates = blocks.filter_map(|address| Ipv4Network::new(address, 24).ok());
        let free = candidates.find(|candidate| !self.taken.iter().any(|taken| taken.overlaps(*candidate)));
        self.taken.extend(free);
        free.unwrap_or(FIRST)
    }

    /// fd10:0:2::/120, fd10:0:3::/120 and on; fd7a:0:2::/120 and on when a given subnet covers those.
    fn free6(&mut self) -> Ipv6Network {
        let blocks =
            [0xfd10, 0xfd7a].into_iter().flat_map(|a| (2..=255).map(move |n| Ipv6Addr::new(a, 0, n, 0, 0, 0, 0, 0)));
        let mut candidates = blocks.filter_map(|address| Ipv6Network::new(address, 120).ok());
        let free = candidates.find(|candidate| !self.taken6.iter().any(|taken| taken.overlaps(*candidate)));
        self.taken6.extend(free);
        free.unwrap_or(FIRST6)
    }
}

// Never reached: 16 NICs at most, one given subnet, which covers at most one of two blocks of 254. Were it reached, the
// wiring request would refuse the overlap by name.
const FIRST: Ipv4Network = Ipv4Network::new_checked(Ipv4Addr::new(10, 0, 2, 0), 24).unwrap();
const FIRST6: Ipv6Network = Ipv6Network::new_checked(Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 0), 120).unwrap();

fn given(network: &Network) -> (Option<Ipv4Network>, Option<Ipv6Network>) {
    match network {
        Network::Pod { cidr, cidr6 } => (*cidr, *cidr6),
        Network::Multus { .. } => (None, None),
    }
}
