//! Writes of controllers to the API server: each names what failed, and a step that was done already is no failure.
//!
//! Guarantees: a patch or a status is for the version of the object that was seen; where another was written meanwhile
//! nothing is changed, and that other version leads to another pass.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::MANAGER;

/// The next try after a failure.
pub(crate) const RETRY: Duration = Duration::from_secs(2);
/// The next try after the API server refused an object, which seldom helps.
const RETRY_REFUSED: Duration = Duration::from_secs(30);
/// Kubernetes' bound on the text of an event, in bytes.
const LONGEST_NOTE: usize = 1024;

/// A kind of object in a namespace.
pub(crate) trait Object:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Object for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned
{
}

/// Why a step was not done; it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub(crate) struct WriteError {
    what: String,
    #[source]
    source: Source,
}

#[derive(Debug, thiserror::Error)]
enum Source {
    /// The API server refused a request or did not answer.
    #[error(transparent)]
    Api(kube::Error),
    /// What was to be written has not the shape of its kind.
    #[error(transparent)]
    Shape(serde_json::Error),
}

impl WriteError {
    /// An object that could not be built.
    pub(crate) fn shape(what: &str, source: serde_json::Error) -> Self {
        Self { what: what.to_owned(), source: Source::Shape(source) }
    }

    /// An object that could not be read.
    pub(crate) fn read(what: &str, source: kube::Error) -> Self {
        Self { what: format!("read the {what}"), source: Source::Api(source) }
    }

    /// A request that the API server refused or did not answer.
    pub(crate) fn api(what: &str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self { what: what.to_owned(), source: Source::Api(source) }
    }

    /// How long to wait before the next try.
    pub(crate) fn retry_after(&self) -> Duration {
        let is_refusal =
            matches!(&self.source, Source::Api(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422));
        if is_refusal { RETRY_REFUSED } else { RETRY }
    }
}

/// Writes objects of one namespace.
pub(crate) struct Writer<'a> {
    client: &'a Client,
    recorder: &'a Recorder,
    namespace: String,
}

impl<'a> Writer<'a> {
    /// A writer of the namespace of an object.
    pub(crate) fn new(client: &'a Client, recorder: &'a Recorder, object: &impl Object) -> Self {
        Self { client, recorder, namespace: object.namespace().unwrap_or_default() }
    }

    fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an object. Names are deterministic: one that exists was made by an earlier pass that the cache does not show
    /// yet. Says whether this pass made it.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn create<K: Object>(&self, object: &K, what: &str) -> Result<bool, WriteError> {
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match self.api::<K>().create(&parameters, object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            other => other.map(|_| true).map_err(WriteError::api(what)),
        }
    }

    /// Deletes this very version of an object: what it was deleted for, as its owner, may have changed. Says whether this
    /// pass did.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn delete<K: Object>(&self, object: &K, what: &str) -> Result<bool, WriteError> {
        let preconditions = Some(Preconditions { uid: object.uid(), resource_version: object.resource_version() });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match self.api::<K>().delete(&object.name_any(), &parameters).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            other => other.map(|_| true).map_err(WriteError::api(what)),
        }
    }

    /// Merges a change into this very version of an object.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn patch<K: Object>(&self, object: &K, mut change: Value, what: &str) -> Result<(), WriteError> {
        change["metadata"]["uid"] = json!(object.meta().uid);
        change["metadata"]["resourceVersion"] = json!(object.meta().resource_version);
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match self.api::<K>().patch(&object.name_any(), &parameters, &Patch::Merge(change)).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            other => other.map(drop).map_err(WriteError::api(what)),
        }
    }

    /// Replaces the status of this very version of an object. False where it has changed meanwhile or is gone.
    ///
    /// # Errors
    /// The API server's.
    pub(crate) async fn replace_status<K: Object>(&self, object: &K) -> Result<bool, WriteError> {
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match self.api::<K>().replace_status(&object.name_any(), &parameters, object).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            other => other.map(|_| true).map_err(WriteError::api("write the status")),
        }
    }

    /// Publishes an event about an object. One that cannot be written changes nothing.
    pub(crate) async fn tell(&self, object: &impl Object, type_: EventType, reason: &str, note: &str) {
        let note = note[..note.floor_char_boundary(LONGEST_NOTE)].to_owned();
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: "Run".to_owned(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(%error, "an event is not written");
        }
    }
}
