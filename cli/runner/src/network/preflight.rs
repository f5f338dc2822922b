//! Checks a network's configuration against this host before anything is changed: plugins, their versions, the links they name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_protocol::runtime::{ConfigList, Runtime};
use serde_json::Value;
use terms::IpNetwork;

use super::plugins::ipam_plugin;
use super::{MissingPlugin, PluginFolders};

/// Why a network's configuration cannot work on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkFault {
    /// A plugin is not installed.
    #[error(transparent)]
    Plugin(#[from] MissingPlugin),
    /// A plugin does not speak the version of the configuration.
    #[error(
        "network {network}: cniVersion: {version}: the plugin {plugin:?} speaks {spoken}: write one of these, or install a newer plugin"
    )]
    Version {
        /// Name of the network.
        network: String,
        /// The version of its configuration.
        version: String,
        /// The type of the plugin.
        plugin: String,
        /// The versions that the plugin speaks, as text.
        spoken: String,
    },
    /// A range of addresses that pods cannot have.
    #[error("network {network}: plugins[{index}].{path}: {range} contains {what}")]
    Range {
        /// Name of the network.
        network: String,
        /// The place of the plugin in the list.
        index: usize,
        /// The field within the plugin.
        path: String,
        /// The range as the configuration has it.
        range: String,
        /// What in it pods cannot have, as text.
        what: String,
    },
    /// A link that a plugin builds on is not there.
    #[error("network {network}: plugins[{index}].{field}: this host has no link {link:?}")]
    Link {
        /// Name of the network.
        network: String,
        /// The place of the plugin in the list.
        index: usize,
        /// The field that names the link.
        field: &'static str,
        /// Name of the missing link.
        link: String,
    },
}

impl NetworkFault {
    /// Whether the host lacks a program, rather than the configuration naming something wrong.
    #[must_use]
    pub fn is_hosts(&self) -> bool {
        matches!(self, Self::Plugin(_))
    }
}

/// What is asked of each plugin once, however many networks use it.
#[derive(Debug)]
pub struct Preflight<'a> {
    folders: &'a PluginFolders,
    has_link: fn(&str) -> bool,
    /// The versions that plugins speak; `None` for a plugin that does not say.
    spoken: RefCell<BTreeMap<String, Option<Vec<String>>>>,
}

