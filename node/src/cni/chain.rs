//! Makes the runtime execute the plugin for every pod: a file in the network's drop-in folder, an entry in its list,
//! or nothing, where an attachment of Multus does it.
//!
//! *Guarantees.* Nothing of others is changed but the list's plugins, and those by one entry that [`Chain::undo`] removes.
//! A list that another program replaces is chained again by the next [`Chain::ensure`]. A list that names the plugin already,
//! by an administrator's hand, is left as it is.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::conflist::{Primary, entry};
use crate::files;

/// Our file in a network's drop-in folder: last, whatever else is there.
const DROP_IN: &str = "zz-tapvisor.conf";
/// Says that the entry in the list is ours, next to the list. Runtimes ignore the name.
const RECORD: &str = ".tapvisor-chained";
/// Runtimes look again when a file in the folder itself is removed; a name that they do not read.
const NUDGE: &str = ".tapvisor-look-again";

/// A way of chaining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Drop-in where the runtime has it, else in the list's file, else none.
    Auto,
    /// A file in the folder of the network's name (libcni 1.3).
    DropIn,
    /// An entry in the list's own file.
    InFile,
    /// Nothing: pods name an attachment of Multus.
    None,
}

/// Why the plugin is not chained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ChainError {
    /// No network yet.
    #[error("{0:?} has no network configuration yet")]
    NoNetwork(PathBuf),
    /// A single plugin, or a list that takes no files.
    #[error("{path:?} {flaw}: use --chain {instead}")]
    Unfit {
        /// The configuration.
        path: PathBuf,
        /// Why it does not go.
        flaw: &'static str,
        /// What does.
        instead: &'static str,
    },
    /// The system's.
    #[error("CNI configuration: {0}")]
    System(#[from] io::Error),
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chained {
    /// The way; never [`Mode::Auto`].
    pub(crate) mode: Mode,
    /// The network's name.
    pub(crate) network: String,
    /// Whether something was changed just now.
    pub(crate) is_changed: bool,
}

/// The runtime's folder of configurations, and how the plugin is chained there.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The way.
    pub(crate) mode: Mode,
    /// Whether the runtime's libcni reads drop-in folders.
    pub(crate) has_drop_ins: bool,
}

impl Chain {
    /// Makes sure that the plugin is chained; does nothing when it is.
    ///
    /// # Errors
    /// Why it cannot be chained.
    pub(crate) fn ensure(&self) -> Result<Chained, ChainError> {
        let primary = Primary::find(&self.folder)?.ok_or_else(|| ChainError::NoNetwork(self.folder.clone()))?;
        let mode = self.resolved(&primary)?;
        let network = primary.network().unwrap_or_default().to_owned();
        let is_changed = match mode {
            Mode::DropIn if primary.names_us() => false,
            Mode::DropIn => self.drop_in(&network)?,
            Mode::InFile => self.in_file(&primary)?,
            Mode::Auto | Mode::None => false,
        };
        Ok(Chained { mode, network, is_changed })
    }

    fn resolved(&self, primary: &Primary) -> Result<Mode, ChainError> {
        let unfit = |flaw, instead| ChainError::Unfit { path: primary.path.clone(), flaw, instead };
        let takes_drop_ins = primary.takes_drop_ins() && primary.network().is_some();
        match self.mode {
            Mode::Auto if self.has_drop_ins && takes_drop_ins => Ok(Mode::DropIn),
            Mode::Auto if primary.is_list() => Ok(Mode::InFile),
            Mode::Auto => Ok(Mode::None),
            Mode::DropIn if !takes_drop_ins => Err(unfit("takes no files of a drop-in folder", "in-file or none")),
            Mode::InFile if !primary.is_list() => Err(unfit("is a single plugin and no list", "none")),
            mode => Ok(mode),
        }
    }

    fn drop_in(&self, network: &str) -> Result<bool, ChainError> {
        let folder = self.folder.join(network);
        fs::create_dir_all(&folder)?;
        let changed = files::replace(&folder.join(DROP_IN), entry().to_string().as_bytes(), 0o644)?;
        if changed {
            self.nudge()?;
        }
        Ok(changed)
    }

    fn in_file(&self, primary: &Primary) -> Result<bool, ChainError> {
        if primary.names_us() {
            return Ok(false);
        }
        let mode = fs::metadata(&primary.path)?.permissions().mode() & 0o777;
        // First: a list whose entry is ours but not known to be would stay after the uninstallation.
        files::replace(&self.folder.join(RECORD), primary.path.as_os_str().as_encoded_bytes(), 0o644)?;
        Ok(files::replace(&primary.path, &pretty(&primary.with_us())?, mode)?)
    }

