//! A machine read strictly: what is wrong with it and with every instance of it, each by its path.

use api::manifest;
use serde_json::{Value, json};

use super::instance::instance;
use super::object::VirtualMachine;
use crate::config::ClusterConfig;
use crate::template::{self, Findings};

/// Reads a machine as this cluster would run it.
pub(crate) fn read(vm: &VirtualMachine, config: &ClusterConfig) -> Findings {
    let value = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {
            "name": vm.metadata.name,
            "namespace": vm.metadata.namespace,
            "labels": vm.metadata.labels.clone().unwrap_or_default(),
            "annotations": vm.metadata.annotations.clone().unwrap_or_default(),
        },
        "spec": Value::Object(vm.spec.fields.clone()),
    });
    let mut findings = Findings::default();
    match manifest::from_value(&value, "object") {
        Ok(read) => {
            // Fields without effect on one machine are for a cluster.
            let everywhere = read.warnings.iter().filter(|warning| warning.scope == api::Scope::Everywhere);
            findings.warnings = everywhere.map(ToString::to_string).collect();
        }
        Err(errors) => {
            let complaints = errors.iter().map(|error| match error.path.as_str() {
                "" => error.problem.to_string(),
                path => format!("{path}: {}", error.problem),
            });
            findings.complaints = complaints.collect();
        }
    }
    // What only a cluster refuses is known once the instance is read.
    let of_instance = match instance(vm, false, "") {
        Ok(vmi) => template::read(&vmi, config).complaints,
        Err(error) => vec![format!("spec.template: {error}")],
    };
    let known = findings.complaints.clone();
    findings.complaints.extend(of_instance.into_iter().filter(|complaint| !known.contains(complaint)));
    findings
}
