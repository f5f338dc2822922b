//! A machine read strictly: what is wrong with it and with every instance of it, each by its path.

use super::instance::instance;
use super::object::VirtualMachine;
use crate::config::ClusterConfig;
use crate::manifest;
use crate::template::{self, Findings};

/// Reads a machine as this cluster would run it.
pub(crate) fn read(vm: &VirtualMachine, config: &ClusterConfig) -> Findings {
    let read = manifest::read("VirtualMachine", &vm.metadata, &vm.spec.fields);
    let mut findings = Findings { complaints: read.body.err().unwrap_or_default(), warnings: read.warnings };
    // What only a cluster refuses is known once the instance is read.
    let of_instance = match instance(vm, false, "") {
        Ok(vmi) => template::read(&vmi, config).complaints,
        Err(error) => vec![format!("spec.template: {error}")],
    };
    let known = findings.complaints.clone();
    findings.complaints.extend(of_instance.into_iter().filter(|complaint| !known.contains(complaint)));
    findings
}
