//! An object as the API server stores it, read as strictly as a manifest on one machine.

use api::manifest::Body;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

/// What was read of an object.
#[derive(Debug)]
pub(crate) struct Read {
    /// Its typed content, or everything that is wrong, each with its path.
    pub(crate) body: Result<Body, Vec<String>>,
    /// Fields without effect, each with its path and the reason.
    pub(crate) warnings: Vec<String>,
}

/// Reads an object of kubevirt.io/v1 from its identity and the fields of its `spec`.
pub(crate) fn read(kind: &str, metadata: &ObjectMeta, spec: &Map<String, Value>) -> Read {
    let value = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": kind,
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "labels": metadata.labels.clone().unwrap_or_default(),
            "annotations": metadata.annotations.clone().unwrap_or_default(),
        },
        "spec": spec,
    });
    match api::manifest::from_value(&value, "object") {
        Ok(read) => {
            // Fields without effect on one machine are for a cluster.
            let everywhere = read.warnings.iter().filter(|warning| warning.scope == api::Scope::Everywhere);
            Read { warnings: everywhere.map(ToString::to_string).collect(), body: Ok(read.body) }
        }
        Err(errors) => {
            let complaints = errors.iter().map(|error| match error.path.as_str() {
                "" => error.problem.to_string(),
                path => format!("{path}: {}", error.problem),
            });
            Read { body: Err(complaints.collect()), warnings: Vec::new() }
        }
    }
}
