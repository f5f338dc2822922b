//! Volumes that are objects' files: ConfigMaps, Secrets, a service account's token, fields of the launcher pod.

use terms::ObjectKey;

use crate::quantity::Quantity;
use crate::reader::{Fields, Node, Scope};

/// Where the files of a disk come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSource {
    /// A ConfigMap in the namespace of the machine.
    ConfigMap(FileObject),
    /// A Secret in the namespace of the machine.
    Secret(FileObject),
    /// The service account whose token, name of the namespace and certificate authority are the files.
    ServiceAccount {
        /// Its name.
        name: String,
    },
    /// Fields of the launcher pod.
    DownwardApi(Vec<DownwardFile>),
}

/// An object whose data are files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileObject {
    /// Its name.
    pub name: String,
    /// Whether the machine starts without it, with an empty disk.
    pub is_optional: bool,
    /// The volume, for complaints once objects are known.
    pub path: String,
}

/// A file with a field of the launcher pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownwardFile {
    /// Its path on the disk.
    pub path: String,
    /// What is in it.
    pub field: DownwardField,
}

/// A field of the launcher pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownwardField {
    /// Of its metadata, by path.
    Metadata(String),
    /// A request or limit of the container that runs the guest.
    Resource {
        /// Its name.
        resource: String,
        /// The unit that it is given in.
        divisor: Option<String>,
    },
}

/// KubeVirt's label of a disk whose volume names none.
const DEFAULT_LABEL: &str = "cfgdata";
/// The volume identifier of ISO 9660.
const MAX_LABEL_BYTES: usize = 32;
/// More than a pod has fields.
const MAX_ITEMS: usize = 256;
const MAX_PATH_BYTES: usize = 253;
const MAX_DEPTH: usize = 8;
/// The container that runs the guest.
const CONTAINER: &str = "compute";
const METADATA: [&str; 5] =
    ["metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"];
const CPU_DIVISORS: [&str; 2] = ["1m", "1"];
const DIVISORS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
const RESOURCES: &[(&str, ())] = &[
    ("limits.cpu", ()),
    ("limits.memory", ()),
    ("limits.ephemeral-storage", ()),
    ("requests.cpu", ()),
    ("requests.memory", ()),
    ("requests.ephemeral-storage", ()),
];

/// Reads the sources of a volume that are files: the source and the volume's label.
pub(super) fn read(volume: &Fields<'_>) -> Option<(FileSource, String)> {
    let config_map = volume.field("configMap").and_then(|node| node.fields(|source| read_object(source, "name"))?);
    let secret = volume.field("secret").and_then(|node| node.fields(|source| read_object(source, "secretName"))?);
    let account = volume.field("serviceAccount").and_then(|node| {
        let name = node.fields(|source| read_name(&source.required("serviceAccountName")?))??;
        Some((FileSource::ServiceAccount { name }, DEFAULT_LABEL.to_owned()))
    });
    let downward = volume.field("downwardAPI").and_then(|node| node.fields(read_downward)?);
    let config_map = config_map.map(|(object, label)| (FileSource::ConfigMap(object), label));
    let secret = secret.map(|(object, label)| (FileSource::Secret(object), label));
    config_map.or(secret).or(account).or(downward)
}

fn read_object(source: &Fields<'_>, name: &'static str) -> Option<(FileObject, String)> {
    let is_optional = source.boolean("optional").unwrap_or(false);
    let (name, label) = (source.required(name).and_then(|node| read_name(&node)), read_label(source));
    Some((FileObject { name: name?, is_optional, path: source.node().path().to_owned() }, label?))
}

/// The name of an object in the namespace of the machine.
fn read_name(node: &Node<'_>) -> Option<String> {
    let text = node.text()?;
    if ObjectKey::new("default", text).is_err() {
        node.expected("the name of an object");
        return None;
    }
    Some(text.to_owned())
}