    /// Removes whatever [`Self::ensure`] has put there, in any mode, by itself or by an earlier agent.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn undo(&self) -> Result<(), ChainError> {
        for entry in fs::read_dir(&self.folder)? {
            let folder = entry?.path();
            if folder.join(DROP_IN).exists() {
                files::remove(&folder.join(DROP_IN))?;
                // Other programs' files may be there, too.
                drop(fs::remove_dir(&folder));
                self.nudge()?;
            }
        }
        let record = self.folder.join(RECORD);
        if record.exists() {
            if let Some(primary) = Primary::find(&self.folder)?.filter(Primary::names_us) {
                let mode = fs::metadata(&primary.path)?.permissions().mode() & 0o777;
                files::replace(&primary.path, &pretty(&primary.without_us())?, mode)?;
            }
            files::remove(&record)?;
        }
        Ok(())
    }

    fn nudge(&self) -> io::Result<()> {
        let path: &Path = &self.folder.join(NUDGE);
        fs::write(path, "")?;
        files::remove(path)
    }
}

fn pretty(content: &serde_json::Value) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(content)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn chain(mode: Mode, has_drop_ins: bool) -> (tempfile::TempDir, Chain) {
        let folder = tempfile::tempdir().unwrap();
        let list = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp"}]});
        fs::write(folder.path().join("10-pods.conflist"), list.to_string()).unwrap();
        let chain = Chain { folder: folder.path().to_owned(), mode, has_drop_ins };
        (folder, chain)
    }

    fn list(chain: &Chain) -> Value {
        serde_json::from_slice(&fs::read(chain.folder.join("10-pods.conflist")).unwrap()).unwrap()
    }

    // spec: NODE-3
    #[test]
    fn a_drop_in_leaves_the_list_alone_and_is_undone() {
        let (_folder, chain) = chain(Mode::Auto, true);
        let before = list(&chain);
        let chained = chain.ensure().unwrap();
        assert_eq!(chained, Chained { mode: Mode::DropIn, network: "pods".to_owned(), is_changed: true });
        assert!(!chain.ensure().unwrap().is_changed);
        assert_eq!(list(&chain), before);
        let drop_in = fs::read(chain.folder.join("pods").join(DROP_IN)).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&drop_in).unwrap()["type"], "tapvisor");
        chain.undo().unwrap();
        chain.undo().unwrap();
        assert_eq!(fs::read_dir(&chain.folder).unwrap().count(), 1);
    }

    // spec: NODE-3
    #[test]
    fn an_entry_in_the_list_is_last_comes_back_and_is_undone() {
        let (_folder, chain) = chain(Mode::Auto, false);
        let before = list(&chain);
        assert_eq!(chain.ensure().unwrap().mode, Mode::InFile);
        assert_eq!(list(&chain)["plugins"][1]["type"], "tapvisor");
        assert!(!chain.ensure().unwrap().is_changed);
        fs::write(chain.folder.join("10-pods.conflist"), before.to_string()).unwrap();
        assert!(chain.ensure().unwrap().is_changed);
        chain.undo().unwrap();
        assert_eq!(list(&chain), before);
        assert_eq!(fs::read_dir(&chain.folder).unwrap().count(), 1);
    }

    // spec: NODE-3
    #[test]
    fn an_administrators_entry_stays() {
        let (_folder, chain) = chain(Mode::Auto, true);
        let mut by_hand = list(&chain);
        by_hand["plugins"].as_array_mut().unwrap().push(json!({"type": "tapvisor"}));
        fs::write(chain.folder.join("10-pods.conflist"), by_hand.to_string()).unwrap();
        for has_drop_ins in [true, false] {
            let chain = Chain { has_drop_ins, ..chain.clone() };
            assert!(!chain.ensure().unwrap().is_changed);
            chain.undo().unwrap();
            assert_eq!(list(&chain), by_hand);
        }
    }

    // spec: NODE-3
    #[test]
    fn a_single_plugin_is_not_chained_and_says_what_to_use() {
        let (_folder, chain) = chain(Mode::Auto, true);
        fs::write(chain.folder.join("00-multus.conf"), r#"{"name": "multus", "type": "multus-shim"}"#).unwrap();
        assert_eq!(chain.ensure().unwrap().mode, Mode::None);
        let forced = Chain { mode: Mode::InFile, ..chain.clone() }.ensure().unwrap_err().to_string();
        assert!(forced.contains("00-multus.conf\" is a single plugin and no list: use --chain none"), "{forced}");
        let forced = Chain { mode: Mode::DropIn, ..chain }.ensure().unwrap_err().to_string();
        assert!(forced.contains("--chain in-file or none"), "{forced}");
    }

    #[test]
    fn a_node_without_a_network_says_so() {
        let (folder, chain) = chain(Mode::Auto, true);
        fs::remove_file(folder.path().join("10-pods.conflist")).unwrap();
        assert!(matches!(chain.ensure(), Err(ChainError::NoNetwork(_))));
        assert!(chain.undo().is_ok());
    }
}
