//! A machine read strictly: what is wrong with it and with every instance of it, each by its path.

use api::manifest;
use serde_json::{Value, json};

use super::instance::instance;
use super::object::VirtualMachine;
use crate::config::ClusterConfig;
use crate::vmi::launch;

/// What was found in a machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Everything that is wrong, each with its path.
    pub(crate) complaints: Vec<String>,
    /// Fields without effect, each with its path and the reason.
    pub(crate) warnings: Vec<String>,
}

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
        Ok(vmi) => launch::read(&vmi, config).launch.err().unwrap_or_default(),
        Err(error) => vec![format!("spec.template: {error}")],
    };
    for complaint in of_instance {
        let complaint = in_template(complaint);
        if !findings.complaints.contains(&complaint) {
            findings.complaints.push(complaint);
        }
    }
    findings
}

/// The path of an instance's field as that of the template's.
fn in_template(complaint: String) -> String {
    let is_field = ["spec.", "spec:", "metadata."].iter().any(|start| complaint.starts_with(start));
    if is_field && !complaint.starts_with("spec.template") { format!("spec.template.{complaint}") } else { complaint }
}
