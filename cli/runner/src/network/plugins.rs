//! Where plugins are, and a word of help when one is not.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use cni_protocol::runtime::ConfigList;
use serde_json::Value;

use crate::files::{self, FileError, at};

/// Types of our own plugins, and their files, which are installed next to this program.
const OWN: [(&str, &str); 2] = [("tapvisor", "tapvisor-cni"), ("tapvisor-bridge", "tapvisor-bridge")];

/// A plugin that no folder has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network {network} needs the CNI plugin {plugin:?}, which is not in {folders}: {remedy}")]
pub struct MissingPlugin {
    /// Whose plugin it is.
    pub network: String,
    /// Its type.
    pub plugin: String,
    /// Where it was looked for.
    pub folders: String,
    /// What to do.
    pub remedy: &'static str,
}

/// The folders that are searched for plugins, in order.
///
/// Configurations name our plugins by [`OWN`], and a node installs their files under these names. Next to this program the file of
/// `tapvisor` has another name, because `tapvisor` is this program: a folder of links maps the names, and the program's own folder
/// is never searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginFolders {
    links: PathBuf,
    own_folder: PathBuf,
    given: Vec<PathBuf>,
}

impl PluginFolders {
    /// Links below `links` to plugins in `own_folder`, the program's folder; then `CNI_PATH` or its default.
    #[must_use]
    pub fn new(links: &Path, own_folder: &Path, cni_path: Option<&str>) -> Self {
        let given = cni_path.filter(|path| !path.is_empty()).unwrap_or("/opt/cni/bin:/usr/lib/cni");
        let given = given.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from).collect();
        Self { links: links.to_owned(), own_folder: own_folder.to_owned(), given }
    }

    /// The folders, first to last.
    #[must_use]
    pub fn list(&self) -> Vec<PathBuf> {
        std::iter::once(&self.links).chain(&self.given).cloned().collect()
    }

    /// Links the plugins next to this program to the names that configurations use. Without such a file there is no link,
    /// and the node's own installation is used.
    ///
    /// # Errors
    /// When the folder or a link cannot be made.
    pub fn link_own(&self) -> Result<(), FileError> {
        for (name, file) in OWN {
            let file = self.own_folder.join(file);
            if !is_executable(&file) {
                continue;
            }
            files::make_dir(&self.links, 0o755)?;
            let link = self.links.join(name);
            if std::fs::read_link(&link).is_ok_and(|target| target == file) {
                continue;
            }
            // Made under another name and moved: a plugin being looked up at this moment is found in either file.
            let fresh = self.links.join(format!("{name}.new"));
            files::remove_file(&fresh)?;
            symlink(&file, &fresh).map_err(at("make", &fresh))?;
            std::fs::rename(&fresh, &link).map_err(at("make", &link))?;
        }
        Ok(())
    }

    /// Looks for every plugin of a network, those that plugins call for addresses included.
    ///
    /// # Errors
    /// The first that is missing.
    pub fn expect(&self, list: &ConfigList) -> Result<(), MissingPlugin> {
        let document = list.to_document();
        let of_ipam = document["plugins"].as_array().into_iter().flatten();
        let of_ipam = of_ipam.filter_map(ipam_plugin);
        let missing = list.types().chain(of_ipam).find(|plugin| !self.has(plugin));
        missing.map_or(Ok(()), |plugin| {
            Err(MissingPlugin {
                network: list.name().to_string(),
                plugin: plugin.to_owned(),
                folders: self.given.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", "),
                remedy: remedy(plugin),
            })
        })
    }

    /// Whether a plugin is our own, next to this program.
    pub(super) fn is_own(&self, plugin: &str) -> bool {
        file_of(plugin).is_some_and(|file| is_executable(&self.own_folder.join(file)))
    }

    fn has(&self, plugin: &str) -> bool {
        self.is_own(plugin) || self.given.iter().any(|dir| is_executable(&dir.join(plugin)))
    }
}

