//! Configuration files of a folder, and the drop-ins among them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::config_error::ConfigError;

/// The files of a folder with one of these extensions, in the order of their names.
pub(super) fn files(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read { path: dir.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| extensions.contains(&extension)) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The drop-ins of a network; a folder that is not there has none.
pub(super) fn load(folder: &Path) -> Result<Vec<Map<String, Value>>, ConfigError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    files(folder, &["conf"])?.iter().map(|path| read_object(path)).collect()
}

pub(super) fn read_object(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    let text = std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| ConfigError::Json { path: path.to_owned(), source })
}
