//! `CNI_ARGS`: `KEY=VALUE` pairs joined by `;`.

use std::collections::BTreeMap;

/// The pairs of `CNI_ARGS`. A repeated key (Multus sends each twice) has its last value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Args {
    pairs: BTreeMap<String, String>,
    ignore_unknown: bool,
}

/// Why `CNI_ARGS` is refused: it is malformed or has a key that is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// A part without `=` or without a key.
    #[error("CNI_ARGS: {0:?} is not KEY=VALUE")]
    NoPair(String),
    /// `IgnoreUnknown` is no truth value.
    #[error("CNI_ARGS: IgnoreUnknown={0:?} must be 1, true, 0 or false")]
    NoTruth(String),
    /// A key that this plugin does not read, and the caller did not allow unknown keys (IgnoreUnknown).
    #[error("CNI_ARGS: unknown key {0:?}, and IgnoreUnknown is not set")]
    Unknown(String),
}

const IGNORE_UNKNOWN: &str = "IgnoreUnknown";

impl Args {
    /// Reads the variable's text.
    ///
    /// # Errors
    /// When a part is no pair or `IgnoreUnknown` no truth value.
    pub fn parse(text: &str) -> Result<Self, ArgsError> {
        let mut args = Self::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (key, value) = part
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| ArgsError::NoPair(shown(part)))?;
            if key == IGNORE_UNKNOWN {
                args.ignore_unknown = truth(value)?;
            } else {
                args.pairs.insert(key.to_owned(), value.to_owned());
            }
        }
        Ok(args)
    }

    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str)
    }

    /// Refuses keys other than `known`, unless the caller said `IgnoreUnknown`.
    ///
    /// # Errors
    /// Names the first key that is not known.
    pub fn expect_only(&self, known: &[&str]) -> Result<(), ArgsError> {
        let unknown = self.pairs.keys().find(|key| !known.contains(&key.as_str()));
        match unknown {
            Some(key) if !self.ignore_unknown => Err(ArgsError::Unknown(shown(key))),
            _ => Ok(()),
        }
    }
}

fn truth(text: &str) -> Result<bool, ArgsError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(ArgsError::NoTruth(shown(text))),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_repeated_key_counts() {
        let args = Args::parse("IgnoreUnknown=1;K8S_POD_NAME=a;IgnoreUnknown=true;K8S_POD_NAME=b;EMPTY=").unwrap();
        assert_eq!((args.value("K8S_POD_NAME"), args.value("EMPTY")), (Some("b"), Some("")));
        assert_eq!(args.expect_only(&[]), Ok(()));
    }

    #[test]
    fn unknown_keys_are_named_unless_they_are_to_be_ignored() {
        let args = Args::parse("A=1;B=2").unwrap();
        assert_eq!(args.expect_only(&["A", "B"]), Ok(()));
        assert_eq!(args.expect_only(&["A"]), Err(ArgsError::Unknown("B".to_owned())));
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        assert_eq!(Args::parse("A=1;B"), Err(ArgsError::NoPair("B".to_owned())));
        assert_eq!(Args::parse("=1"), Err(ArgsError::NoPair("=1".to_owned())));
        assert_eq!(Args::parse("IgnoreUnknown=maybe"), Err(ArgsError::NoTruth("maybe".to_owned())));
        assert_eq!(Args::parse(""), Ok(Args::default()));
    }
}
