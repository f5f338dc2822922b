//! From the objects of a manifest to everything that is needed to start their VMs, before anything is touched.

use std::path::Path;

use api::attachment::NetworkAttachmentDefinition;
use api::kubevirt::{Probe, ProbeAction, Scheme, VirtualMachineInstance};
use api::manifest::{Body, Object};
use api::run_strategy::RunStrategy;
use api::translate::{
    HostFile, ImageFiles, NetworkSource, NetworkUse, Secrets, Surroundings, TranslateError, Translation, translate,
};
use cni::runtime::ConfigList;
use machine::{Disk, DiskSource, Emulation};
use protocol::launch_file::LaunchFile;
use serde_json::Value;
use terms::{IfName, NetworkName, ObjectKey};
use wiring::Owner;

use super::container_images::files_of;
use super::launch::LAUNCHER_USER;
use super::network::{BINDING_KEY, ChoiceError, Choices, DEFAULT_NETWORK, MissingPlugin, PluginFolders, binding};
use super::record::{Attachment, Attachments, Kind};
use super::store::MOST_KEY_BYTES;
use block::DiskError;

/// A VM that is ready to be started.
#[derive(Debug, Clone)]
pub struct VmPlan {
    /// Its name.
    pub key: ObjectKey,
    /// What asked for it.
    pub kind: Kind,
    /// What happens when it ends.
    pub strategy: RunStrategy,
    /// The object as it was written.
    pub object: Value,
    /// What the launcher reads.
    pub launch: LaunchFile,
    /// Its networks.
    pub attachments: Attachments,
    /// The network its pod interface is on.
    pub network: Option<NetworkName>,
    /// Disk images to make where there are none.
    pub host_files: Vec<HostFile>,
}

impl VmPlan {
    /// Whether it is on the built-in network.
    #[must_use]
    pub fn is_on_built_in_network(&self) -> bool {
        self.network.as_ref().is_some_and(|network| network.as_str() == DEFAULT_NETWORK)
    }
}

/// Why an object cannot be run here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No folder can be called after it.
    #[error("{key}: metadata.name: has {bytes} bytes, at most {most} are possible in namespace {namespace}", bytes = key.name().len(),
        most = MOST_KEY_BYTES - key.namespace().len(), namespace = key.namespace())]
    LongName {
        /// Its name.
        key: ObjectKey,
    },
    /// The instance gives no machine.
    #[error("{key}")]
    Translate {
        /// Whose.
        key: ObjectKey,
        /// Why.
        #[source]
        source: TranslateError,
    },
    /// An image's files cannot be had.
    #[error("{key}: {reason}")]
    Image {
        /// Whose.
        key: ObjectKey,
        /// Which image, and why.
        reason: String,
    },
    /// A probe that is read and not asked here.
    #[error("{key}: {spec}.{probe}.httpGet.scheme: HTTPS is not supported by `tapvisor run`; tcpSocket is")]
    HttpsProbe {
        /// Whose.
        key: ObjectKey,
        /// The path of its instance's specification.
        spec: &'static str,
        /// Which probe.
        probe: &'static str,
    },
    /// A disk's image is not there, or none.
    #[error("{key}")]
    Disk {
        /// Whose.
        key: ObjectKey,
        /// Why.
        #[source]
        source: Box<DiskError>,
    },
    /// A network's configuration.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// A plugin the host lacks.
    #[error(transparent)]
    Plugin(#[from] MissingPlugin),
}

impl PlanError {
    /// Whether the host lacks something, rather than the manifest being wrong.
    #[must_use]
    pub fn is_hosts(&self) -> bool {
        matches!(self, Self::Plugin(_))
    }
}

/// What VMs are planned with.
#[derive(Debug)]
pub struct Planner<'a> {
    /// Networks to choose from.
    pub choices: &'a Choices,
    /// Plugins.
    pub folders: &'a PluginFolders,
    /// Where images are.
    pub image_folder: &'a Path,
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

