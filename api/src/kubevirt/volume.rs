//! Volumes: where a disk's content comes from.

use std::path::PathBuf;

use terms::ObjectKey;

use super::files::{self, FileSource};
use super::texts::read_path;
use crate::quantity::Quantity;
use crate::reader::{Fields, Node, Scope};
use machine::DiskFormat;

/// Where a disk's content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// A disk image in a container image; what the guest writes ends with it.
    ContainerDisk {
        /// Image reference.
        image: String,
        /// When it is pulled.
        pull_policy: ImagePullPolicy,
        /// Secret to pull it with.
        pull_secret: Option<String>,
        /// The disk image's absolute path; without it the only file in `/disk`.
        path: Option<String>,
    },
    /// A cloud-init volume labelled `cidata`.
    CloudInitNoCloud(CloudInit),
    /// A cloud-init volume labelled `config-2`.
    CloudInitConfigDrive(CloudInit),
    /// The files of an object; the guest sees what they were when it started.
    Files {
        /// Where they come from.
        source: FileSource,
        /// The volume's label.
        label: String,
    },
    /// An empty disk that ends with the machine.
    EmptyDisk {
        /// Its size.
        capacity_bytes: u64,
    },
    /// The disk on a PersistentVolumeClaim, which keeps what the guest writes.
    PersistentVolumeClaim {
        /// Its name, in the namespace of the machine.
        claim: String,
        /// Whether nothing is written to it.
        read_only: bool,
    },
    /// The disk on a PersistentVolumeClaim, which stays as it is: what the guest writes ends with the machine.
    Ephemeral {
        /// The name of the claim, in the namespace of the machine.
        claim: String,
    },
    /// A file on the host that keeps what the guest writes.
    HostDisk {
        /// The file.
        path: PathBuf,
        /// The size of the disk to make, sparse, if there is no file.
        create_bytes: Option<u64>,
        /// How the file holds the disk: raw, unless its name or an annotation says otherwise.
        format: DiskFormat,
        /// Whether an annotation says so.
        is_format_given: bool,
    },
}

/// The content of a cloud-init volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudInit {
    /// User data.
    pub user_data: Option<CloudInitData>,
    /// Network configuration.
    pub network_data: Option<CloudInitData>,
}

/// One file of a cloud-init volume.
#[derive(Clone, PartialEq, Eq)]
pub enum CloudInitData {
    /// Its bytes.
    Inline(Vec<u8>),
    /// The Secret, in the machine's namespace, that holds it.
    SecretRef {
        /// Its name.
        name: String,
        /// Where the object refers to it, for complaints once Secrets are known.
        path: String,
    },
}

impl std::fmt::Debug for CloudInitData {
    /// Without the bytes, which often holds a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::SecretRef { name, .. } => f.debug_tuple("SecretRef").field(name).finish(),
        }
    }
}

/// When a container image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImagePullPolicy {
    /// Each time.
    Always,
    /// If it is not there.
    IfNotPresent,
    /// Never.
    Never,
}

const UNSUPPORTED: &[&str] = &["containerPath", "downwardMetrics", "memoryDump", "sysprep"];
const SUPPORTED: &[&str] = &[
    "containerDisk",
    "cloudInitNoCloud",
    "cloudInitConfigDrive",
    "configMap",
    "dataVolume",
    "downwardAPI",
    "emptyDisk",
    "ephemeral",
    "hostDisk",
    "persistentVolumeClaim",
    "secret",
    "serviceAccount",
];

const NOT_PULLED: &str = "images are imported here, not pulled";

/// A volume's name, and the volume unless it had complaints.
pub(super) struct NamedVolume<'a> {
    pub(super) node: Node<'a>,
    pub(super) name: String,
    pub(super) volume: Option<Volume>,
}

/// Reads an element of `volumes`.
pub(super) fn read<'a>(node: &Node<'a>) -> Option<NamedVolume<'a>> {
    let (name, volume) = node.fields(|fields| {
        fields.unsupported(UNSUPPORTED);
        let given = |names: &[&'static str]| -> Vec<_> {
            names.iter().copied().filter(|name| fields.field(name).is_some()).collect()
        };
        let (supported, unsupported) = (given(SUPPORTED), given(UNSUPPORTED));
        if supported.len() + unsupported.len() > 1 {
            fields.node().refuse(format!("has more than one source: {}", [supported, unsupported].concat().join(", ")));
        } else if supported.len() + unsupported.len() == 0 {
            fields.node().refuse(format!("needs a source, one of {}", SUPPORTED.join(", ")));
        }
        (read_name(fields), read_source(fields))
    })?;
    Some(NamedVolume { node: node.clone(), name: name?, volume })
}

