//! What an operator configures for the whole cluster in the KubeVirt object.

use std::collections::BTreeMap;

use api::translate::BindingPlugin;
use serde_json::Value;

use crate::objects::KubeVirt;

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterConfig {
    /// Image of the launcher's container.
    pub(crate) launcher_image: String,
    /// The same with a shell and tools, which the KubeVirt object may choose.
    pub(crate) launcher_tools_image: Option<String>,
    /// Whether guests run in emulation instead of KVM; no pod asks for a KVM device then.
    pub(crate) use_emulation: bool,
    /// RuntimeClass of launcher pods.
    pub(crate) runtime_class: Option<String>,
    /// Which way the wiring request reaches the CNI plugin.
    pub(crate) wiring_channel: WiringChannel,
    /// Whether pods ask the node agent's device plugins for /dev/net/tun.
    pub(crate) requests_tun: bool,
    /// Whether pods mount container images as volumes; else init containers copy the files.
    pub(crate) mounts_images: bool,
    /// How many migrations may have a target pod.
    pub(crate) migrations: MigrationLimits,
    /// Plugins that join NICs, by their names; `None` for who does not follow the KubeVirt object.
    pub(crate) bindings: Option<BTreeMap<String, BindingPlugin>>,
}

/// What the deletion of the KubeVirt object makes of VMs. Without a word VMs keep it, where KubeVirt would remove them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum UninstallStrategy {
    /// The object cannot be deleted while there are VMs.
    #[default]
    BlockUninstallIfWorkloadsExist,
    /// They are deleted.
    RemoveWorkloads,
}

impl UninstallStrategy {
    /// By its name in `spec.uninstallStrategy`; `None` for another.
    pub(crate) fn read(name: &Value) -> Option<Self> {
        match name.as_str().unwrap_or_default() {
            "" if name.is_null() || name.is_string() => Some(Self::default()),
            "BlockUninstallIfWorkloadsExist" => Some(Self::BlockUninstallIfWorkloadsExist),
            "RemoveWorkloads" => Some(Self::RemoveWorkloads),
            _ => None,
        }
    }
}

/// How many migrations may have a target pod at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MigrationLimits {
    /// In the cluster.
    pub(crate) per_cluster: usize,
    /// From one node.
    pub(crate) outbound_per_node: usize,
}

impl Default for MigrationLimits {
    /// KubeVirt's.
    fn default() -> Self {
        Self { per_cluster: 5, outbound_per_node: 2 }
    }
}

/// Which way the wiring request reaches the CNI plugin; never both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WiringChannel {
    /// The pod annotation, which the runtime hands to the plugin.
    Annotation,
    /// The last element of Multus' networks annotation.
    Multus,
}

/// Why a KubeVirt object's configuration is not put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub(crate) struct ConfigError {
    path: String,
    reason: String,
}

const CONFIGURATION: &str = "spec.configuration";

/// Annotation of the KubeVirt object that says where the wiring request goes: `annotation` or `multus`.
const WIRING_CHANNEL: &str = "tapvisor.io/wiring-channel";

/// Annotation of the KubeVirt object, `true` or `false`: whether pods mount container images as volumes. Without it the API
/// server's version decides.
const IMAGE_VOLUMES: &str = "tapvisor.io/image-volumes";

/// Annotation of the KubeVirt object, `true` or `false`: whether launchers have a shell and tools in their container.
const LAUNCHER_TOOLS: &str = "tapvisor.io/launcher-tools";

impl ClusterConfig {
    /// Whether launcher pods need a node whose agent is ready: without a RuntimeClass the agent gives them their devices.
    pub(crate) fn requires_agent(&self) -> bool {
        self.requests_tun
    }

    /// The configuration without a KubeVirt object.
    pub(crate) fn new(launcher_image: String) -> Self {
        Self {
            launcher_image,
            launcher_tools_image: None,
            use_emulation: false,
            runtime_class: None,
            wiring_channel: WiringChannel::Annotation,
            requests_tun: true,
            mounts_images: true,
            migrations: MigrationLimits::default(),
            bindings: None,
        }
    }

