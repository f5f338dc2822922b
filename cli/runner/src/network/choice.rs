//! Which configuration a network of a VM has: from the command line, the manifest, or the host's folder.

use std::path::{Path, PathBuf};

use api::attachment::{NetworkAttachmentDefinition, NetworkConfig};
use cni_protocol::runtime::{ConfigError, ConfigList};
use serde_json::Value;
use terms::{NetworkName, ObjectKey};

use super::conf;

/// Why a network has no usable configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChoiceError {
    /// The configuration is refused or nowhere to be found.
    #[error("network {name}")]
    Config {
        /// As it was asked for.
        name: String,
        /// What is wrong with the configuration.
        #[source]
        source: ConfigError,
    },
    /// What was given is no name.
    #[error("network {0:?} is neither a file nor a network's name")]
    NotAName(String),
    /// Two networks claim to be the primary one.
    #[error("--network {first} and --network {second}: a VM has one primary network, and no VM asks for these by name")]
    TwoPrimaries {
        /// The network that is named first.
        first: String,
        /// The network that claims it too.
        second: String,
    },
}

/// Everything a network of a VM may be.
#[derive(Debug)]
pub struct Choices {
    given: Vec<ConfigList>,
    definitions: Vec<NetworkAttachmentDefinition>,
    dir: PathBuf,
    built_in: Value,
}

impl Choices {
    /// Loads what `--network` names: a file, if the name has a slash or a file's ending, else a network in the host's folder.
    /// Returns the errors of those that are absent or refused as well; no VM may be started with one.
    #[must_use]
    pub fn load(
        given: &[String],
        definitions: Vec<NetworkAttachmentDefinition>,
        dir: &Path,
        ipam: &Path,
    ) -> (Self, Vec<ChoiceError>) {
        let (mut loaded, mut errors) = (Vec::new(), Vec::new());
        for text in given {
            match load(text, dir) {
                Ok(list) => loaded.push(list),
                Err(error) => errors.push(error),
            }
        }
        (Self { given: loaded, definitions, dir: dir.to_owned(), built_in: conf::built_in(ipam) }, errors)
    }

    /// The primary network: the one given that no VM asks for by name (`asked_for`), else the built-in one.
    ///
    /// # Errors
    /// When two are given.
    pub fn primary(&self, asked_for: &[String]) -> Result<ConfigList, ChoiceError> {
        let is_secondary = |list: &&ConfigList| asked_for.iter().any(|name| name == list.name().as_str());
        let mut rest = self.given.iter().filter(|list| !is_secondary(list));
        match (rest.next(), rest.next()) {
            (None, _) => ConfigList::from_value(self.built_in.clone()).map_err(in_network(conf::DEFAULT_NETWORK)),
            (Some(one), None) => Ok(one.clone()),
            (Some(first), Some(second)) => {
                Err(ChoiceError::TwoPrimaries { first: first.name().to_string(), second: second.name().to_string() })
            }
        }
    }

    /// A network that a VM asks for by name: given on the command line, else a NetworkAttachmentDefinition of the
    /// manifest, else in the host's folder.
    ///
    /// # Errors
    /// When it is nowhere or refused.
    pub fn named(&self, namespace: &str, name: &str) -> Result<ConfigList, ChoiceError> {
        if let Some(list) = self.given.iter().find(|list| list.name().as_str() == name) {
            return Ok(list.clone());
        }
        let key_is = |key: &ObjectKey| key.namespace() == namespace && key.name() == name;
        let definition = self.definitions.iter().find(|definition| key_is(&definition.metadata.key));
        match definition.map(|definition| &definition.config) {
            Some(NetworkConfig::Inline(config)) => defined_by(name, config),
            Some(NetworkConfig::ByName) | None => in_folder(name, &self.dir),
        }
    }
}

/// A definition's configuration; one without a name has the definition's, as Multus reads it.
fn defined_by(name: &str, config: &Value) -> Result<ConfigList, ChoiceError> {
    let mut config = config.clone();
    if let Some(document) = config.as_object_mut() {
        document.entry("name").or_insert_with(|| name.into());
    }
    ConfigList::from_value(config).map_err(in_network(name))
}

