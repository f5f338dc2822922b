//! A template read strictly: what is wrong with every instance of it, each by its path in the object that has the template.

use crate::config::ClusterConfig;
use crate::objects::VirtualMachineInstance;
use crate::vmi::launch;

/// What was found in an object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Everything that is wrong, each with its path.
    pub(crate) complaints: Vec<String>,
    /// Fields without effect, each with its path and the reason.
    pub(crate) warnings: Vec<String>,
}

/// Reads an instance of a template as this cluster would run it.
pub(crate) fn read(vmi: &VirtualMachineInstance, config: &ClusterConfig) -> Findings {
    let reading = launch::read(vmi, config);
    let in_template = |texts: Vec<String>| texts.into_iter().map(in_template).collect();
    Findings {
        complaints: in_template(reading.launch.err().unwrap_or_default()),
        warnings: in_template(reading.warnings),
    }
}

/// The path of an instance's field as that of the template's.
fn in_template(text: String) -> String {
    let is_field = ["spec.", "spec:", "metadata."].iter().any(|start| text.starts_with(start));
    if is_field { format!("spec.template.{text}") } else { text }
}
