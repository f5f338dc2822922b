//! Why a network configuration is refused.

use std::path::PathBuf;

use crate::spec::UnknownVersion;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}")]
    Read {
        /// The file or folder that was read.
        path: PathBuf,
        /// The error of the system call.
        source: std::io::Error,
    },
    /// The file is not JSON.
    #[error("{path}: is not JSON")]
    Json {
        path: PathBuf,
        /// The JSON error, with line and column.
        source: serde_json::Error,
    },
    /// A file's configuration is refused.
    #[error("{path}")]
    File { path: PathBuf, source: Box<ConfigError> },
    /// A field is missing or of another shape.
    #[error("network configuration: {field}: {rule}")]
    Field {
        field: String,
        /// The type or range that the field must have.
        rule: String,
    },
    /// None of its versions is spoken.
    #[error(transparent)]
    Version(#[from] UnknownVersion),
    /// No file of a folder has the network.
    #[error("{dir}: no configuration of network {name:?}{refused}", refused = listing(refused))]
    NotFound {
        dir: PathBuf,
        name: String,
        /// Files that could not be read, with the reason.
        refused: Vec<String>,
    },
}

/// What to add to "nothing found" when some files could not be read.
fn listing(refused: &[String]) -> String {
    match refused {
        [] => String::new(),
        _ => format!(", and these could not be read: {}", refused.join("; ")),
    }
}