/// The name of a volume or a disk.
pub(super) fn read_name(fields: &Fields<'_>) -> Option<String> {
    let node = fields.required("name")?;
    let text = node.text()?;
    if ObjectKey::new(text, "x").is_err() {
        node.expected("at most 63 lower-case letters, digits and '-', with a letter or digit at both ends");
        return None;
    }
    Some(text.to_owned())
}

fn read_source(volume: &Fields<'_>) -> Option<Volume> {
    let container = volume.field("containerDisk").and_then(|node| node.fields(read_container_disk)?);
    let cloud_init = |name| volume.field(name).and_then(|node: Node<'_>| node.fields(read_cloud_init)?);
    let no_cloud = cloud_init("cloudInitNoCloud").map(Volume::CloudInitNoCloud);
    let config_drive = cloud_init("cloudInitConfigDrive").map(Volume::CloudInitConfigDrive);
    let empty = volume.field("emptyDisk").and_then(|node| {
        let capacity_bytes = node.fields(|empty| read_capacity(&empty.required("capacity")?))??;
        Some(Volume::EmptyDisk { capacity_bytes })
    });
    let host = volume.field("hostDisk").and_then(|node| node.fields(read_host_disk)?);
    let claim = volume.field("persistentVolumeClaim").and_then(|node| {
        let (claim, read_only) = node.fields(read_claim)?;
        Some(Volume::PersistentVolumeClaim { claim: claim?, read_only })
    });
    // The importer of DataVolumes (CDI) fills the claim that has the DataVolume's name.
    let data_volume = volume.field("dataVolume").and_then(|node| {
        let claim = node.fields(|data_volume| read_claim_name(data_volume, "name"))??;
        Some(Volume::PersistentVolumeClaim { claim, read_only: false })
    });
    let ephemeral = volume.field("ephemeral").and_then(|node| {
        let claim = node.fields(|ephemeral| ephemeral.required("persistentVolumeClaim")?.fields(read_claim))??.0;
        Some(Volume::Ephemeral { claim: claim? })
    });
    let files = files::read(volume).map(|(source, label)| Volume::Files { source, label });
    container.or(no_cloud).or(config_drive).or(files).or(empty).or(host).or(claim).or(data_volume).or(ephemeral)
}

/// The name of a claim and whether nothing is written to it.
fn read_claim(claim: &Fields<'_>) -> (Option<String>, bool) {
    (read_claim_name(claim, "claimName"), claim.boolean("readOnly").unwrap_or(false))
}

/// The name of a claim, in a field.
fn read_claim_name(claim: &Fields<'_>, field: &'static str) -> Option<String> {
    if let Some(node) = claim.field("hotpluggable")
        && node.boolean() == Some(true)
    {
        node.refuse_unsupported("a volume cannot be added to a VM that runs");
    }
    let node = claim.required(field)?;
    let text = node.text()?;
    if ObjectKey::new("default", text).is_err() {
        node.expected("the name of a PersistentVolumeClaim");
        return None;
    }
    Some(text.to_owned())
}

fn read_container_disk(disk: &Fields<'_>) -> Option<Volume> {
    let image = read_image(disk);
    let pull_policy = read_pull_policy(disk, image.as_deref());
    let pull_secret = read_pull_secret(disk);
    let path = disk.set("path").map(|node| read_path(&node));
    Some(Volume::ContainerDisk { image: image?, pull_policy, pull_secret, path: path.flatten() })
}

/// Reads a required image reference.
pub(super) fn read_image(container: &Fields<'_>) -> Option<String> {
    let node = container.required("image")?;
    let text = node.text()?;
    if text.is_empty() || text.len() > 1024 || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        node.expected("an image reference without spaces");
        return None;
    }
    Some(text.to_owned())
}

/// Reads `imagePullSecret`.
pub(super) fn read_pull_secret(container: &Fields<'_>) -> Option<String> {
    let node = container.set("imagePullSecret")?;
    node.warn(Scope::Local, NOT_PULLED);
    node.text().map(str::to_owned)
}

