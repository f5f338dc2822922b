//! The data of Secrets and ConfigMaps on their way to the guest: known here, or mounted in the launcher pod.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use terms::ObjectKey;

use super::TranslateError;
use crate::kubevirt::FileObject;
use crate::manifest::{Body, Object};
use crate::secret::{ConfigMap, Secret};
use machine::{Content, FileSet};

/// Secrets and ConfigMaps of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Data {
    secrets: BTreeMap<ObjectKey, Secret>,
    config_maps: BTreeMap<ObjectKey, ConfigMap>,
}

impl Data {
    /// Those among the objects of a manifest.
    #[must_use]
    pub fn of(objects: &[Object]) -> Self {
        let mut data = Self::default();
        for object in objects {
            match &object.body {
                Body::Secret(secret) => drop(data.secrets.insert(secret.metadata.key.clone(), secret.clone())),
                Body::ConfigMap(map) => drop(data.config_maps.insert(map.metadata.key.clone(), map.clone())),
                _ => {}
            }
        }
        data
    }
}

/// How the data of Secrets and ConfigMaps reach the guest.
#[derive(Debug, Clone, Copy)]
pub enum DataSource<'a> {
    /// They are known here.
    Read(&'a Data),
    /// The launcher finds them in folders.
    Mounted {
        /// Holds the data of each Secret that [`super::secret_names`] lists, in a folder of its name.
        secrets: &'a Path,
        /// Holds each volume that is files, in a folder of its name.
        files: &'a Path,
    },
}

impl DataSource<'_> {
    /// What the first of some keys of a Secret holds.
    pub(super) fn secret_content(
        self,
        namespace: &str,
        name: &str,
        keys: [&'static str; 2],
        path: &str,
    ) -> Result<Content, TranslateError> {
        let data = match self {
            Self::Mounted { secrets, .. } => {
                return Ok(Content::FirstOf(keys.map(|key| secrets.join(name).join(key)).into()));
            }
            Self::Read(data) => data,
        };
        let full_name = || format!("{namespace}/{name}");
        let secret = ObjectKey::new(namespace, name).ok().and_then(|key| data.secrets.get(&key));
        let no_secret = || TranslateError::NoSecret { path: path.to_owned(), secret: full_name() };
        let secret = secret.ok_or_else(no_secret)?;
        let bytes = keys.iter().find_map(|key| secret.data.get(*key));
        let lacks = || TranslateError::SecretContent { path: path.to_owned(), secret: full_name(), key: keys[0] };
        bytes.map(|bytes| Content::Bytes(bytes.clone())).ok_or_else(lacks)
    }

    /// All files of a Secret that [`super::secret_names`] lists.
    pub(super) fn secret_files(self, namespace: &str, name: &str, path: &str) -> Result<FileSet, TranslateError> {
        match self {
            Self::Mounted { secrets, .. } => Ok(FileSet::Folder(secrets.join(name))),
            Self::Read(_) => {
                let object = FileObject { name: name.to_owned(), is_optional: false, path: path.to_owned() };
                self.secret(namespace, "", &object)
            }
        }
    }

    /// The folder of a volume that is files; `None` on one machine.
    pub(super) fn folder(self, volume: &str) -> Option<PathBuf> {
        match self {
            Self::Mounted { files, .. } => Some(files.join(volume)),
            Self::Read(_) => None,
        }
    }

    /// All files of a Secret that is a volume.
    pub(super) fn secret(self, namespace: &str, volume: &str, object: &FileObject) -> Result<FileSet, TranslateError> {
        let Self::Read(data) = self else { return Ok(FileSet::Folder(self.folder(volume).unwrap_or_default())) };
        let key = ObjectKey::new(namespace, &object.name).ok();
        let found = key.and_then(|key| data.secrets.get(&key)).map(|secret| &secret.data);
        let missing = |path, secret| TranslateError::NoSecret { path, secret };
        listed(found, namespace, object, missing)
    }

    /// All files of a ConfigMap that is a volume.
    pub(super) fn config_map(
        self,
        namespace: &str,
        volume: &str,
        object: &FileObject,
    ) -> Result<FileSet, TranslateError> {
        let Self::Read(data) = self else { return Ok(FileSet::Folder(self.folder(volume).unwrap_or_default())) };
        let key = ObjectKey::new(namespace, &object.name).ok();
        let found = key.and_then(|key| data.config_maps.get(&key)).map(|map| &map.data);
        let missing = |path, config_map| TranslateError::NoConfigMap { path, config_map };
        listed(found, namespace, object, missing)
    }
}

fn listed(
    data: Option<&BTreeMap<String, Vec<u8>>>,
    namespace: &str,
    object: &FileObject,
    missing: impl FnOnce(String, String) -> TranslateError,
) -> Result<FileSet, TranslateError> {
    match data {
        Some(data) => {
            let files = data.iter().map(|(key, bytes)| (key.clone(), Content::Bytes(bytes.clone())));
            Ok(FileSet::Listed(files.collect()))
        }
        None if object.is_optional => Ok(FileSet::Listed(BTreeMap::new())),
        None => Err(missing(object.path.clone(), format!("{namespace}/{}", object.name))),
    }
}
