//! Manifests: a text in, checked objects or every complaint out.

mod error;
mod kind;
mod text;

use std::collections::BTreeSet;

use serde_json::Value;
use terms::ObjectKey;

pub use error::ManifestError;
pub use kind::Kind;
pub use text::MAX_BYTES;

use crate::attachment::NetworkAttachmentDefinition;
use crate::kubevirt::{VirtualMachine, VirtualMachineInstance};
use crate::metadata::Metadata;
use crate::reader::{Finding, Findings, Node, Problem, Warning};
use crate::secret::{ConfigMap, Secret};
use crate::service::Service;

/// An object of a manifest that obeys every rule.
#[derive(Clone, PartialEq)]
pub struct Object {
    /// Number of its document in the text, from 1; empty documents do not count.
    pub document: usize,
    /// What it says that has no effect.
    pub warnings: Vec<Warning>,
    /// The object as it was written; [`from_value`] reads it again.
    pub source: Value,
    /// The object.
    pub body: Body,
}

impl std::fmt::Debug for Object {
    /// Without the source, which may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { document, warnings, source: _, body } = self;
        let mut object = f.debug_struct("Object");
        object.field("document", document).field("warnings", warnings).field("body", body).finish_non_exhaustive()
    }
}

/// The kinds of objects.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// kubevirt.io/v1 VirtualMachine.
    VirtualMachine(VirtualMachine),
    /// kubevirt.io/v1 VirtualMachineInstance.
    VirtualMachineInstance(VirtualMachineInstance),
    /// v1 Service.
    Service(Service),
    /// k8s.cni.cncf.io/v1 NetworkAttachmentDefinition.
    NetworkAttachmentDefinition(NetworkAttachmentDefinition),
    /// v1 Secret.
    Secret(Secret),
    /// v1 ConfigMap.
    ConfigMap(ConfigMap),
}

impl Body {
    /// The object's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::VirtualMachine(_) => Kind::VirtualMachine,
            Self::VirtualMachineInstance(_) => Kind::VirtualMachineInstance,
            Self::Service(_) => Kind::Service,
            Self::NetworkAttachmentDefinition(_) => Kind::NetworkAttachmentDefinition,
            Self::Secret(_) => Kind::Secret,
            Self::ConfigMap(_) => Kind::ConfigMap,
        }
    }

    /// The object's identity, labels and annotations.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::VirtualMachine(object) => &object.metadata,
            Self::VirtualMachineInstance(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::NetworkAttachmentDefinition(object) => &object.metadata,
            Self::Secret(object) => &object.metadata,
            Self::ConfigMap(object) => &object.metadata,
        }
    }

    /// Namespace and name.
    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        &self.metadata().key
    }
}

/// Most complaints about one document; a text that is no manifest at all would fill the screen.
const MOST_COMPLAINTS: usize = 100;

/// Reads every object of a YAML or JSON text; `source_name` is what complaints call it.
///
/// # Errors
/// All complaints about all documents: syntax, kinds, fields and values, an object given twice, or no object at all.
pub fn parse(text: &str, source_name: &str) -> Result<Vec<Object>, Vec<ManifestError>> {
    let (objects, errors) = parse_as_far_as_possible(text, source_name);
    if errors.is_empty() { Ok(objects) } else { Err(errors) }
}

/// The same for who looks up what even a wrong manifest refers to: all complaints, and the objects as far as they can be read.
/// A wrong value reads as an absent one, so nothing may be made of these objects while there is a complaint.
#[must_use]
pub fn parse_as_far_as_possible(text: &str, source_name: &str) -> (Vec<Object>, Vec<ManifestError>) {
    let (mut objects, mut errors) = (Vec::new(), Vec::new());
    for (document, value) in text::documents(text) {
        match value {
            Ok(value) => {
                let (read, found) = read_document(&value, source_name, document);
                objects.extend(read);
                errors.extend(found);
            }
            Err(reason) => errors.push(ManifestError::at(source_name, document, Problem::Syntax(reason))),
        }
    }
    if objects.is_empty() && errors.is_empty() {
        errors.push(ManifestError::at(source_name, 1, Problem::Syntax("there is no object in it".to_owned())));
    }
    errors.extend(repeated(&objects, source_name));
    (objects, errors)
}

/// Reads an object that is already a JSON value.
///
/// # Errors
/// All complaints about it.
pub fn from_value(value: &Value, source_name: &str) -> Result<Object, Vec<ManifestError>> {
    let (mut objects, errors) = read_document(value, source_name, 1);
    if !errors.is_empty() {
        return Err(errors);
    }
    match objects.pop() {
        Some(object) if objects.is_empty() => Ok(object),
        _ => Err(vec![ManifestError::at(source_name, 1, Problem::Syntax("must be one object".to_owned()))]),
    }
}

fn read_document(value: &Value, source_name: &str, document: usize) -> (Vec<Object>, Vec<ManifestError>) {
    let findings = Findings::default();
    let root = Node::root(value, &findings);
    let mut objects = Vec::new();
    match kind::list_items(&root) {
        Some(items) => {
            for (item, item_kind) in items {
                objects.extend(read_object(&item, item_kind, document));
            }
        }
        None => objects.extend(read_object(&root, None, document)),
    }
    let (complaints, warnings) = findings.into_parts();
    let describe = |finding: Finding| ManifestError::of(source_name, document, value, finding);
    let unshown = complaints.len().saturating_sub(MOST_COMPLAINTS);
    let mut errors: Vec<_> = complaints.into_iter().take(MOST_COMPLAINTS).map(describe).collect();
    if unshown > 0 {
        let problem = Problem::Syntax(format!("{unshown} more complaints"));
        errors.push(ManifestError::at(source_name, document, problem));
    }
    // One set of findings serves the whole list, so that paths tell the items apart.
    for warning in warnings {
        let owner = objects.iter_mut().rev().find(|(path, _)| warning.path.starts_with(path.as_str()));
        if let Some((_, object)) = owner {
            object.warnings.push(warning);
        }
    }
    (objects.into_iter().map(|(_, object)| object).collect(), errors)
}

fn read_object(node: &Node<'_>, item_kind: Option<Kind>, document: usize) -> Option<(String, Object)> {
    let body = node.fields(|fields| kind::read_body(fields, item_kind))??;
    let object = Object { document, warnings: Vec::new(), source: node.value().clone(), body };
    Some((node.path().to_owned(), object))
}

/// A VirtualMachine makes an instance of its own name, so the two kinds share their names.
fn repeated(objects: &[Object], source_name: &str) -> Vec<ManifestError> {
    let mut seen = BTreeSet::new();
    let mut errors = Vec::new();
    for object in objects {
        let kind = match object.body.kind() {
            Kind::VirtualMachineInstance => Kind::VirtualMachine,
            kind => kind,
        };
        if !seen.insert((kind, object.body.key())) {
            let problem = Problem::Invalid(format!("{} is given twice", object.body.key()));
            let finding = Finding { path: "metadata.name".to_owned(), problem };
            errors.push(ManifestError::of(source_name, object.document, &object.source, finding));
        }
    }
    errors
}

#[cfg(test)]
mod page;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