    /// The configuration that a KubeVirt object asks for.
    ///
    /// # Errors
    /// Every field whose value is of the wrong type.
    pub(crate) fn read(defaults: &Self, object: &KubeVirt) -> Result<Self, Vec<ConfigError>> {
        let (mut config, mut errors) = (defaults.clone(), Vec::new());
        let configuration = object.spec.fields.get("configuration").unwrap_or(&Value::Null);
        let read = |path: &str| -> Option<Value> {
            path.split('.')
                .try_fold(configuration, |value, name| value.get(name))
                .filter(|value| !value.is_null())
                .cloned()
        };
        match read("developerConfiguration.useEmulation") {
            Some(Value::Bool(value)) => config.use_emulation = value,
            Some(other) => errors.push(wrong("developerConfiguration.useEmulation", "true or false", &other)),
            None => {}
        }
        match read("defaultRuntimeClass") {
            Some(Value::String(name)) => {
                // The class' handler gives the pod its device nodes.
                config.requests_tun = name.is_empty();
                config.runtime_class = Some(name).filter(|name| !name.is_empty());
            }
            Some(other) => errors.push(wrong("defaultRuntimeClass", "the name of a RuntimeClass", &other)),
            None => {}
        }
        for (path, limit) in [
            ("migrations.parallelMigrationsPerCluster", &mut config.migrations.per_cluster),
            ("migrations.parallelOutboundMigrationsPerNode", &mut config.migrations.outbound_per_node),
        ] {
            let Some(value) = read(path) else { continue };
            match value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|number| *number > 0) {
                Some(number) => *limit = number,
                None => errors.push(wrong(path, "a whole number above 0", &value)),
            }
        }
        config.bindings = Some(BTreeMap::new());
        match read("network.binding") {
            Some(Value::Object(plugins)) => {
                let plugins = plugins.iter().map(|(name, plugin)| (name.clone(), binding(plugin)));
                config.bindings = Some(plugins.collect());
            }
            Some(other) => errors.push(wrong("network.binding", "a map of binding plugins", &other)),
            None => {}
        }
        let strategy = object.spec.fields.get("uninstallStrategy").unwrap_or(&Value::Null);
        if UninstallStrategy::read(strategy).is_none() {
            errors.push(ConfigError {
                path: "spec.uninstallStrategy".to_owned(),
                reason: format!("must be BlockUninstallIfWorkloadsExist or RemoveWorkloads, is {strategy}"),
            });
        }
        let annotations = object.metadata.annotations.iter().flatten();
        for (_, value) in annotations.filter(|(key, _)| *key == WIRING_CHANNEL) {
            match value.as_str() {
                "annotation" => config.wiring_channel = WiringChannel::Annotation,
                "multus" => config.wiring_channel = WiringChannel::Multus,
                other => errors.push(ConfigError {
                    path: format!("metadata.annotations[{WIRING_CHANNEL}]"),
                    reason: format!("must be annotation or multus, is {other:?}"),
                }),
            }
        }
        match annotated_bool(object, IMAGE_VOLUMES) {
            Ok(chosen) => config.mounts_images = chosen.unwrap_or(defaults.mounts_images),
            Err(error) => errors.push(error),
        }
        match tools_image(defaults, object) {
            Ok(Some(image)) => config.launcher_image = image,
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }
}

/// How a plugin joins NICs. One that does more than Tapvisor can is no error before an interface names it.
fn binding(plugin: &Value) -> BindingPlugin {
    const MORE: [&str; 4] = ["sidecarImage", "networkAttachmentDefinition", "downwardAPI", "computeResourceOverhead"];
    let is_given = |field: &&str| plugin.get(field).is_some_and(|value| !value.is_null() && value != "");
    let refuse = |why: String| BindingPlugin::NotSupported(format!("{why}: not supported"));
    match (plugin["domainAttachmentType"].as_str(), MORE.iter().find(|field| is_given(field))) {
        (_, Some(field)) => refuse((*field).to_owned()),
        (Some("managedTap"), None) => BindingPlugin::ManagedTap,
        (other, None) => refuse(format!("domainAttachmentType {:?}", other.unwrap_or_default())),
    }
}

/// The image with tools, where the object chooses it.
fn tools_image(defaults: &ClusterConfig, object: &KubeVirt) -> Result<Option<String>, ConfigError> {
    match (annotated_bool(object, LAUNCHER_TOOLS)?, &defaults.launcher_tools_image) {
        (None | Some(false), _) => Ok(None),
        (Some(true), Some(image)) => Ok(Some(image.clone())),
        (Some(true), None) => Err(ConfigError {
            path: format!("metadata.annotations[{LAUNCHER_TOOLS}]"),
            reason: "is true, and the controller has no --launcher-tools-image".to_owned(),
        }),
    }
}

/// An annotation that is `true` or `false`.
fn annotated_bool(object: &KubeVirt, name: &str) -> Result<Option<bool>, ConfigError> {
    let value = object.metadata.annotations.as_ref().and_then(|annotations| annotations.get(name));
    match value.map(String::as_str) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => Err(ConfigError {
            path: format!("metadata.annotations[{name}]"),
            reason: format!("must be true or false, is {other:?}"),
        }),
    }
}

