//! Network configuration lists: from a file with its drop-ins, or from a value (specification section 1).

use std::path::Path;

use serde_json::{Map, Value, json};
use terms::NetworkName;

use super::config_error::ConfigError;
use super::drop_in;
use crate::spec::{UnknownVersion, Version};

/// A network: its name, the version to speak, and the plugins in order.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigList {
    pub(super) name: NetworkName,
    pub(super) version: Version,
    pub(super) disable_check: bool,
    pub(super) disable_gc: bool,
    pub(super) plugins: Vec<PluginConf>,
}

/// One plugin of a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PluginConf {
    /// The name of its executable.
    pub(super) kind: String,
    /// The rest, unknown keys included.
    pub(super) document: Map<String, Value>,
}

impl ConfigList {
    /// Loads a `.conflist`, or a single plugin's `.conf` or `.json`. Drop-ins of a list are the files
    /// `<folder>/<network>/*.conf`, appended in the order of their names unless the list says `loadOnlyInlinedPlugins`.
    ///
    /// # Errors
    /// When a file cannot be read or its configuration is refused; the message names the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let in_file = |source: ConfigError| ConfigError::File { path: path.to_owned(), source: Box::new(source) };
        let mut document = drop_in::read_object(path)?;
        let is_list = document.contains_key("plugins") || !document.contains_key("type");
        let only_inlined = flag(&document, "loadOnlyInlinedPlugins").map_err(in_file)?;
        if is_list && !only_inlined {
            let name = name_of(&document).map_err(in_file)?;
            let folder = path.parent().unwrap_or(Path::new(".")).join(name.as_str());
            let more = drop_in::load(&folder)?;
            let plugins = document.entry("plugins").or_insert_with(|| json!([]));
            if let (Some(plugins), false) = (plugins.as_array_mut(), more.is_empty()) {
                plugins.extend(more.into_iter().map(Value::Object));
            }
        }
        Self::from_object(document).map_err(in_file)
    }

    /// Reads a list, or a single plugin's configuration, that is already a value; there are no drop-ins then.
    ///
    /// # Errors
    /// When a field is missing or of another shape, or no version is spoken.
    pub fn from_value(document: Value) -> Result<Self, ConfigError> {
        match document {
            Value::Object(document) => Self::from_object(document),
            other => Err(field("(all)", format!("must be an object, not {}", kind_of(&other)))),
        }
    }

    /// Finds a network by name among the `.conflist`, `.conf` and `.json` files of a folder; the first in the order of
    /// their names wins.
    ///
    /// # Errors
    /// When the folder cannot be read, or no file has the network; files that could not be read are then named.
    pub fn find(dir: &Path, name: &NetworkName) -> Result<Self, ConfigError> {
        let mut refused = Vec::new();
        for path in drop_in::files(dir, &["conf", "conflist", "json"])? {
            let named = drop_in::read_object(&path).map(|document| name_of(&document).ok().as_ref() == Some(name));
            match named {
                Ok(true) => return Self::load(&path),
                Ok(false) => {}
                Err(error) => refused.push(crate::spec::Error::from_chain(crate::spec::Code::DECODE, &error).msg),
            }
        }
        Err(ConfigError::NotFound { dir: dir.to_owned(), name: name.as_str().to_owned(), refused })
    }

    /// The name of the network, unique on a host.
    #[must_use]
    pub fn name(&self) -> &NetworkName {
        &self.name
    }

    /// The version that is spoken with its plugins.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The plugins' types in order.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.plugins.iter().map(|plugin| plugin.kind.as_str())
    }

    /// The list with one more plugin at its end.
    ///
    /// # Errors
    /// When the plugin's configuration has no valid `type`.
    pub fn with_plugin(mut self, document: Map<String, Value>) -> Result<Self, ConfigError> {
        self.plugins.push(PluginConf::from_object(self.plugins.len(), document)?);
        Ok(self)
    }

    /// The list as a document again, drop-ins included.
    #[must_use]
    pub fn to_document(&self) -> Value {
        let plugins = self.plugins.iter().map(|plugin| Value::Object(plugin.document.clone()));
        json!({
            "cniVersion": self.version.as_str(),
            "name": self.name.as_str(),
            "disableCheck": self.disable_check,
            "disableGC": self.disable_gc,
            "plugins": plugins.collect::<Value>(),
        })
    }

    fn from_object(mut document: Map<String, Value>) -> Result<Self, ConfigError> {
        let name = name_of(&document)?;
        let version = version_of(&document)?;
        let (disable_check, disable_gc) = (flag(&document, "disableCheck")?, flag(&document, "disableGC")?);
        let plugins = match document.remove("plugins") {
            None if document.contains_key("type") => vec![PluginConf::from_object(0, document)?],
            None => return Err(field("plugins", "is missing".to_owned())),
            Some(Value::Array(plugins)) if plugins.is_empty() => return Err(field("plugins", "is empty".to_owned())),
            Some(Value::Array(plugins)) => plugins
                .into_iter()
                .enumerate()
                .map(|(n, plugin)| PluginConf::from_value(n, plugin))
                .collect::<Result<_, _>>()?,
            Some(other) => return Err(field("plugins", format!("must be a list, not {}", kind_of(&other)))),
        };
        Ok(Self { name, version, disable_check, disable_gc, plugins })
    }
}