/// Whether the host has a link of that name, or that other name.
#[must_use]
pub fn has_link(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

impl<'a> Preflight<'a> {
    /// Checks with the plugins of these folders; `has_link` tells which links the host has.
    #[must_use]
    pub fn new(folders: &'a PluginFolders, has_link: fn(&str) -> bool) -> Self {
        Self { folders, has_link, spoken: RefCell::default() }
    }

    /// Where plugins are looked for, first to last.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        self.folders.list()
    }

    /// Checks one network.
    ///
    /// # Errors
    /// All that is wrong with it here.
    pub fn expect(&self, list: &ConfigList) -> Result<(), Vec<NetworkFault>> {
        let document = list.to_document();
        let plugins = document["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
        let faults: Vec<_> = match self.folders.expect(list) {
            Err(missing) => vec![missing.into()],
            Ok(()) => types(plugins).into_iter().filter_map(|plugin| self.version_fault(list, plugin)).collect(),
        };
        let links = plugins.iter().enumerate().filter_map(|(index, plugin)| self.link_fault(list, index, plugin));
        let ranges = plugins.iter().enumerate().flat_map(|(index, plugin)| range_faults(list, index, plugin));
        let faults: Vec<_> = faults.into_iter().chain(links).chain(ranges).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn version_fault(&self, list: &ConfigList, plugin: &str) -> Option<NetworkFault> {
        let version = list.version().as_str();
        let mut known = self.spoken.borrow_mut();
        let spoken = known.entry(plugin.to_owned()).or_insert_with(|| self.versions(plugin)).as_ref()?;
        (!spoken.iter().any(|spoken| spoken == version)).then(|| NetworkFault::Version {
            network: list.name().to_string(),
            version: version.to_owned(),
            plugin: plugin.to_owned(),
            spoken: spoken.join(", "),
        })
    }

    /// The specification has plugins answer VERSION. For one that does not, ADD decides.
    fn versions(&self, plugin: &str) -> Option<Vec<String>> {
        const PATIENCE: Duration = Duration::from_secs(10);
        if self.folders.is_own(plugin) {
            return None;
        }
        // VERSION writes nothing to the cache.
        let runtime = Runtime::new(Path::new(""), self.folders.list()).with_patience(PATIENCE).with_log(|_, _| ());
        let versions = runtime.versions(plugin);
        let versions = versions
            .inspect_err(|error| tracing::warn!(error = %crate::chain(error), "a plugin does not answer VERSION"));
        versions.ok().filter(|versions| !versions.is_empty())
    }

    fn link_fault(&self, list: &ConfigList, index: usize, plugin: &Value) -> Option<NetworkFault> {
        let text = |field: &str| plugin.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        let field = match text("type")? {
            "macvlan" | "ipvlan" | "vlan" => "master",
            "host-device" => "device",
            _ => return None,
        };
        // The link is the pod's then.
        let is_in_pod = plugin.get("linkInContainer").and_then(Value::as_bool).unwrap_or_default();
        let link = text(field).filter(|link| !is_in_pod && !(self.has_link)(link))?;
        Some(NetworkFault::Link { network: list.name().to_string(), index, field, link: link.to_owned() })
    }
}

/// Subnets and addresses that an IPAM plugin is to give, as host-local and static write them, where no pod can have them.
fn range_faults(list: &ConfigList, index: usize, plugin: &Value) -> Vec<NetworkFault> {
    let ipam = &plugin["ipam"];
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut given = vec![("ipam.subnet".to_owned(), ipam["subnet"].clone())];
    for (set, ranges) in items(&ipam["ranges"]).iter().enumerate() {
        let subnet =
            |(at, range): (usize, &Value)| (format!("ipam.ranges[{set}][{at}].subnet"), range["subnet"].clone());
        given.extend(items(ranges).iter().enumerate().map(subnet));
    }
    let address = |(at, one): (usize, &Value)| (format!("ipam.addresses[{at}].address"), one["address"].clone());
    given.extend(items(&ipam["addresses"]).iter().enumerate().map(address));
    let fault = |(path, value): (String, Value)| {
        let range: IpNetwork = value.as_str()?.parse().ok()?;
        let what = reserved(range)?;
        Some(NetworkFault::Range { network: list.name().to_string(), index, path, range: range.to_string(), what })
    };
    given.into_iter().filter_map(fault).collect()
}

/// What a range meets that neither pods nor guests can have here.
pub(crate) fn reserved(range: IpNetwork) -> Option<String> {
    let of_services = || {
        let met = crate::service_store::ranges().into_iter().find(|own| wiring::overlap(*own, range))?;
        Some(format!("addresses of Services ({met})"))
    };
    wiring::reserved(range).map(str::to_owned).or_else(of_services)
}

/// The types of the plugins and of those that they call for addresses, each once.
fn types(plugins: &[Value]) -> Vec<&str> {
    let mut types = Vec::new();
    for plugin in plugins {
        let both = [plugin.get("type").and_then(Value::as_str), ipam_plugin(plugin)];
        for kind in both.into_iter().flatten() {
            if !types.contains(&kind) {
                types.push(kind);
            }
        }
    }
    types
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    fn plugin(dir: &Path, name: &str, script: &str) {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn faults(dir: &Path, config: Value) -> Vec<String> {
        let folders = PluginFolders::new(Path::new("/nowhere"), Path::new("/nowhere"), dir.to_str());
        let list = ConfigList::from_value(config).unwrap();
        let found = Preflight::new(&folders, |link| link == "uplink0").expect(&list);
        found.err().into_iter().flatten().map(|fault| fault.to_string()).collect()
    }

    // spec: NET-1
    #[test]
    fn a_plugin_without_the_lists_version_is_reported_with_its_versions() {
        let dir = tempfile::tempdir().unwrap();
        let old = r#"echo "$CNI_COMMAND" >>"$(dirname "$0")/calls"; echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}'"#;
        plugin(dir.path(), "ptp", old);
        plugin(dir.path(), "host-local", old);
        plugin(dir.path(), "silent", "exit 1");
        let list = |version: &str| {
            json!({"cniVersion": version, "name": "c", "plugins": [
            {"type": "ptp", "ipam": {"type": "host-local"}}, {"type": "ptp"}, {"type": "silent"}]})
        };
        assert_eq!(faults(dir.path(), list("1.0.0")), Vec::<String>::new());
        let found = faults(dir.path(), list("1.1.0"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("network c: cniVersion: 1.1.0: the plugin \"ptp\" speaks 0.4.0, 1.0.0"),
            "{found:?}"
        );
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        assert_eq!(calls, "VERSION\n".repeat(4), "each plugin is asked once in a check");
    }

    // spec: NET-1
    #[test]
    fn ranges_that_no_pod_can_have_are_named_by_their_fields() {
        let dir = tempfile::tempdir().unwrap();
        plugin(dir.path(), "ptp", "exit 1");
        plugin(dir.path(), "host-local", "exit 1");
        let ipam = json!({"type": "host-local", "subnet": "127.0.0.0/24",
            "ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "172.30.0.0/16"}, {"subnet": "ff05::/64"}]]});
        let found =
            faults(dir.path(), json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ptp", "ipam": ipam}]}));
        assert_eq!(
            found,
            [
                "network n: plugins[0].ipam.subnet: 127.0.0.0/24 contains loopback addresses",
                "network n: plugins[0].ipam.ranges[1][0].subnet: 172.30.0.0/16 contains addresses of Services (172.30.78.0/24)",
                "network n: plugins[0].ipam.ranges[1][1].subnet: ff05::/64 contains multicast addresses",
            ]
        );
    }

    // spec: NET-1
    #[test]
    fn a_missing_master_is_reported_by_its_field_with_all_other_errors() {
        let dir = tempfile::tempdir().unwrap();
        plugin(dir.path(), "macvlan", "exit 1");
        let with = |more: Value| {
            let mut plugin = json!({"type": "macvlan"});
            plugin.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            faults(dir.path(), json!({"cniVersion": "1.0.0", "name": "lan", "plugins": [{"type": "macvlan"}, plugin]}))
        };
        assert_eq!(
            with(json!({"master": "nosuch0"})),
            ["network lan: plugins[1].master: this host has no link \"nosuch0\""]
        );
        let both = with(json!({"master": "nosuch0", "ipam": {"type": "static"}}));
        assert!(both.len() == 2 && both[0].contains("needs the CNI plugin \"static\""), "{both:?}");
        for fine in [json!({}), json!({"master": "uplink0"}), json!({"master": "eth0", "linkInContainer": true})] {
            assert_eq!(with(fine), Vec::<String>::new());
        }
    }
}