fn wrong(path: &str, expected: &str, found: &Value) -> ConfigError {
    ConfigError { path: format!("{CONFIGURATION}.{path}"), reason: format!("must be {expected}, is {found}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(spec: Value, annotation: Option<&str>) -> Result<ClusterConfig, String> {
        let mut object =
            json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "kubevirt"}, "spec": spec});
        if let Some(value) = annotation {
            object["metadata"]["annotations"] = json!({WIRING_CHANNEL: value});
        }
        let object = serde_json::from_value(object).unwrap();
        let join = |errors: Vec<ConfigError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        ClusterConfig::read(&ClusterConfig::new("launcher:1".into()), &object).map_err(join)
    }

    #[test]
    fn an_empty_object_changes_nothing() {
        let followed = ClusterConfig { bindings: Some(BTreeMap::new()), ..ClusterConfig::new("launcher:1".into()) };
        assert_eq!(read(json!({}), None), Ok(followed));
    }

    #[test]
    fn emulation_runtime_class_and_wiring_channel_are_read() {
        let spec = json!({"configuration": {"developerConfiguration": {"useEmulation": true}, "defaultRuntimeClass": "tapvisor"}});
        let config = read(spec, Some("multus")).unwrap();
        assert!(config.use_emulation && !config.requests_tun);
        assert_eq!((config.runtime_class.as_deref(), config.wiring_channel), (Some("tapvisor"), WiringChannel::Multus));
    }

    // spec: MIG-3
    #[test]
    fn limits_of_migrations_are_read_from_kubevirts_fields() {
        let limits = |migrations: Value| read(json!({"configuration": {"migrations": migrations}}), None);
        let config =
            limits(json!({"parallelMigrationsPerCluster": 3, "parallelOutboundMigrationsPerNode": 1})).unwrap();
        assert_eq!(config.migrations, MigrationLimits { per_cluster: 3, outbound_per_node: 1 });
        let error = limits(json!({"parallelMigrationsPerCluster": 0})).unwrap_err();
        assert!(
            error.ends_with("migrations.parallelMigrationsPerCluster: must be a whole number above 0, is 0"),
            "{error}"
        );
    }

    // spec: CTRL-56
    #[test]
    fn binding_plugins_are_read_and_what_more_one_does_is_named() {
        let plugins = |plugins: Value| read(json!({"configuration": {"network": {"binding": plugins}}}), None);
        let config = plugins(json!({"tap": {"domainAttachmentType": "managedTap", "migration": {}},
            "macvtap": {"domainAttachmentType": "tap"},
            "passt": {"sidecarImage": "passt:1", "domainAttachmentType": "managedTap"}}));
        let bindings = config.unwrap().bindings.unwrap();
        assert_eq!(bindings["tap"], BindingPlugin::ManagedTap);
        let refused = |why: &str| BindingPlugin::NotSupported(format!("{why}: not supported"));
        assert_eq!(bindings["macvtap"], refused("domainAttachmentType \"tap\""));
        assert_eq!(bindings["passt"], refused("sidecarImage"));
        assert!(plugins(json!([])).unwrap_err().contains("network.binding: must be a map"));
    }

    #[test]
    fn every_wrong_value_is_named_by_its_path() {
        let spec =
            json!({"configuration": {"developerConfiguration": {"useEmulation": "yes"}, "defaultRuntimeClass": 1}});
        assert_eq!(
            read(spec, Some("both")).unwrap_err(),
            "spec.configuration.developerConfiguration.useEmulation: must be true or false, is \"yes\"; \
             spec.configuration.defaultRuntimeClass: must be the name of a RuntimeClass, is 1; \
             metadata.annotations[tapvisor.io/wiring-channel]: must be annotation or multus, is \"both\""
        );
    }

    // spec: CTRL-35
    #[test]
    fn image_volumes_can_be_switched_off_by_annotation() {
        let read = |value: &str| {
            let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "spec": {},
                "metadata": {"name": "kubevirt", "annotations": {IMAGE_VOLUMES: value}}});
            let read =
                ClusterConfig::read(&ClusterConfig::new("launcher:1".into()), &serde_json::from_value(object).unwrap());
            read.map(|config| config.mounts_images).map_err(|errors| errors[0].to_string())
        };
        assert_eq!((read("true"), read("false")), (Ok(true), Ok(false)));
        let path = "metadata.annotations[tapvisor.io/image-volumes]";
        assert_eq!(read("no").unwrap_err(), format!("{path}: must be true or false, is \"no\""));
    }

    // spec: CTRL-24
    #[test]
    fn tools_in_launchers_are_chosen_by_annotation() {
        let read = |value: &str, image: Option<&str>| {
            let defaults = ClusterConfig {
                launcher_tools_image: image.map(str::to_owned),
                ..ClusterConfig::new("launcher:1".into())
            };
            let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "spec": {},
                "metadata": {"name": "kubevirt", "annotations": {LAUNCHER_TOOLS: value}}});
            let read = ClusterConfig::read(&defaults, &serde_json::from_value(object).unwrap());
            read.map(|config| config.launcher_image).map_err(|errors| errors[0].to_string())
        };
        assert_eq!(read("true", Some("tools:1")).unwrap(), "tools:1");
        assert_eq!(read("false", Some("tools:1")).unwrap(), "launcher:1");
        let path = "metadata.annotations[tapvisor.io/launcher-tools]: ";
        assert!(read("true", None).unwrap_err().starts_with(&format!("{path}is true, and the controller has no")));
        assert_eq!(read("yes", Some("tools:1")).unwrap_err(), format!("{path}must be true or false, is \"yes\""));
    }
}
