//! From the objects of a manifest to everything that is needed to start their VMs, before anything is touched.

use api::attachment::NetworkAttachmentDefinition;
use api::kubevirt::{Probe, ProbeAction, Scheme, VirtualMachineInstance, Volume};
use api::manifest::{Body, Object};
use api::run_strategy::RunStrategy;
use api::translate::{
    Data, DataSource, HostFile, ImageFiles, NetworkSource, NetworkUse, TranslateContext, TranslateError, Translation,
    networks, translate,
};
use cni_protocol::runtime::{ConfigError, ConfigList};
use machine::{Disk, DiskSource, Emulation, EngineDemand};
use protocol::launch_file::LaunchFile;
use serde_json::Value;
use terms::{IfName, IpNetwork, NetworkName, ObjectKey};
use wiring::{Binding, Owner, Request, RequestError};

use super::container_images::files_of;
use super::layout::Layout;
use super::network::{BINDING_KEY, ChoiceError, Choices, DEFAULT_NETWORK, NetworkFault, Preflight, binding, reserved};
use super::owner::POD_OWNER;
use super::record::{Attachment, Attachments, Kind};
use super::store::MOST_KEY_BYTES;
use block::path;
use block::{DiskError, Expected};

/// A VM that is ready to be started.
#[derive(Debug, Clone)]
pub struct VmPlan {
    /// Namespace and name of the object.
    pub key: ObjectKey,
    /// Kind of the object that asked for it.
    pub kind: Kind,
    /// What happens when it ends.
    pub strategy: RunStrategy,
    /// The object as it was written.
    pub object: Value,
    /// Machine and wiring, as the launcher reads them.
    pub launch: LaunchFile,
    /// The configuration list of each of its networks, in the order of ADD.
    pub attachments: Attachments,
    /// The network its pod interface is on.
    pub network: Option<NetworkName>,
    /// Disk images to make where there are none.
    pub host_files: Vec<HostFile>,
    /// What the user should know of its disks.
    pub warnings: Vec<String>,
}

impl VmPlan {
    /// Whether it is on the built-in network.
    #[must_use]
    pub fn is_on_built_in_network(&self) -> bool {
        self.network.as_ref().is_some_and(|network| network.as_str() == DEFAULT_NETWORK)
    }

    /// The same VM as another user: in what the launcher reads, and in the configuration that our plugin is called with.
    ///
    /// # Errors
    /// When the request or the configuration cannot be put together with this user.
    pub(crate) fn owned_by(&self, owner: Owner) -> Result<Self, OwnedError> {
        let mut plan = self.clone();
        plan.launch.wiring = Request::new(owner, self.launch.wiring.interfaces().to_vec())?;
        let list = ConfigList::from_value(binding(&plan.launch.wiring)).map_err(Box::new)?;
        let is_ours = |attachment: &&mut Attachment| attachment.ifname.as_str() == BINDING_KEY;
        for ours in plan.attachments.list.iter_mut().filter(is_ours) {
            ours.config = list.to_document();
        }
        Ok(plan)
    }
}

/// Why a plan cannot be given another user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnedError {
    /// The wiring request breaks a rule with this user.
    #[error("wiring.{0}")]
    Request(#[from] RequestError),
    /// The configuration of our plugin.
    #[error(transparent)]
    Config(#[from] Box<ConfigError>),
}

/// Why an object cannot be run here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No folder can be called after it.
    #[error("{key}: metadata.name: has {bytes} bytes, at most {most} are possible in namespace {namespace}", bytes = key.name().len(),
        most = MOST_KEY_BYTES - key.namespace().len(), namespace = key.namespace())]
    LongName {
        /// Namespace and name of the VM.
        key: ObjectKey,
    },
    /// The instance gives no machine.
    #[error("{key}")]
    Translate {
        /// The VM that is refused.
        key: ObjectKey,
        /// What is wrong with the instance's fields.
        #[source]
        source: TranslateError,
    },
    /// An image's files cannot be had.
    #[error("{key}: {reason}")]
    Image {
        /// The VM that is refused.
        key: ObjectKey,
        /// The image and what is wrong with it, as text.
        reason: String,
    },
    /// A probe that is read and not asked here.
    #[error("{key}: {spec}.{probe}.httpGet.scheme: HTTPS is not supported by `tapvisor run`; tcpSocket is")]
    HttpsProbe {
        /// The VM that is refused.
        key: ObjectKey,
        /// The path of its instance's specification.
        spec: &'static str,
        /// `readinessProbe` or `livenessProbe`.
        probe: &'static str,
    },
    /// A disk's image is not there, or none.
    #[error("{key}")]
    Disk {
        /// The VM that is refused.
        key: ObjectKey,
        /// The disk and what is wrong with its image.
        #[source]
        source: Box<DiskError>,
    },
    /// A guest's subnet that hides addresses it is to reach.
    #[error(
        "{key}: interface {interface}: the guest's subnet {subnet} contains {what}: choose another by vmNetworkCIDR"
    )]
    Subnet {
        /// The VM that is refused.
        key: ObjectKey,
        /// Name of the interface in the manifest.
        interface: String,
        /// The subnet between tap and guest.
        subnet: IpNetwork,
        /// What in it the guest could then not reach, as text.
        what: String,
    },
    /// A network has no usable configuration.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// A network's configuration cannot work on this host.
    #[error(transparent)]
    Network(#[from] NetworkFault),
}