/// Reads `imagePullPolicy`; an image without tag or digest, or with the tag `latest`, is pulled each time.
pub(super) fn read_pull_policy(container: &Fields<'_>, image: Option<&str>) -> ImagePullPolicy {
    let words = &[
        ("Always", ImagePullPolicy::Always),
        ("IfNotPresent", ImagePullPolicy::IfNotPresent),
        ("Never", ImagePullPolicy::Never),
    ];
    let moving = |image: &str| {
        let name = image.rsplit('/').next().unwrap_or_default();
        !image.contains('@') && (name.ends_with(":latest") || !name.contains(':'))
    };
    let default = if image.is_some_and(moving) { ImagePullPolicy::Always } else { ImagePullPolicy::IfNotPresent };
    let policy = container.one_of("imagePullPolicy", words, &[]);
    if let (Some(ImagePullPolicy::Always), Some(node)) = (policy, container.field("imagePullPolicy")) {
        node.warn(Scope::Local, NOT_PULLED);
    }
    policy.unwrap_or(default)
}

/// A disk's size: what a file can have.
fn read_capacity(node: &Node<'_>) -> Option<u64> {
    let bytes = Quantity::read(node)?.rounded_up().filter(|bytes| (1..=MAX_DISK_BYTES).contains(bytes));
    if bytes.is_none() {
        node.expected("more than 0 and less than 8Ei");
    }
    bytes
}

/// Whole sectors below the largest offset of a file.
const MAX_DISK_BYTES: u64 = (1 << 63) - 512;

fn read_host_disk(disk: &Fields<'_>) -> Option<Volume> {
    let path = disk.required("path").and_then(|node| read_path(&node)).map(PathBuf::from);
    let create = disk.required("type").and_then(|node| node.one_of(&[("Disk", false), ("DiskOrCreate", true)], &[]));
    // It says whether other nodes see the path too: nothing for one machine, nothing to refuse.
    disk.boolean("shared");
    let capacity = disk.set("capacity");
    if let (Some(false), Some(capacity)) = (create, &capacity) {
        capacity.refuse("is for type DiskOrCreate, a Disk has its own size");
        return None;
    }
    if create == Some(true) && capacity.is_none() {
        disk.node().named("capacity").refuse("is required for type DiskOrCreate");
        return None;
    }
    let create_bytes = match capacity {
        Some(capacity) => Some(read_capacity(&capacity)?),
        None => None,
    };
    create?;
    let path = path?;
    let format = match path.extension().is_some_and(|ending| ending == "qcow2") {
        true => DiskFormat::Qcow2,
        false => DiskFormat::Raw,
    };
    Some(Volume::HostDisk { path, create_bytes, format, is_format_given: false })
}

fn read_cloud_init(volume: &Fields<'_>) -> Option<CloudInit> {
    let user_data = read_data(volume, ["userData", "userDataBase64", "secretRef"]);
    let network_data = read_data(volume, ["networkData", "networkDataBase64", "networkDataSecretRef"]);
    let (user_data, network_data) = (user_data?, network_data?);
    if user_data.is_none() && network_data.is_none() {
        volume.node().refuse("needs userData, userDataBase64, secretRef or network data");
        return None;
    }
    Some(CloudInit { user_data, network_data })
}

/// Reads one of three ways to give a file: its text, its text in base64, a reference to a Secret.
/// The outer `None` means that complaints were reported, the inner one that nothing was given.
fn read_data(volume: &Fields<'_>, names: [&'static str; 3]) -> Option<Option<CloudInitData>> {
    let [text, base64, secret] = names.map(|name| volume.set(name));
    if [&text, &base64, &secret].into_iter().flatten().count() > 1 {
        volume.node().refuse(format!("give only one of {}", names.join(", ")));
        return None;
    }
    if let Some(node) = text {
        return Some(Some(CloudInitData::Inline(node.text()?.into())));
    }
    if let Some(node) = base64 {
        let decoded = machine::base64::decode(node.text()?);
        if decoded.is_none() {
            node.refuse("must be base64");
        }
        return decoded.map(|bytes| Some(CloudInitData::Inline(bytes)));
    }
    match secret {
        Some(node) => {
            let name = node.fields(|reference| Some(reference.required("name")?.text()?.to_owned()))??;
            Some(Some(CloudInitData::SecretRef { name, path: node.path().to_owned() }))
        }
        None => Some(None),
    }
}
