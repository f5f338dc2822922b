//! NetworkAttachmentDefinition of k8s.cni.cncf.io/v1: a network that Multus, or the local runner, plugs NICs into.

use serde_json::Value;

use crate::metadata::{self, Metadata};
use crate::reader::Fields;

/// A secondary network: one that is not the pod network.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkAttachmentDefinition {
    /// Identity, labels and annotations.
    pub metadata: Metadata,
    /// What CNI is asked for.
    pub config: NetworkConfig,
}

/// Where a network's CNI configuration is.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkConfig {
    /// Here: a single plugin's configuration, or a list with `plugins`.
    Inline(Value),
    /// In the file of the node's CNI folder whose configuration has the object's name.
    ByName,
}

/// The annotation that names the device-plugin resource behind a network.
const RESOURCE_NAME: &str = "k8s.v1.cni.cncf.io/resourceName";

impl NetworkAttachmentDefinition {
    pub(crate) fn read(object: &Fields<'_>) -> Option<Self> {
        let metadata = metadata::read(object);
        let spec = object.field("spec").map(|node| node.fields(read_config));
        let config = spec.unwrap_or(Some(Some(NetworkConfig::ByName)))??;
        Some(Self { metadata: metadata?, config })
    }

    /// The device-plugin resource whose devices the network hands out.
    #[must_use]
    pub fn resource_name(&self) -> Option<&str> {
        self.metadata.annotations.get(RESOURCE_NAME).map(String::as_str)
    }
}

fn read_config(spec: &Fields<'_>) -> Option<NetworkConfig> {
    let Some(node) = spec.field("config") else { return Some(NetworkConfig::ByName) };
    let text = node.text()?;
    if text.trim().is_empty() {
        return Some(NetworkConfig::ByName);
    }
    let config: Value = match serde_json::from_str(text) {
        Ok(config) => config,
        Err(error) => {
            node.refuse(format!("must be JSON: {error}"));
            return None;
        }
    };
    let is_text = |key| config.get(key).and_then(Value::as_str).is_some_and(|text: &str| !text.is_empty());
    let is_list = config.get("plugins").and_then(Value::as_array).is_some_and(|plugins| !plugins.is_empty());
    if !is_text("type") && !is_list {
        node.refuse("must be a CNI configuration with \"type\", or a list with \"plugins\"");
        return None;
    }
    if !is_text("cniVersion") {
        node.refuse("must have a \"cniVersion\"");
        return None;
    }
    Some(NetworkConfig::Inline(config))
}