impl PlanError {
    /// Whether the host lacks something, rather than the manifest being wrong.
    #[must_use]
    pub fn is_hosts(&self) -> bool {
        matches!(self, Self::Network(fault) if fault.is_hosts())
    }
}

/// What VMs are planned with.
#[derive(Debug)]
pub struct Planner<'a> {
    /// Networks by name, and the primary one.
    pub choices: &'a Choices,
    /// What networks are checked against.
    pub preflight: &'a Preflight<'a>,
    /// The folders of this host, for container images.
    pub layout: &'a Layout,
    /// Which engine is demanded, instead of what annotations say.
    pub engine: Option<EngineDemand>,
}

fn expect_plain_probes(kind: Kind, instance: &VirtualMachineInstance) -> Result<(), Vec<PlanError>> {
    let probes = [("readinessProbe", &instance.spec.readiness_probe), ("livenessProbe", &instance.spec.liveness_probe)];
    let is_https = |probe: &Probe| matches!(probe.action, ProbeAction::HttpGet { scheme: Scheme::Https, .. });
    let refused = probes.into_iter().filter(|(_, probe)| probe.as_ref().is_some_and(is_https));
    let spec = match kind {
        Kind::VirtualMachine => "spec.template.spec",
        Kind::VirtualMachineInstance => "spec",
    };
    let key = &instance.metadata.key;
    let refused: Vec<_> = refused.map(|(probe, _)| PlanError::HttpsProbe { key: key.clone(), spec, probe }).collect();
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

/// Every image but those that are still to be made must be there and hold a disk. Returns warnings.
fn expect_disks(
    layout: &Layout,
    instance: &VirtualMachineInstance,
    launch: &LaunchFile,
    host_files: &[HostFile],
) -> Result<Vec<String>, Vec<PlanError>> {
    let own = layout.own_folders();
    let is_to_be_made = |disk: &&Disk| {
        let DiskSource::File { path, .. } = &disk.source else { return false };
        host_files.iter().any(|file| file.path == *path) && matches!(path::examine(path, &own), Ok(None))
    };
    let is_format_given = |name: &str| {
        instance
            .spec
            .disks
            .iter()
            .any(|disk| disk.name == name && matches!(disk.volume, Volume::HostDisk { is_format_given: true, .. }))
    };
    let (mut warnings, mut errors) = (Vec::new(), Vec::new());
    for disk in launch.machine.disks.iter().filter(|disk| !is_to_be_made(disk)) {
        let expected = Expected { own: &own, is_format_given: is_format_given(&disk.name) };
        match block::examine(disk, &expected) {
            Ok(warning) => warnings.extend(warning),
            Err(source) => {
                let key = instance.metadata.key.clone();
                errors.push(PlanError::Disk { key, source: Box::new(source) });
            }
        }
    }
    if errors.is_empty() { Ok(warnings) } else { Err(errors) }
}

/// Subnets behind masquerade that meet Services' addresses: the guest would look for those on its own link.
fn reserved_subnets(key: &ObjectKey, launch: &LaunchFile) -> Vec<PlanError> {
    let masqueraded = launch.wiring.interfaces().iter().filter(|interface| interface.binding == Binding::Masquerade);
    let subnets = masqueraded.flat_map(|interface| {
        [interface.subnet().into(), interface.subnet6().into()]
            .map(|subnet: IpNetwork| (interface.name.clone(), subnet))
    });
    let error = |(interface, subnet): (String, IpNetwork)| {
        reserved(subnet).map(|what| PlanError::Subnet { key: key.clone(), interface, subnet, what })
    };
    subnets.filter_map(error).collect()
}

/// The NetworkAttachmentDefinitions among a manifest's objects.
#[must_use]
pub fn definitions(objects: &[Object]) -> Vec<NetworkAttachmentDefinition> {
    let definition = |object: &Object| match &object.body {
        Body::NetworkAttachmentDefinition(definition) => Some(definition.clone()),
        _ => None,
    };
    objects.iter().filter_map(definition).collect()
}

impl Planner<'_> {
    /// Plans every VM of a manifest.
    ///
    /// # Errors
    /// All that is wrong with any of them, and objects that would have no effect.
    pub fn plan(&self, objects: &[Object]) -> Result<Vec<VmPlan>, Vec<PlanError>> {
        let data = Data::of(objects);
        let (mut plans, mut errors) = (Vec::new(), Vec::new());
        for object in objects {
            let vm = match &object.body {
                Body::VirtualMachine(vm) => (Kind::VirtualMachine, vm.run_strategy, vm.instance()),
                Body::VirtualMachineInstance(vmi) => {
                    (Kind::VirtualMachineInstance, RunStrategy::Once, VirtualMachineInstance::clone(vmi))
                }
                // They serve the VMs of the same manifest, or others.
                Body::Service(_) | Body::NetworkAttachmentDefinition(_) | Body::Secret(_) | Body::ConfigMap(_) => {
                    continue;
                }
            };
            match self.vm(vm, &object.source, &data) {
                Ok(plan) => plans.push(plan),
                Err(found) => errors.extend(found),
            }
        }
        if errors.is_empty() { Ok(plans) } else { Err(errors) }
    }

    fn vm(
        &self,
        (kind, strategy, instance): (Kind, RunStrategy, VirtualMachineInstance),
        object: &Value,
        data: &Data,
    ) -> Result<VmPlan, Vec<PlanError>> {
        let key = instance.metadata.key.clone();
        if key.namespace().len() + key.name().len() > MOST_KEY_BYTES {
            return Err(vec![PlanError::LongName { key }]);
        }
        let mut errors = expect_plain_probes(kind, &instance).err().unwrap_or_default();
        let images = self.images(&instance).map_err(|found| errors.extend(found)).ok();
        let (lacks_images, images) = (images.is_none(), images.unwrap_or_default());
        let context = context(data, &images, self.engine);
        let list = self.networks(&networks(&instance, &context)).map_err(|found| errors.extend(found)).ok();
        let translated = translate(&instance, &context).map_err(|found| {
            // Of an image that is not there, that was said.
            let found = found.into_iter().filter(|one| !lacks_images || !matches!(one, TranslateError::NoImageFile(_)));
            errors.extend(found.map(|source| PlanError::Translate { key: key.clone(), source }));
        });
        let (Ok(Translation { machine, wiring, networks, host_files }), Some(list)) = (translated, list) else {
            return Err(errors);
        };
        let launch = LaunchFile::new(machine, wiring);
        errors.extend(reserved_subnets(&key, &launch));
        let warnings = expect_disks(self.layout, &instance, &launch, &host_files)
            .map_err(|found| errors.extend(found))
            .unwrap_or_default();
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut attachments = self.attachments(list, &launch)?;
        attachments.annotations = instance
            .metadata
            .annotations
            .iter()
            .map(|(name, value)| (name.clone(), Value::String(value.clone())))
            .collect();
        let network = attachments.list.first().filter(|_| !networks.is_empty());
        let network = network.and_then(|first| first.network().parse().ok());
        Ok(VmPlan { key, kind, strategy, object: object.clone(), launch, attachments, network, host_files, warnings })
    }

    /// What a manifest with wrong fields refers to outside itself, to be named with those fields.
    #[must_use]
    pub fn look_up(&self, objects: &[Object]) -> Vec<PlanError> {
        let nothing = Data::default();
        let of_vm = |instance: &VirtualMachineInstance| {
            let images = self.images(instance).err().unwrap_or_default();
            let uses = networks(instance, &context(&nothing, &ImageFiles::default(), self.engine));
            images.into_iter().chain(self.networks(&uses).err().unwrap_or_default()).collect::<Vec<_>>()
        };
        let of_object = |object: &Object| match &object.body {
            Body::VirtualMachine(vm) => of_vm(&vm.instance()),
            Body::VirtualMachineInstance(vmi) => of_vm(vmi),
            _ => Vec::new(),
        };
        objects.iter().flat_map(of_object).collect()
    }

    fn images(&self, instance: &VirtualMachineInstance) -> Result<ImageFiles, Vec<PlanError>> {
        let found = files_of(self.layout, &api::translate::container_images(instance));
        let named = |reason| PlanError::Image { key: instance.metadata.key.clone(), reason };
        found.map_err(|reasons| reasons.into_iter().map(named).collect())
    }

    /// The networks in the order of ADD.
    fn networks(&self, uses: &[NetworkUse]) -> Result<Vec<Attachment>, Vec<PlanError>> {
        let asked_for: Vec<_> = uses.iter().filter_map(|network| multus_name(&network.source)).collect();
        let (mut list, mut errors) = (Vec::new(), Vec::new());
        for network in uses {
            match self.network(&network.source, &asked_for) {
                Ok(config) => list.push(Attachment {
                    ifname: network.pod_interface.clone(),
                    interface: Some(network.name.clone()),
                    config: config.to_document(),
                }),
                Err(found) => errors.extend(found),
            }
        }
        if errors.is_empty() { Ok(list) } else { Err(errors) }
    }

    /// The same with our binding last. A VM without a NIC has neither.
    fn attachments(&self, mut list: Vec<Attachment>, launch: &LaunchFile) -> Result<Attachments, Vec<PlanError>> {
        if !list.is_empty() {
            list.push(self.binding(launch)?);
        }
        Ok(Attachments { list, folders: self.preflight.folders(), ..Attachments::default() })
    }

    fn network(&self, source: &NetworkSource, asked_for: &[String]) -> Result<ConfigList, Vec<PlanError>> {
        let list = match source {
            NetworkSource::Pod => self.choices.primary(asked_for),
            NetworkSource::Multus { namespace, name, .. } => self.choices.named(namespace, name),
        };
        let list = list.map_err(|error| vec![error.into()])?;
        self.expect(&list)?;
        Ok(list)
    }

    fn expect(&self, list: &ConfigList) -> Result<(), Vec<PlanError>> {
        self.preflight.expect(list).map_err(|faults| faults.into_iter().map(PlanError::from).collect())
    }

    fn binding(&self, launch: &LaunchFile) -> Result<Attachment, Vec<PlanError>> {
        let list = ConfigList::from_value(binding(&launch.wiring))
            .map_err(|source| ChoiceError::Config { name: "tapvisor-binding".to_owned(), source })
            .map_err(|error| vec![error.into()])?;
        self.expect(&list)?;
        Ok(Attachment { ifname: constant(BINDING_KEY), interface: None, config: list.to_document() })
    }
}

