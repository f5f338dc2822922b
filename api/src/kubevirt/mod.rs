//! VirtualMachine and VirtualMachineInstance of kubevirt.io/v1, as far as they are implemented.
//!
//! Types here hold what validation has joined: a NIC has its network, a disk its volume, a probe its port's number.

mod access;
mod boot_order;
mod compute;
mod disk;
mod dns;
mod engine;
mod files;
mod firmware;
mod interface;
mod network;
mod nic;
mod pci;
mod probe;
mod spec;
mod texts;
mod volume;

pub use access::{Access, Passwords, Propagation, SshKeys};
pub use compute::{ResourceAmounts, Resources};
pub use disk::{Disk, DiskDevice};
pub use dns::{DnsConfig, DnsPolicy};
pub use files::{DownwardField, DownwardFile, FileObject, FileSource};
pub use firmware::{Firmware, KernelBoot, KernelBootContainer};
pub use interface::Port;
pub use network::Network;
pub use nic::Nic;
pub use probe::{Probe, ProbeAction, Scheme};
pub use spec::{EvictionStrategy, Spec};
pub(crate) use texts::is_port_name;
pub use volume::{CloudInit, CloudInitData, ImagePullPolicy, Volume};

use sha2::{Digest, Sha256};

use crate::encoding::hex;
use crate::metadata::{self, Labels, Metadata};
use crate::reader::{Fields, Scope};
use crate::run_strategy::RunStrategy;

/// A virtual machine that exists whether it runs or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualMachine {
    /// Identity, labels and annotations.
    pub metadata: Metadata,
    /// When it runs.
    pub run_strategy: RunStrategy,
    /// Labels of its instances.
    pub instance_labels: Labels,
    /// Annotations of its instances.
    pub instance_annotations: Labels,
    /// What its instances are.
    pub instance_spec: Spec,
}

/// A virtual machine that runs once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualMachineInstance {
    /// Identity, labels and annotations.
    pub metadata: Metadata,
    /// What it is.
    pub spec: Spec,
}

const RUN_STRATEGIES: &[(&str, RunStrategy)] = &[
    ("Always", RunStrategy::Always),
    ("RerunOnFailure", RunStrategy::RerunOnFailure),
    ("Once", RunStrategy::Once),
    ("Manual", RunStrategy::Manual),
    ("Halted", RunStrategy::Halted),
];

impl VirtualMachine {
    pub(crate) fn read(object: &Fields<'_>) -> Option<Self> {
        let metadata = metadata::read(object);
        object.ignored(Scope::Everywhere, "the controller writes it", &["status"]);
        let (run_strategy, (instance_labels, instance_annotations, instance_spec)) =
            object.required("spec")?.fields(|spec| {
                spec.unsupported(&["dataVolumeTemplates", "instancetype", "preference"]);
                spec.ignored(Scope::Everywhere, "volumes cannot be changed while it runs", &["updateVolumesStrategy"]);
                let (run_strategy, template) = (read_run_strategy(spec), read_template(spec));
                Some((run_strategy?, template?))
            })??;
        let metadata = metadata?;
        disk::warn_of_formats(object, &metadata.annotations);
        engine::warn(object, &metadata.annotations);
        Some(Self { metadata, run_strategy, instance_labels, instance_annotations, instance_spec })
    }

    /// The instance that this machine runs as.
    #[must_use]
    pub fn instance(&self) -> VirtualMachineInstance {
        let metadata = Metadata {
            key: self.metadata.key.clone(),
            labels: self.instance_labels.clone(),
            annotations: self.instance_annotations.clone(),
        };
        VirtualMachineInstance { metadata, spec: self.instance_spec.clone() }
    }
}

fn read_run_strategy(spec: &Fields<'_>) -> Option<RunStrategy> {
    let (running, strategy) = (spec.field("running"), spec.set("runStrategy"));
    if let (Some(running), Some(_)) = (&running, &strategy) {
        running.refuse("excludes runStrategy, which replaces it");
        return None;
    }
    if let Some(running) = running {
        return Some(if running.boolean()? { RunStrategy::Always } else { RunStrategy::Halted });
    }
    match strategy {
        Some(node) => node.one_of(RUN_STRATEGIES, &["WaitAsReceiver"]),
        // KubeVirt has no default either: a manifest without one was cut short.
        None => {
            spec.node().named("runStrategy").refuse("is required, or running");
            None
        }
    }
}

fn read_template(spec: &Fields<'_>) -> Option<(Labels, Labels, Spec)> {
    spec.required("template")?.fields(|template| {
        let (labels, annotations) = metadata::read_template(template);
        let mut spec = template.required("spec")?.fields(spec::read)??;
        disk::read_formats(template, &annotations, &mut spec.disks);
        spec.engine = engine::read(template, &annotations);
        Some((labels, annotations, spec))
    })?
}

impl VirtualMachineInstance {
    pub(crate) fn read(object: &Fields<'_>) -> Option<Self> {
        let metadata = metadata::read(object);
        object.field("metadata").iter().for_each(metadata::warn_of_changing);
        object.ignored(Scope::Everywhere, "the controller writes it", &["status"]);
        let spec = object.required("spec")?.fields(spec::read)?;
        let (metadata, mut spec) = (metadata?, spec?);
        disk::read_formats(object, &metadata.annotations, &mut spec.disks);
        spec.engine = engine::read(object, &metadata.annotations);
        Some(Self { metadata, spec })
    }

    /// The guest's host name: as specified, else the object's name up to its first dot, at most 63 characters.
    #[must_use]
    pub fn hostname(&self) -> String {
        let from_name = || {
            let first = self.metadata.key.name().split('.').next().unwrap_or_default();
            first.chars().take(63).collect::<String>().trim_end_matches('-').to_owned()
        };
        self.spec.hostname.clone().unwrap_or_else(from_name)
    }

    /// The labels of the pod or local machine that runs it, which Services select by.
    #[must_use]
    pub fn pod_labels(&self) -> Labels {
        let mut labels = self.metadata.labels.clone();
        labels.insert("kubevirt.io".to_owned(), "virt-launcher".to_owned());
        labels.insert("vmi.kubevirt.io/id".to_owned(), self.label_id());
        labels.insert("vm.kubevirt.io/name".to_owned(), self.hostname());
        // Manifests often set this one themselves.
        labels.entry("kubevirt.io/domain".to_owned()).or_insert_with(|| self.label_id());
        labels
    }

    /// The object's name where it fits a label, else its start and a hash.
    fn label_id(&self) -> String {
        let name = self.metadata.key.name();
        if name.len() <= 63 {
            return name.to_owned();
        }
        let hash = hex(&Sha256::digest(name)[..4]);
        let start: String = name.chars().take(54).collect();
        format!("{start}-{hash}")
    }
}