/// Every image but those that are still to be made must be there and hold a disk.
fn expect_disks(key: &ObjectKey, launch: &LaunchFile, host_files: &[HostFile]) -> Result<(), Vec<PlanError>> {
    let is_to_be_made = |disk: &&Disk| {
        let DiskSource::File { path } = &disk.source else { return false };
        host_files.iter().any(|file| file.path == *path) && !path.exists()
    };
    let disks = launch.machine.disks.iter().filter(|disk| !is_to_be_made(disk));
    let errors = disks.filter_map(|disk| block::examine(disk).err());
    let errors: Vec<_> = errors.map(|source| PlanError::Disk { key: key.clone(), source: Box::new(source) }).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// NetworkAttachmentDefinitions of a manifest.
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
        let secrets: Secrets = objects.iter().filter_map(secret).collect();
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
            match self.vm(vm, &object.source, &secrets) {
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
        secrets: &Secrets,
    ) -> Result<VmPlan, Vec<PlanError>> {
        let key = instance.metadata.key.clone();
        if key.namespace().len() + key.name().len() > MOST_KEY_BYTES {
            return Err(vec![PlanError::LongName { key }]);
        }
        expect_plain_probes(kind, &instance)?;
        let images = files_of(self.image_folder, &api::translate::container_images(&instance))
            .map_err(|reason| vec![PlanError::Image { key: key.clone(), reason }])?;
        let Translation { machine, wiring, networks, host_files } =
            translate(&instance, &surroundings(secrets, &images)).map_err(|errors| {
                errors.into_iter().map(|source| PlanError::Translate { key: key.clone(), source }).collect::<Vec<_>>()
            })?;
        let launch = LaunchFile::new(machine, wiring);
        expect_disks(&key, &launch, &host_files)?;
        let mut attachments = self.attachments(&networks, &launch)?;
        attachments.annotations = instance
            .metadata
            .annotations
            .iter()
            .map(|(name, value)| (name.clone(), Value::String(value.clone())))
            .collect();
        let network = attachments.list.first().filter(|_| !networks.is_empty());
        let network = network.and_then(|first| first.network().parse().ok());
        Ok(VmPlan { key, kind, strategy, object: object.clone(), launch, attachments, network, host_files })
    }

    /// The networks in the order of ADD, our binding last. A VM without a NIC has neither.
    fn attachments(&self, networks: &[NetworkUse], launch: &LaunchFile) -> Result<Attachments, Vec<PlanError>> {
        let asked_for: Vec<_> = networks.iter().filter_map(|network| multus_name(&network.source)).collect();
        let (mut list, mut errors) = (Vec::new(), Vec::new());
        for network in networks {
            match self.network(&network.source, &asked_for) {
                Ok(config) => list.push(attachment(network.pod_interface.clone(), &config)),
                Err(error) => errors.push(error),
            }
        }
        if !list.is_empty() {
            match self.binding(launch) {
                Ok(binding) => list.push(binding),
                Err(error) => errors.push(error),
            }
        }
        let folders = self.folders.list();
        if errors.is_empty() { Ok(Attachments { list, folders, ..Attachments::default() }) } else { Err(errors) }
    }

    fn network(&self, source: &NetworkSource, asked_for: &[String]) -> Result<ConfigList, PlanError> {
        let list = match source {
            NetworkSource::Pod => self.choices.primary(asked_for)?,
            NetworkSource::Multus { namespace, name, .. } => self.choices.named(namespace, name)?,
        };
        self.folders.expect(&list)?;
        Ok(list)
    }

    fn binding(&self, launch: &LaunchFile) -> Result<Attachment, PlanError> {
        let list = ConfigList::from_value(binding(&launch.wiring))
            .map_err(|source| ChoiceError::Config { name: "tapvisor-binding".to_owned(), source })?;
        self.folders.expect(&list)?;
        Ok(attachment(constant(BINDING_KEY), &list))
    }
}

fn attachment(ifname: IfName, list: &ConfigList) -> Attachment {
    Attachment { ifname, config: list.to_document() }
}

fn multus_name(source: &NetworkSource) -> Option<String> {
    match source {
        NetworkSource::Pod => None,
        NetworkSource::Multus { name, .. } => Some(name.clone()),
    }
}

fn surroundings<'a>(secrets: &'a Secrets, images: &'a ImageFiles) -> Surroundings<'a> {
    Surroundings {
        secrets,
        images,
        owner: Owner { uid: LAUNCHER_USER, gid: LAUNCHER_USER },
        emulation: Emulation::Allowed,
        primary_interface: constant("eth0"),
        has_mesh_sidecar: false,
    }
}

#[expect(clippy::expect_used, reason = "constants that are valid names")]
fn constant(name: &str) -> IfName {
    name.parse().expect("a constant that is a valid interface name")
}

fn secret(object: &Object) -> Option<(ObjectKey, api::secret::Secret)> {
    match &object.body {
        Body::Secret(secret) => Some((secret.metadata.key.clone(), secret.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_probes_are_refused_by_the_path_they_stand_at() {
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
