//! A VirtualMachineInstance becomes a machine, a wiring request and a list of networks.
//!
//! Everything that is chosen here is derived from the object's identity, so the same object gives the same result:
//! MAC addresses and UUID survive a restart with no file to remember them.

mod claims;
mod data;
mod disks;
mod identity;
mod images;
mod nics;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use terms::IfName;
use wiring::{Owner, Request};

pub use claims::{Claim, ClaimPlace, claims};
pub use data::{Data, DataSource};
pub use disks::{HostFile, secret_names};
pub use images::{ContainerImage, ImageFiles, ImageUse, container_images};
pub use nics::{NetworkSource, NetworkUse};

use crate::kubevirt::{Propagation, VirtualMachineInstance};
use machine::{AgentUse, Boot, Emulation, EngineDemand, Machine};

/// What a translation needs in addition to the object: it differs between a cluster and one machine.
#[derive(Debug)]
pub struct TranslateContext<'a> {
    /// How the data of Secrets and ConfigMaps reach the guest.
    pub data: DataSource<'a>,
    /// The files of the images that [`container_images`] lists.
    pub images: &'a ImageFiles,
    /// Where the claims that [`claims`] lists are, by volume; `None` where there are none, on one machine.
    pub claims: Option<&'a BTreeMap<String, ClaimPlace>>,
    /// Who may open the taps.
    pub owner: Owner,
    /// Which engine may run it.
    pub emulation: Emulation,
    /// Which engine is demanded, instead of what the instance's annotation says.
    pub engine: Option<EngineDemand>,
    /// The name of the pod's first interface.
    pub primary_interface: IfName,
    /// UID of the VM in a cluster, which MAC addresses are derived from; without one they derive from namespace and name.
    pub vm_uid: Option<&'a str>,
    /// The plugins that join NICs.
    pub bindings: BindingPlugins<'a>,
    /// Whether a service mesh's proxy shares the pod when the annotation `sidecar.istio.io/inject` asks for one.
    pub has_mesh_sidecar: bool,
}

/// The plugins that join NICs, as far as they are known.
#[derive(Debug, Clone, Copy)]
pub enum BindingPlugins<'a> {
    /// There are none on one machine.
    None,
    /// The cluster's KubeVirt object says it, which is not known here: any may be one.
    Unknown,
    /// Those of the KubeVirt object, by their names.
    Known(&'a BTreeMap<String, BindingPlugin>),
}

/// How a plugin of a cluster joins a NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingPlugin {
    /// As a bridge does, and the guest's addresses are the network's affair (`domainAttachmentType: managedTap`).
    ManagedTap,
    /// By what there is not here: the reason.
    NotSupported(String),
}

/// A machine, its wiring, and the networks to plug the pod into first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Translation {
    /// The machine to run.
    pub machine: Machine,
    /// The network it is to find in its namespace.
    pub wiring: Request,
    /// Networks in the order in which Multus attaches them: the primary, then the others as listed.
    pub networks: Vec<NetworkUse>,
    /// Disk images to make on the host where they are not there yet.
    pub host_files: Vec<HostFile>,
}

