//! Finds what a machine names, and expands the machine.

use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use super::super::instance::owner;
use super::super::object::VirtualMachine;
use super::super::revision::REVISION_OF;
use super::apply::apply;
use super::matcher::{Matcher, Role};
use super::path::set;

const GROUP: &str = "instancetype.kubevirt.io";
const VERSION: &str = "v1beta1";

/// A machine with its instancetype and preference put into its template.
#[derive(Debug, Clone)]
pub(crate) struct Expanded {
    /// The machine, which names neither any more.
    pub(crate) vm: VirtualMachine,
    /// Revisions of objects that the machine uses for the first time.
    pub(crate) revisions: Vec<ControllerRevision>,
    /// `instancetypeRef` and `preferenceRef` of the machine's status.
    pub(crate) references: Vec<(&'static str, Value)>,
}

impl Expanded {
    /// A machine as it is.
    pub(crate) fn plain(vm: &VirtualMachine) -> Self {
        Self { vm: vm.clone(), revisions: Vec::new(), references: Vec::new() }
    }
}

/// An object that a machine names.
struct Found {
    matcher: Matcher,
    spec: Value,
    /// The revision that holds it.
    revision: String,
    /// That revision, unless it exists.
    fresh: Option<ControllerRevision>,
}

/// Why a machine cannot be expanded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExpandError {
    /// The machine or what it names is wrong.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// The API server did not answer.
    #[error("cannot read the {0}")]
    Api(&'static str, #[source] kube::Error),
}

/// Expands a machine. One that names neither is returned as it is, without a request to the API server.
///
/// # Errors
/// Everything that is wrong, or the API server's.
pub(crate) async fn expand(client: &Client, vm: &VirtualMachine) -> Result<Expanded, ExpandError> {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for role in [Role::Instancetype, Role::Preference] {
        match Matcher::read(vm, role) {
            Ok(Some(matcher)) => found.push(find(client, vm, matcher).await?),
            Ok(None) => {}
            Err(complaint) => wrong.push(complaint),
        }
    }
    if !wrong.is_empty() {
        return Err(ExpandError::Refused(wrong));
    }
    put_together(vm, found).map_err(ExpandError::Refused)
}

/// Whether the status of a machine says what its instance was made with.
pub(crate) fn is_recorded(vm: &VirtualMachine) -> bool {
    let recorded = |role| match Matcher::read(vm, role) {
        Ok(Some(matcher)) => matcher.is_recorded(vm),
        Ok(None) | Err(_) => true,
    };
    recorded(Role::Instancetype) && recorded(Role::Preference)
}

fn put_together(vm: &VirtualMachine, found: Vec<Found>) -> Result<Expanded, Vec<String>> {
    let mut expanded = Expanded::plain(vm);
    if found.is_empty() {
        return Ok(expanded);
    }
    let spec_of = |role| found.iter().find(|found| found.matcher.role == role).map(|found| &found.spec);
    let fields = &mut expanded.vm.spec.fields;
    let mut template = fields.remove("template").unwrap_or_default();
    apply(&mut template, spec_of(Role::Instancetype), spec_of(Role::Preference))?;
    for Found { matcher, revision, fresh, .. } in found {
        set(&mut template, &["metadata", "annotations", matcher.annotation()], json!(matcher.name));
        fields.remove(matcher.role.field());
        let reference =
            json!({"name": matcher.name, "kind": matcher.kind(), "controllerRevisionRef": {"name": revision}});
        expanded.references.push((matcher.role.status_field(), reference));
        expanded.revisions.extend(fresh);
    }
    fields.insert("template".to_owned(), template);
    Ok(expanded)
}

async fn find(client: &Client, vm: &VirtualMachine, matcher: Matcher) -> Result<Found, ExpandError> {
    let namespace = vm.namespace().unwrap_or_default();
    let path = format!("spec.{}.name", matcher.role.field());
    if let Some(revision) = matcher.revision_in_use(vm) {
        let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &namespace);
        let object = api.get_opt(&revision).await.map_err(|source| ExpandError::Api("ControllerRevision", source))?;
        let data = object.and_then(|object| object.data).map(|data| data.0);
        let Some(data) = data else {
            return Err(ExpandError::Refused(vec![format!("{path}: ControllerRevision {revision:?} does not exist")]));
        };
        return Ok(Found { matcher, spec: data["spec"].clone(), revision, fresh: None });
    }
    let kind = matcher.kind();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind));
    let api: Api<DynamicObject> = match matcher.is_cluster {
        true => Api::all_with(client.clone(), &resource),
        false => Api::namespaced_with(client.clone(), &namespace, &resource),
    };
    let object = api.get_opt(&matcher.name).await.map_err(|source| ExpandError::Api(kind, source))?;
    let Some(object) = object else {
        return Err(ExpandError::Refused(vec![format!("{path}: {kind} {:?} does not exist", matcher.name)]));
    };
    let fresh = revision(vm, &object, kind)
        .map_err(|error| ExpandError::Refused(vec![format!("{path}: {kind} {:?}: {error}", matcher.name)]))?;
    Ok(Found { spec: object.data["spec"].clone(), revision: fresh.name_any(), fresh: Some(fresh), matcher })
}

/// The revision that keeps an object as it is now, for one machine.
fn revision(vm: &VirtualMachine, object: &DynamicObject, kind: &str) -> Result<ControllerRevision, serde_json::Error> {
    let (uid, generation) = (object.uid().unwrap_or_default(), object.metadata.generation.unwrap_or_default());
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("{}-{}-{VERSION}-{uid}-{generation}", vm.name_any(), object.name_any()),
            "namespace": vm.metadata.namespace,
            "labels": {
                REVISION_OF: vm.metadata.uid,
                "instancetype.kubevirt.io/object-kind": kind,
                "instancetype.kubevirt.io/object-name": object.name_any(),
                "instancetype.kubevirt.io/object-uid": uid,
                "instancetype.kubevirt.io/object-generation": generation.to_string(),
                "instancetype.kubevirt.io/object-version": VERSION,
            },
            "ownerReferences": [owner(vm)],
        },
        "data": {
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": kind,
            "metadata": {"name": object.name_any(), "namespace": object.metadata.namespace, "uid": uid, "generation": generation},
            "spec": object.data["spec"],
        },
        "revision": 0,
    }))
}
