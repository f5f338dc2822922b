//! Names of network interfaces.

use std::fmt;
use std::str::FromStr;

use crate::Invalid;

/// A network interface name: 1 to 15 bytes, not `.` or `..`, no `/`, `:`, control character or whitespace
/// (`dev_valid_name` in the kernel's `net/core/dev.c`, IFNAMSIZ of `linux/if.h`; `:` by the CNI convention).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// Longest name in bytes: IFNAMSIZ less the closing NUL.
    pub const MAX_BYTES: usize = 15;

    /// The name, from 1 to 15 bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |rule| Err(Invalid::new("interface name", text, rule));
        if text.is_empty() {
            return refuse("must not be empty");
        }
        if text.len() > Self::MAX_BYTES {
            return refuse("must be at most 15 bytes long");
        }
        if text == "." || text == ".." {
            return refuse("must not be . or ..");
        }
        if text.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
            return refuse("must not contain '/', ':', whitespace or control characters");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

crate::serde_as_text!(IfName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifteen_bytes_are_the_most() {
        assert!("pod16477688c0e1".parse::<IfName>().is_ok());
        assert!("pod16477688c0e12".parse::<IfName>().is_err());
    }

    #[test]
    fn names_the_kernel_refuses_are_refused() {
        for text in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\u{7}b"] {
            assert!(text.parse::<IfName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_message_names_value_and_rule() {
        let error = "a/b".parse::<IfName>().unwrap_err().to_string();
        assert_eq!(error, "interface name \"a/b\": must not contain '/', ':', whitespace or control characters");
    }
}
