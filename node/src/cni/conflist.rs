//! The runtime's configuration of its network: which file counts, and what is in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::install::PLUGIN;

/// The capability by which runtimes hand a pod's annotations to a plugin.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// The file that the runtime takes: the first by name that it can read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Primary {
    /// Where it is.
    pub(super) path: PathBuf,
    /// What it says.
    pub(super) content: Value,
}

impl Primary {
    /// Looks for the file in `folder`.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn find(folder: &Path) -> io::Result<Option<Self>> {
        let mut names: Vec<_> =
            fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
        names.sort();
        let is_configuration = |path: &PathBuf| {
            let ending = path.extension().unwrap_or_default();
            ["conf", "conflist", "json"].iter().any(|known| ending == *known)
        };
        let read = |path: PathBuf| {
            let content: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            content["name"].is_string().then_some(Self { path, content })
        };
        Ok(names.into_iter().filter(is_configuration).find_map(read))
    }

    /// The network's name, if that can be a folder's.
    pub(super) fn network(&self) -> Option<&str> {
        self.content["name"].as_str().filter(|name| !name.is_empty() && !name.contains('/') && !name.starts_with('.'))
    }

    /// Whether it is a list of plugins, not a single one.
    pub(super) fn is_list(&self) -> bool {
        self.content["plugins"].is_array()
    }

    /// Whether files in a folder of the network's name are appended to it.
    pub(super) fn takes_drop_ins(&self) -> bool {
        self.is_list() && self.content["loadOnlyInlinedPlugins"] != true
    }

    /// Whether our plugin is in the list itself.
    pub(super) fn names_us(&self) -> bool {
        self.content["plugins"].as_array().is_some_and(|plugins| plugins.iter().any(is_ours))
    }

    /// The list with our plugin as its last.
    pub(super) fn with_us(&self) -> Value {
        let mut content = self.content.clone();
        if let Some(plugins) = content["plugins"].as_array_mut() {
            plugins.push(entry());
        }
        content
    }

    /// The list without our plugin.
    pub(super) fn without_us(&self) -> Value {
        let mut content = self.content.clone();
        if let Some(plugins) = content["plugins"].as_array_mut() {
            plugins.retain(|plugin| !is_ours(plugin));
        }
        content
    }
}

fn is_ours(plugin: &Value) -> bool {
    plugin["type"] == PLUGIN
}

/// Our entry in a list.
pub(super) fn entry() -> Value {
    json!({"type": PLUGIN, "capabilities": {ANNOTATIONS: true}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Primary {
        let content = json!({"cniVersion": "1.0.0", "name": "pods", "extra": 1, "plugins": [{"type": "ptp"}, {"type": "portmap"}]});
        Primary { path: "/etc/cni/net.d/10-pods.conflist".into(), content }
    }

    #[test]
    fn the_first_file_by_name_that_can_be_read_counts() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Primary::find(folder.path()).unwrap(), None);
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("00-broken.conflist", "{");
        write("01-other.txt", r#"{"name": "text"}"#);
        write("20-late.conf", r#"{"name": "late", "type": "ptp"}"#);
        write("10-pods.conflist", &list().content.to_string());
        let found = Primary::find(folder.path()).unwrap().unwrap();
        assert_eq!((found.network(), found.is_list()), (Some("pods"), true));
        assert!(Primary::find(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn our_plugin_is_the_last_and_leaves_everything_else_as_it_was() {
        let with_us = Primary { content: list().with_us(), ..list() };
        assert!(with_us.names_us() && !list().names_us());
        assert_eq!(with_us.content["plugins"][2], json!({"type": "tapvisor", "capabilities": {ANNOTATIONS: true}}));
        assert_eq!(with_us.without_us(), list().content);
    }

    #[test]
    fn a_network_whose_name_is_a_path_has_no_drop_in_folder() {
        for name in ["..", "a/b", ""] {
            assert_eq!(Primary { content: json!({"name": name}), ..list() }.network(), None, "{name}");
        }
        let inlined =
            Primary { content: json!({"name": "a", "plugins": [], "loadOnlyInlinedPlugins": true}), ..list() };
        assert!(list().takes_drop_ins() && !inlined.takes_drop_ins());
    }
}
