//! Kinds and API versions: which are read, which are named when they are refused.

use std::fmt;

use super::Body;
use crate::attachment::NetworkAttachmentDefinition;
use crate::kubevirt::{VirtualMachine, VirtualMachineInstance};
use crate::reader::{Fields, Node, Scope};
use crate::secret::{ConfigMap, Secret};
use crate::service::Service;

/// The kinds of objects that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// kubevirt.io/v1 VirtualMachine.
    VirtualMachine,
    /// kubevirt.io/v1 VirtualMachineInstance.
    VirtualMachineInstance,
    /// v1 Service.
    Service,
    /// k8s.cni.cncf.io/v1 NetworkAttachmentDefinition.
    NetworkAttachmentDefinition,
    /// v1 Secret.
    Secret,
    /// v1 ConfigMap.
    ConfigMap,
}

/// Kind, its name, the API versions it is read in.
const KINDS: &[(Kind, &str, &[&str])] = &[
    // v1alpha3 has the same schema and is still served by KubeVirt.
    (Kind::VirtualMachine, "VirtualMachine", &["kubevirt.io/v1", "kubevirt.io/v1alpha3"]),
    (Kind::VirtualMachineInstance, "VirtualMachineInstance", &["kubevirt.io/v1", "kubevirt.io/v1alpha3"]),
    (Kind::Service, "Service", &["v1"]),
    (Kind::NetworkAttachmentDefinition, "NetworkAttachmentDefinition", &["k8s.cni.cncf.io/v1"]),
    (Kind::Secret, "Secret", &["v1"]),
    (Kind::ConfigMap, "ConfigMap", &["v1"]),
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(kind, ..)| kind == self).map_or("", |(_, name, _)| name);
        f.write_str(name)
    }
}

/// The items of a list object with the kind that the list's own kind gives them; `None` when it is no list.
pub(super) fn list_items<'a>(root: &Node<'a>) -> Option<Vec<(Node<'a>, Option<Kind>)>> {
    let item_kind = root.value().get("kind")?.as_str()?.strip_suffix("List")?;
    let kind = KINDS.iter().find(|(_, name, _)| *name == item_kind).map(|(kind, ..)| *kind);
    if kind.is_none() && !item_kind.is_empty() {
        return None;
    }
    let items = root.fields(|fields| {
        fields.field("kind");
        fields.field("apiVersion");
        fields.ignored(Scope::Everywhere, "the API server sets it", &["metadata"]);
        fields.required("items").map(|items| items.items()).unwrap_or_default()
    })?;
    Some(items.into_iter().map(|item| (item, kind)).collect())
}

/// Reads the object that `kind` and `apiVersion` say it is; items of a typed list need say neither.
pub(super) fn read_body(fields: &Fields<'_>, item_kind: Option<Kind>) -> Option<Body> {
    fields.field("apiVersion");
    let given = fields.field("kind").is_some() || item_kind.is_none();
    let kind = if given { read_kind(fields) } else { item_kind };
    let Some(kind) = kind else {
        // Every field of an unknown kind would be unknown: reporting each is of no use.
        fields.skip_rest();
        return None;
    };
    match kind {
        Kind::VirtualMachine => VirtualMachine::read(fields).map(Body::VirtualMachine),
        Kind::VirtualMachineInstance => VirtualMachineInstance::read(fields).map(Body::VirtualMachineInstance),
        Kind::Service => Service::read(fields).map(Body::Service),
        Kind::NetworkAttachmentDefinition => {
            NetworkAttachmentDefinition::read(fields).map(Body::NetworkAttachmentDefinition)
        }
        Kind::Secret => Secret::read(fields).map(Body::Secret),
        Kind::ConfigMap => ConfigMap::read(fields).map(Body::ConfigMap),
    }
}

fn read_kind(fields: &Fields<'_>) -> Option<Kind> {
    let (version, name) = (fields.required("apiVersion"), fields.required("kind"));
    let (version, name) = (version?, name?);
    let (version_text, name_text) = (version.text()?, name.text()?);
    let Some((kind, _, versions)) = KINDS.iter().find(|(_, known, _)| *known == name_text) else {
        let known: Vec<_> = KINDS.iter().map(|(_, name, _)| *name).collect();
        let shown: String = format!("{name_text} of {version_text}").chars().take(120).collect();
        name.refuse_unsupported(format!("{shown}; the kinds are {} and lists of them", known.join(", ")));
        return None;
    };
    if !versions.contains(&version_text) {
        let shown: String = version_text.chars().take(80).collect();
        version.refuse_unsupported(format!("{shown:?}, {name_text} is {}", versions[0]));
        return None;
    }
    Some(*kind)
}