fn multus_name(source: &NetworkSource) -> Option<String> {
    match source {
        NetworkSource::Pod => None,
        NetworkSource::Multus { name, .. } => Some(name.clone()),
    }
}

fn context<'a>(data: &'a Data, images: &'a ImageFiles, engine: Option<EngineDemand>) -> TranslateContext<'a> {
    TranslateContext {
        data: DataSource::Read(data),
        images,
        claims: None,
        // Each VM's own is known once it is written down: see `VmPlan::owned_by`.
        owner: POD_OWNER,
        emulation: Emulation::Allowed,
        engine,
        primary_interface: constant("eth0"),
        vm_uid: None,
        bindings: api::translate::BindingPlugins::None,
        has_mesh_sidecar: false,
    }
}

#[expect(clippy::expect_used, reason = "constants that are valid names")]
fn constant(name: &str) -> IfName {
    name.parse().expect("a constant that is a valid interface name")
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: SVC-14
    #[test]
    fn https_probes_are_refused_by_their_path() {
        let probe = "readinessProbe: {httpGet: {scheme: HTTPS, port: 443}}";
        let spec = format!("{{{probe}, domain: {{memory: {{guest: 64Mi}}, devices: {{}}}}}}");
        let object = |kind: &str, spec: &str| {
            let text = format!("{{apiVersion: kubevirt.io/v1, kind: {kind}, metadata: {{name: web}}, spec: {spec}}}");
            api::manifest::parse(&text, "test").unwrap().remove(0).body
        };
        let vm = match object("VirtualMachine", &format!("{{runStrategy: Always, template: {{spec: {spec}}}}}")) {
            Body::VirtualMachine(vm) => vm.instance(),
            other => panic!("{other:?}"),
        };
        let vmi = match object("VirtualMachineInstance", &spec) {
            Body::VirtualMachineInstance(vmi) => VirtualMachineInstance::clone(&vmi),
            other => panic!("{other:?}"),
        };
        for (kind, instance, path) in [
            (Kind::VirtualMachine, vm, "spec.template.spec.readinessProbe.httpGet.scheme"),
            (Kind::VirtualMachineInstance, vmi, "spec.readinessProbe.httpGet.scheme"),
        ] {
            let complaints = expect_plain_probes(kind, &instance).unwrap_err();
            assert!(complaints[0].to_string().starts_with(&format!("default/web: {path}: HTTPS")), "{complaints:?}");
        }
    }
}
