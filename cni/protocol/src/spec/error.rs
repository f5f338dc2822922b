//! The error document (specification section 5, "Error"), the only place where codes are numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ResultError, UnknownVersion, Version};

/// What kind of thing went wrong, by the specification's table. Codes from 100 up belong to the plugin that sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(u32);

impl Code {
    /// The configuration's version is not spoken.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// A field of the configuration has a value that is not supported.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// The container is unknown or gone: the runtime need not clean up.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// An environment variable is missing or malformed.
    pub const INVALID_ENVIRONMENT: Self = Self(4);
    /// A read or write failed, for instance of the configuration on stdin.
    pub const IO: Self = Self(5);
    /// A document could not be decoded.
    pub const DECODE: Self = Self(6);
    /// The network configuration cannot be obeyed.
    pub const INVALID_CONFIG: Self = Self(7);
    /// CNI_NETNS is not a network namespace that may be touched (from the reference library, not the specification).
    pub const INVALID_NETNS: Self = Self(8);
    /// A passing condition; the runtime should try again.
    pub const TRY_AGAIN: Self = Self(11);
    /// STATUS: the plugin cannot serve ADD.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// STATUS: the plugin cannot serve ADD and existing containers may be limited.
    pub const NOT_AVAILABLE_AND_LIMITED: Self = Self(51);
    /// Anything else (from the reference library, not the specification).
    pub const INTERNAL: Self = Self(999);

    /// A code of a plugin's own, counted from 0.
    #[must_use]
    pub const fn plugin(number: u16) -> Self {
        Self(100 + number as u32)
    }

    /// As in the field `code`; from 100 on they belong to plugins.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An error as a plugin prints it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{msg}{between}{details} (code {code})", between = if details.is_empty() { "" } else { ": " })]
pub struct Error {
    /// As in the field `code`.
    pub code: Code,
    /// What failed, in a sentence.
    #[serde(default)]
    pub msg: String,
    /// More about it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl Error {
    /// An error with a code and a one-line message; `details` is empty.
    #[must_use]
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same error with details.
    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// An error whose message is the whole chain of `error` and its sources, each said once.
    #[must_use]
    pub fn from_chain(code: Code, error: &dyn std::error::Error) -> Self {
        let mut msg = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            msg.push_str(": ");
            msg.push_str(&error.to_string());
            source = error.source();
        }
        Self::new(code, msg)
    }

    /// The document for stdout, in the given version.
    #[must_use]
    pub fn to_document(&self, version: Version) -> serde_json::Value {
        let mut document = serde_json::json!({"cniVersion": version.as_str(), "code": self.code, "msg": self.msg});
        if !self.details.is_empty() {
            document["details"] = self.details.clone().into();
        }
        document
    }
}

impl From<UnknownVersion> for Error {
    fn from(error: UnknownVersion) -> Self {
        Self::from_chain(Code::INCOMPATIBLE_VERSION, &error)
    }
}

impl From<ResultError> for Error {
    fn from(error: ResultError) -> Self {
        match error {
            ResultError::Version(version) => version.into(),
            ResultError::Shape { .. } => Self::from_chain(Code::DECODE, &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_version_code_and_message() {
        let error = Error::new(Code::INVALID_CONFIG, "no name").with_details("field name");
        assert_eq!(
            error.to_document(Version::V1_0_0),
            serde_json::json!({"cniVersion": "1.0.0", "code": 7, "msg": "no name", "details": "field name"})
        );
        assert_eq!(error.to_string(), "no name: field name (code 7)");
    }

    #[test]
    fn a_foreign_document_without_message_is_read() {
        let error: Error = serde_json::from_str(r#"{"cniVersion":"1.0.0","code":120,"stack":[]}"#).unwrap();
        assert_eq!((error.code.value(), error.msg.as_str()), (120, ""));
    }
}