fn load(text: &str, dir: &Path) -> Result<ConfigList, ChoiceError> {
    let path = Path::new(text);
    let ends_like_a_file = path.extension().is_some_and(|end| end == "conflist" || end == "conf" || end == "json");
    if text.contains('/') || ends_like_a_file {
        return ConfigList::load(path).map_err(in_network(text));
    }
    in_folder(text, dir)
}

fn in_folder(text: &str, dir: &Path) -> Result<ConfigList, ChoiceError> {
    let name: NetworkName = text.parse().map_err(|_| ChoiceError::NotAName(text.to_owned()))?;
    ConfigList::find(dir, &name).map_err(in_network(text))
}

fn in_network(name: &str) -> impl FnOnce(ConfigError) -> ChoiceError {
    let name = name.to_owned();
    |source| ChoiceError::Config { name, source }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn conflist(name: &str) -> String {
        format!(r#"{{"cniVersion":"1.0.0","name":"{name}","plugins":[{{"type":"bridge"}}]}}"#)
    }

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(dir.path().join(format!("{name}.conflist")), conflist(name)).unwrap();
        }
        dir
    }

    fn choices(given: &[&str], dir: &Path, definitions: Vec<NetworkAttachmentDefinition>) -> Choices {
        let given: Vec<_> = given.iter().map(|text| (*text).to_owned()).collect();
        let (choices, errors) = Choices::load(&given, definitions, dir, Path::new("/run/tapvisor/ipam"));
        assert!(errors.is_empty(), "{errors:?}");
        choices
    }

    #[test]
    fn without_a_word_it_is_the_built_in_network() {
        let dir = folder(&["other"]);
        let primary = choices(&[], dir.path(), Vec::new()).primary(&[]).unwrap();
        assert_eq!(primary.name().as_str(), conf::DEFAULT_NETWORK);
    }

    #[test]
    fn what_no_vm_asks_for_by_name_is_the_primary() {
        let dir = folder(&["lan", "storage"]);
        let file = dir.path().join("storage.conflist");
        let choices = choices(&["lan", file.to_str().unwrap()], dir.path(), Vec::new());
        assert_eq!(choices.primary(&["storage".to_owned()]).unwrap().name().as_str(), "lan");
        assert!(matches!(choices.primary(&[]), Err(ChoiceError::TwoPrimaries { .. })));
    }

    #[test]
    fn a_definition_of_the_manifest_comes_before_the_hosts_folder() {
        let dir = folder(&["blue", "red"]);
        let definitions = api::manifest::parse(
            "{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition, metadata: {name: blue}, \
             spec: {config: '{\"cniVersion\":\"0.4.0\",\"type\":\"macvlan\"}'}}\n---\n\
             {apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition, metadata: {name: red}}\n",
            "test",
        );
        let definitions = definitions.unwrap().into_iter().filter_map(|object| match object.body {
            api::manifest::Body::NetworkAttachmentDefinition(definition) => Some(definition),
            _ => None,
        });
        let choices = choices(&[], dir.path(), definitions.collect());
        let types = |namespace, name| {
            let list = choices.named(namespace, name).unwrap();
            (list.name().to_string(), list.types().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(types("default", "blue"), ("blue".to_owned(), vec!["macvlan".to_owned()]));
        assert_eq!(types("other", "blue").1, ["bridge"], "a definition counts in its own namespace");
        assert_eq!(types("default", "red").1, ["bridge"], "one without a configuration points to the folder");
        assert!(matches!(choices.named("default", "green"), Err(ChoiceError::Config { .. })));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = folder(&[]);
        let error =
            |text: &str| Choices::load(&[text.to_owned()], Vec::new(), dir.path(), Path::new("/i")).1[0].to_string();
        assert_eq!(error("nowhere"), "network nowhere");
        assert_eq!(error("./nowhere.conflist"), "network ./nowhere.conflist");
        assert!(error("a b").contains("\"a b\""));
    }
}