impl PluginConf {
    fn from_value(index: usize, document: Value) -> Result<Self, ConfigError> {
        match document {
            Value::Object(document) => Self::from_object(index, document),
            other => Err(field(&format!("plugins[{index}]"), format!("must be an object, not {}", kind_of(&other)))),
        }
    }

    fn from_object(index: usize, document: Map<String, Value>) -> Result<Self, ConfigError> {
        let bad = |rule: &str| field(&format!("plugins[{index}].type"), rule.to_owned());
        let kind = document.get("type").and_then(Value::as_str).ok_or_else(|| bad("is missing"))?;
        // It becomes a path below the plugin folders.
        if kind.is_empty() || kind.contains(['/', '\0']) || kind == "." || kind == ".." {
            return Err(bad("must be the name of an executable, without '/'"));
        }
        Ok(Self { kind: kind.to_owned(), document })
    }

    /// Whether the plugin declares a capability.
    pub(super) fn has_capability(&self, name: &str) -> bool {
        self.document.get("capabilities").and_then(|all| all.get(name)).and_then(Value::as_bool).unwrap_or(false)
    }
}

fn name_of(document: &Map<String, Value>) -> Result<NetworkName, ConfigError> {
    let name = document.get("name").and_then(Value::as_str).ok_or_else(|| field("name", "is missing".to_owned()))?;
    name.parse().map_err(|error: terms::Invalid| field("name", error.to_string()))
}

/// The newest version we speak among `cniVersion` and `cniVersions`.
fn version_of(document: &Map<String, Value>) -> Result<Version, ConfigError> {
    let single = document.get("cniVersion").and_then(Value::as_str);
    let several = document.get("cniVersions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let offered: Vec<_> = single.into_iter().chain(several).filter(|text| !text.is_empty()).collect();
    if offered.is_empty() {
        return Err(field("cniVersion", "is missing".to_owned()));
    }
    let newest = offered.iter().filter_map(|text| text.parse::<Version>().ok()).max();
    newest.ok_or_else(|| UnknownVersion(offered.join(", ")).into())
}

/// A truth value; libcni also takes the words as text.
fn flag(document: &Map<String, Value>, name: &str) -> Result<bool, ConfigError> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(truth)) => Ok(*truth),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(field(name, "must be true or false".to_owned())),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn field(field: &str, rule: String) -> ConfigError {
    ConfigError::Field { field: field.to_owned(), rule }
}

#[cfg(test)]
mod tests;
