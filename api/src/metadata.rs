//! Object metadata: identity, labels, annotations.

use std::collections::BTreeMap;

use terms::ObjectKey;

use crate::reader::{Fields, Node, Scope};

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Labels or annotations by key.
pub type Labels = BTreeMap<String, String>;

/// An object's identity and what hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Namespace and name.
    pub key: ObjectKey,
    /// What selectors match.
    pub labels: Labels,
    /// What other programs read.
    pub annotations: Labels,
}

/// Kubernetes' bound on the annotations of one object, in bytes of keys and values.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;
const SERVER_FIELDS: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "selfLink",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "finalizers",
    "ownerReferences",
];

/// Reads `metadata` of an object.
pub(crate) fn read(object: &Fields<'_>) -> Option<Metadata> {
    object.required("metadata")?.fields(|fields| {
        let (labels, annotations) = read_labels(fields);
        fields.unsupported_because("generateName", "give a name");
        let namespace = fields.filled_text("namespace").unwrap_or(DEFAULT_NAMESPACE);
        let name_text = fields.required("name")?.text()?;
        match ObjectKey::new(namespace, name_text) {
            Ok(key) => Some(Metadata { key, labels, annotations }),
            Err(error) => {
                let names_name = ObjectKey::new(DEFAULT_NAMESPACE, name_text).is_err();
                fields.node().named(if names_name { "name" } else { "namespace" }).refuse(error);
                None
            }
        }
    })?
}

/// Annotations by which KubeVirt or a mesh changes the VM or its pod, and what is missing here. Others are notes of other
/// programs. Where a value is given, only that value does.
const CHANGING: &[(&str, Option<&str>, &str)] = &[
    (
        "hooks.kubevirt.io/hookSidecars",
        None,
        "no side-car changes the VM's definition; write the change into the manifest",
    ),
    ("sidecar.istio.io/inject", Some("true"), "no side-car is injected, and the VM is reached directly"),
    ("kubevirt.io/ignitiondata", None, "no Ignition configuration is handed to the guest; use cloudInitNoCloud"),
    ("kubevirt.io/placePCIDevicesOnRootComplex", Some("true"), "devices are where the engine puts them"),
    ("kubevirt.io/func-test-virt-launcher-fail-fast", None, "no launcher is made to fail"),
    ("kubevirt.io/memfd", None, "the engine chooses the guest's memory"),
    ("kubernetes.io/ingress-bandwidth", None, "use the CNI plugin `bandwidth` in the network's list"),
    ("kubernetes.io/egress-bandwidth", None, "use the CNI plugin `bandwidth` in the network's list"),
    ("k8s.v1.cni.cncf.io/networks", None, "networks come from `networks` of the specification"),
    ("v1.multus-cni.io/default-network", None, "`tapvisor run --network` chooses the primary network"),
];

/// Warns of annotations of a VM that would change it elsewhere and do not here.
pub(crate) fn warn_of_changing(metadata: &Node<'_>) {
    let is_object = |node: &Node<'_>| node.value().is_object();
    let members = if is_object(metadata) { metadata.entries() } else { Vec::new() };
    let annotations = members.into_iter().filter(|(name, node)| *name == "annotations" && is_object(node));
    for (key, node) in annotations.flat_map(|(_, node)| node.entries()) {
        let changing = CHANGING
            .iter()
            .find(|(known, value, _)| *known == key && value.is_none_or(|value| node.value().as_str() == Some(value)));
        if let Some((_, _, why)) = changing {
            node.warn(Scope::Local, why);
        }
    }
}

/// Reads `metadata` of a template, which has no name of its own.
pub(crate) fn read_template(template: &Fields<'_>) -> (Labels, Labels) {
    let read = |node: Node<'_>| {
        warn_of_changing(&node);
        node.fields(|fields| {
            let why = "the object made from the template has its owner's name";
            fields.ignored(Scope::Everywhere, why, &["name", "generateName", "namespace"]);
            read_labels(fields)
        })
    };
    template.field("metadata").and_then(read).unwrap_or_default()
}

fn read_labels(fields: &Fields<'_>) -> (Labels, Labels) {
    fields.ignored(Scope::Everywhere, "the API server sets it", SERVER_FIELDS);
    let labels = texts(fields, "labels");
    for (key, node) in fields.field("labels").map(|node| node.entries()).unwrap_or_default() {
        if node.value().as_str().is_some_and(|value| !value.is_empty() && !is_qualified_part(value)) {
            node.expected("at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends");
        }
        check_key(key, &node);
    }
    let annotations = texts(fields, "annotations");
    if let Some(node) = fields.field("annotations") {
        node.entries().iter().for_each(|(key, node)| check_key(key, node));
        let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > MAX_ANNOTATION_BYTES {
            node.refuse(format!("{bytes} bytes, at most {MAX_ANNOTATION_BYTES} are allowed"));
        }
    }
    (labels, annotations)
}

/// A map from text to text.
pub(crate) fn texts(fields: &Fields<'_>, name: &'static str) -> Labels {
    let entries = fields.field(name).map(|node| node.entries()).unwrap_or_default();
    entries.into_iter().filter_map(|(key, node)| Some((key.to_owned(), node.text()?.to_owned()))).collect()
}

fn check_key(key: &str, node: &Node<'_>) {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_is_dns = prefix.is_none_or(|prefix| ObjectKey::new(DEFAULT_NAMESPACE, prefix).is_ok());
    if !is_qualified_part(name) || !prefix_is_dns {
        node.refuse("the key must be a name of at most 63 letters, digits, '-', '_' and '.', after an optional DNS prefix and '/'");
    }
}

fn is_qualified_part(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.chars().next())
        && ends(text.chars().last())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