/// The plugin that a plugin executes for addresses. Our own has those of `host-local` in process.
pub(super) fn ipam_plugin(plugin: &Value) -> Option<&str> {
    let ipam = plugin.pointer("/ipam/type").and_then(Value::as_str)?;
    let is_in_process = plugin["type"] == "tapvisor-bridge" && ipam == "host-local";
    Some(ipam).filter(|_| !is_in_process)
}

/// The file of our own plugin of a type.
fn file_of(plugin: &str) -> Option<&'static str> {
    OWN.iter().find(|(name, _)| *name == plugin).map(|(_, file)| *file)
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn remedy(plugin: &str) -> &'static str {
    const REFERENCE: [&str; 16] = [
        "bandwidth",
        "bridge",
        "dhcp",
        "firewall",
        "host-device",
        "host-local",
        "ipvlan",
        "loopback",
        "macvlan",
        "portmap",
        "ptp",
        "sbr",
        "static",
        "tuning",
        "vlan",
        "vrf",
    ];
    match plugin {
        plugin if file_of(plugin).is_some() => "install tapvisor-cni and tapvisor-bridge next to this program",
        plugin if REFERENCE.contains(&plugin) => "install the package containernetworking-plugins",
        _ => "install it, or name its folder in CNI_PATH",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn program(path: &Path) {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_plugin_next_to_the_program_gets_its_configured_name() {
        let dir = tempfile::tempdir().unwrap();
        let (links, own_folder) = (dir.path().join("links"), dir.path().join("own"));
        fs::create_dir(&own_folder).unwrap();
        // The program `tapvisor` itself must not be taken for the plugin.
        program(&own_folder.join("tapvisor"));
        let folders = PluginFolders::new(&links, &own_folder, None);
        folders.link_own().unwrap();
        assert!(!links.exists(), "nothing to link");
        for (_, file) in OWN {
            program(&own_folder.join(file));
        }
        folders.link_own().unwrap();
        folders.link_own().unwrap();
        for (name, file) in OWN {
            assert_eq!(fs::read_link(links.join(name)).unwrap(), own_folder.join(file));
        }
    }

    #[test]
    fn a_missing_plugin_is_named_with_its_package() {
        let dir = tempfile::tempdir().unwrap();
        program(&dir.path().join("ptp"));
        let folders = PluginFolders::new(Path::new("/nowhere"), Path::new("/nowhere"), dir.path().to_str());
        let list = json!({"cniVersion": "1.0.0", "name": "n", "plugins": [
            {"type": "ptp", "ipam": {"type": "host-local"}}]});
        let missing = folders.expect(&ConfigList::from_value(list).unwrap()).unwrap_err();
        assert_eq!(missing.plugin, "host-local");
        assert!(missing.to_string().ends_with("install the package containernetworking-plugins"), "{missing}");
    }

    // spec: NET-21
    #[test]
    fn our_own_plugin_needs_no_other_for_addresses_from_ranges() {
        let dir = tempfile::tempdir().unwrap();
        program(&dir.path().join("tapvisor-bridge"));
        let folders = PluginFolders::new(Path::new("/nowhere"), dir.path(), Some("/nowhere"));
        let expect = |ipam: &str| {
            let list = json!({"cniVersion": "1.0.0", "name": "n", "plugins": [
                {"type": "tapvisor-bridge", "ipam": {"type": ipam}}]});
            folders.expect(&ConfigList::from_value(list).unwrap()).map_err(|missing| missing.plugin)
        };
        assert_eq!((expect("host-local"), expect("static")), (Ok(()), Err("static".to_owned())));
    }

    #[test]
    fn cni_path_replaces_the_default_and_empty_parts_are_no_folders() {
        let folders = |cni_path| PluginFolders::new(Path::new("/l"), Path::new("/b"), cni_path).list();
        assert_eq!(folders(Some("/x::/y")), ["/l", "/x", "/y"].map(PathBuf::from));
        assert_eq!(folders(Some("")), ["/l", "/opt/cni/bin", "/usr/lib/cni"].map(PathBuf::from));
    }
}