fn read_label(source: &Fields<'_>) -> Option<String> {
    let Some(node) = source.set("volumeLabel") else { return Some(DEFAULT_LABEL.to_owned()) };
    let text = node.text()?;
    if text.len() > MAX_LABEL_BYTES || text.trim() != text || !text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        node.expected(format_args!("at most {MAX_LABEL_BYTES} printable ASCII characters"));
        return None;
    }
    Some(text.to_owned())
}

fn read_downward(source: &Fields<'_>) -> Option<(FileSource, String)> {
    let (items, label) = (source.items("fields"), read_label(source));
    if let Some(node) = items.get(MAX_ITEMS) {
        node.refuse(format!("there can be at most {MAX_ITEMS} fields"));
    }
    let mut files: Vec<DownwardFile> = Vec::new();
    for node in items.iter().take(MAX_ITEMS) {
        let Some(file) = node.fields(read_file).flatten() else { continue };
        match files.iter().any(|other| other.path == file.path) {
            true => node.named("path").refuse(format!("{:?} is the path of another field too", file.path)),
            false => files.push(file),
        }
    }
    Some((FileSource::DownwardApi(files), label?))
}

fn read_file(item: &Fields<'_>) -> Option<DownwardFile> {
    let path = item.required("path").and_then(|node| {
        let text = node.text()?;
        let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
        if text.len() > MAX_PATH_BYTES
            || text.starts_with("..")
            || text.split('/').count() > MAX_DEPTH
            || !text.split('/').all(is_part)
        {
            node.expected(format_args!("a relative path of at most {MAX_DEPTH} parts and {MAX_PATH_BYTES} bytes"));
            return None;
        }
        Some(text.to_owned())
    });
    item.ignored(Scope::Everywhere, "every user of the guest may read the files on the disk", &["mode"]);
    let (field, resource) = (item.field("fieldRef"), item.field("resourceFieldRef"));
    let is_one = field.is_some() != resource.is_some();
    let field = field.and_then(|node| node.fields(read_metadata)?);
    let resource = resource.and_then(|node| node.fields(read_resource)?);
    if !is_one {
        item.node().refuse("needs one of fieldRef and resourceFieldRef");
        return None;
    }
    Some(DownwardFile { path: path?, field: field.or(resource)? })
}

fn read_metadata(reference: &Fields<'_>) -> Option<DownwardField> {
    reference.one_of("apiVersion", &[("v1", ())], &[]);
    let node = reference.required("fieldPath")?;
    let text = node.text()?;
    let is_key = |list: &str| text.strip_prefix(list).is_some_and(|key| key.len() > 4 && key.ends_with("']"));
    if !METADATA.contains(&text) && !is_key("metadata.labels['") && !is_key("metadata.annotations['") {
        node.expected(format_args!("{}, or metadata.labels['KEY']", METADATA.join(", ")));
        return None;
    }
    Some(DownwardField::Metadata(text.to_owned()))
}

fn read_resource(reference: &Fields<'_>) -> Option<DownwardField> {
    reference.one_of("containerName", &[(CONTAINER, ())], &[]);
    let divisor = reference.set("divisor").map(|node| (Quantity::read(&node).map(|divisor| divisor.to_string()), node));
    let node = reference.required("resource")?;
    node.one_of(RESOURCES, &[])?;
    let resource = node.text()?.to_owned();
    let divisor = match divisor {
        None => None,
        Some((read, node)) => {
            let divisors = if resource.ends_with(".cpu") { &CPU_DIVISORS[..] } else { &DIVISORS[..] };
            let divisor = read?;
            if !divisors.contains(&divisor.as_str()) {
                node.expected(format_args!("one of {}", divisors.join(", ")));
                return None;
            }
            Some(divisor)
        }
    };
    Some(DownwardField::Resource { resource, divisor })
}

#[cfg(test)]
mod tests {
    use crate::manifest;