/// Why an object that obeys every rule still gives no machine here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TranslateError {
    /// A Secret was not given.
    #[error("{path}: there is no Secret {secret} in the same manifest")]
    NoSecret {
        /// Where the object refers to it.
        path: String,
        /// Namespace and name of the Secret.
        secret: String,
    },
    /// A ConfigMap was not given.
    #[error("{path}: there is no ConfigMap {config_map} in the same manifest")]
    NoConfigMap {
        /// The volume.
        path: String,
        /// Namespace and name of the ConfigMap.
        config_map: String,
    },
    /// There are no such objects on one machine.
    #[error("{path}: {what} exist only in a cluster")]
    ClusterAlone {
        /// The volume.
        path: String,
        /// What there is not.
        what: &'static str,
    },
    /// The Secret lacks the data.
    #[error("{path}: Secret {secret} has nothing under {key}")]
    SecretContent {
        /// Where the object refers to it.
        path: String,
        /// Namespace and name of the Secret.
        secret: String,
        /// The key.
        key: &'static str,
    },
    /// There are no claims on one machine.
    #[error("{0}: there are PersistentVolumeClaims in a cluster alone: use a hostDisk here")]
    NoClaims(String),
    /// A claim's place was not given.
    #[error("{0}: it is not known where its claim is")]
    NoClaim(String),
    /// An image's file was not given.
    #[error("{0}: the file of its container image is not known")]
    NoImageFile(String),
    /// An interface names a plugin that joins none here.
    #[error("{path}: {reason}")]
    Plugin {
        /// The field with its name.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The wiring request would break a rule.
    #[error("the wiring request is refused")]
    Wiring(#[source] wiring::RequestError),
}

/// The networks of an instance alone, in the order of [`Translation::networks`].
#[must_use]
pub fn networks(instance: &VirtualMachineInstance, context: &TranslateContext<'_>) -> Vec<NetworkUse> {
    nics::plan(instance, context).networks
}

/// Makes machine, wiring request and networks of an instance.
///
/// # Errors
/// All that is missing: Secrets, their keys, image files. A wiring request that breaks a rule is a defect of this crate.
pub fn translate(
    instance: &VirtualMachineInstance,
    context: &TranslateContext<'_>,
) -> Result<Translation, Vec<TranslateError>> {
    let mut errors = Vec::new();
    let nics = nics::plan(instance, context);
    errors.extend(nics::unknown_plugins(instance, context));
    let wiring = Request::new(context.owner, nics.interfaces);
    let wiring = wiring.map_err(|error| errors.push(TranslateError::Wiring(error))).ok();
    let disks = disks::translate(instance, context, &mut errors);
    let agent = agent(instance, context, &mut errors);
    let boot = boot(instance, context.images).map_err(|error| errors.push(error)).ok();
    let (Some(wiring), Some(boot), []) = (wiring, boot, errors.as_slice()) else { return Err(errors) };
    let (spec, key) = (&instance.spec, &instance.metadata.key);
    let machine = Machine {
        namespace: key.namespace().to_owned(),
        name: key.name().to_owned(),
        uuid: spec.firmware.uuid.clone().unwrap_or_else(|| identity::uuid(key)),
        serial_number: spec.firmware.serial.clone(),
        hostname: instance.hostname(),
        subdomain: spec.subdomain.clone(),
        cpu: spec.cpu,
        memory_bytes: spec.memory_bytes,
        hugepage_bytes: spec.hugepage_bytes,
        boot,
        disks,
        nics: nics.nics,
        acpi: !spec.firmware.without_acpi,
        serial_console: spec.serial_console,
        graphics: spec.graphics,
        rng: spec.rng,
        watchdog: spec.watchdog,
        agent,
        reboot_policy: spec.reboot_policy,
        start_paused: spec.start_paused,
        grace_period_seconds: spec.grace_period_seconds,
        emulation: context.emulation,
        engine: context.engine.unwrap_or(spec.engine),
    };
    Ok(Translation { machine, wiring, networks: nics.networks, host_files: disks::host_files(instance) })
}

/// What the machine needs the guest's agent for.
fn agent(
    instance: &VirtualMachineInstance,
    context: &TranslateContext<'_>,
    errors: &mut Vec<TranslateError>,
) -> AgentUse {
    let probes = [&instance.spec.readiness_probe, &instance.spec.liveness_probe];
    let probes = probes.into_iter().flatten().any(|probe| probe.action.is_by_agent());
    let (namespace, access) = (instance.metadata.key.namespace(), &instance.spec.access);
    let mut files = |secret: &str, path: &str| {
        context.data.secret_files(namespace, secret, path).map_err(|error| errors.push(error)).ok()
    };
    let by_agent = access.ssh_keys.iter().filter(|keys| keys.propagation == Propagation::Agent);
    let ssh_keys = by_agent.filter_map(|keys| {
        Some(machine::SshKeys { users: keys.users.clone(), files: files(&keys.secret, &keys.path)? })
    });
    let ssh_keys = ssh_keys.collect();
    let passwords = access.passwords.iter().filter_map(|passwords| files(&passwords.secret, &passwords.path)).collect();
    AgentUse { probes, ssh_keys, passwords }
}

fn boot(instance: &VirtualMachineInstance, images: &ImageFiles) -> Result<Boot, TranslateError> {
    let Some(kernel_boot) = &instance.spec.firmware.kernel_boot else { return Ok(Boot::Bios) };
    let missing = |what: &str| TranslateError::NoImageFile(format!("kernelBoot, {what}"));
    let initrd = match kernel_boot.container.initrd_path {
        Some(_) => Some(images.initrd.clone().ok_or_else(|| missing("initrdPath"))?),
        None => None,
    };
    let kernel = images.kernel.clone().ok_or_else(|| missing("kernelPath"))?;
    Ok(Boot::Kernel { kernel, initrd, command_line: kernel_boot.kernel_args.clone() })
}

#[cfg(test)]
mod tests;
