//! A set read strictly: what is wrong with it and with every instance of it, each by its path.

use super::object::ReplicaSet;
use super::reconcile::instance;
use super::selector;
use crate::config::ClusterConfig;
use crate::template;

/// Complaints and warnings about a set.
pub(crate) fn read(set: &ReplicaSet, config: &ClusterConfig) -> template::Findings {
    let mut findings = match instance(set, set.metadata.name.as_deref().unwrap_or_default()) {
        Ok(vmi) => template::read(&vmi, config),
        Err(error) => {
            template::Findings { complaints: vec![format!("spec.template: {error}")], ..template::Findings::default() }
        }
    };
    let labels = set.spec.template["metadata"]["labels"].clone();
    let labels = serde_json::from_value(labels).unwrap_or_default();
    if selector::is_empty(&set.spec.selector) {
        findings
            .complaints
            .insert(0, "spec.selector: must have a condition: without one it selects nothing".to_owned());
    } else if !selector::matches(&set.spec.selector, &labels) {
        let complaint = "spec.template.metadata.labels: spec.selector must select them".to_owned();
        findings.complaints.insert(0, complaint);
    }
    findings
}