    /// The complaints about a volume, or none.
    fn complaints(volume: &str) -> Vec<String> {
        let text = format!(
            "{{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {{name: a}}, spec: {{domain: {{memory: {{guest: 64Mi}},
            devices: {{}}}}, volumes: [{volume}]}}}}"
        );
        let errors = manifest::parse(&text, "test").err().unwrap_or_default();
        errors
            .iter()
            .map(|error| error.to_string().replace("test, document 1 (VirtualMachineInstance a): spec.", ""))
            .collect()
    }

    // spec: VOL-6
    #[test]
    fn every_field_of_files_is_read_and_a_wrong_one_refused_by_its_path() {
        for good in [
            "{name: a, configMap: {name: settings, optional: true, volumeLabel: OEMDRV}}",
            "{name: a, secret: {secretName: keys, optional: false, volumeLabel: cidata}}",
            "{name: a, serviceAccount: {serviceAccountName: robot}}",
            "{name: a, downwardAPI: {fields: [{path: a/labels, fieldRef: {apiVersion: v1, fieldPath: metadata.labels}},
              {path: app, fieldRef: {fieldPath: \"metadata.labels['app']\"}},
              {path: cpu, resourceFieldRef: {containerName: compute, resource: limits.cpu, divisor: 1m}}]}}",
        ] {
            assert_eq!(complaints(good), [""; 0], "{good}");
        }
        for (bad, complaint) in [
            ("{name: a, configMap: {}}", "volumes[0].configMap.name: is required"),
            ("{name: a, configMap: {name: A}}", "volumes[0].configMap.name: must be the name of an object"),
            ("{name: a, secret: {name: a, secretName: b}}", "volumes[0].secret.name: unknown field"),
            (
                "{name: a, secret: {secretName: a, volumeLabel: a label that is longer than an image has}}",
                "volumes[0].secret.volumeLabel: must be at most 32",
            ),
            (
                "{name: a, serviceAccount: {serviceAccountName: ''}}",
                "volumes[0].serviceAccount.serviceAccountName: must be",
            ),
            (
                "{name: a, downwardAPI: {fields: [{path: ../a, fieldRef: {fieldPath: metadata.name}}]}}",
                "volumes[0].downwardAPI.fields[0].path: must be a relative path",
            ),
            (
                "{name: a, downwardAPI: {fields: [{path: a, fieldRef: {fieldPath: spec.nodeName}}]}}",
                "fields[0].fieldRef.fieldPath: must be",
            ),
            ("{name: a, downwardAPI: {fields: [{path: a}]}}", "fields[0]: needs one of fieldRef and resourceFieldRef"),
            (
                "{name: a, downwardAPI: {fields: [{path: a, resourceFieldRef: {resource: limits.gpu}}]}}",
                "FieldRef.resource: \"limits.gpu\" is not one of",
            ),
            (
                "{name: a, downwardAPI: {fields: [{path: a, resourceFieldRef: {resource: limits.cpu, divisor: 1Mi}}]}}",
                "divisor: must be one of 1m, 1",
            ),
        ] {
            let found = complaints(bad);
            assert!(found.len() == 1 && found[0].contains(complaint), "{bad}: {found:?}");
        }
    }

    // spec: VOL-6
    #[test]
    fn a_pod_has_one_service_account_and_a_guest_one_cloud_init_volume() {
        let account = |name: &str| format!("{{name: {name}, serviceAccount: {{serviceAccountName: robot}}}}");
        let found = complaints(&[account("a"), account("b")].join(", "));
        assert!(found.len() == 1 && found[0].contains("volumes[1]: is a second service account"), "{found:?}");
        let seeds = "{name: a, cloudInitNoCloud: {userData: x}}, {name: b, cloudInitConfigDrive: {userData: x}}";
        let found = complaints(seeds);
        assert!(found.len() == 1 && found[0].contains("volumes[1]: is a second cloud-init volume"), "{found:?}");
    }
}
