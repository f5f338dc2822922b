//! The versions of the specification that are spoken here.

use std::fmt;
use std::str::FromStr;

/// A version of the CNI specification. Older ones (0.1.0, 0.2.0) knew one address per family and are not spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.3.0: interfaces and any number of addresses.
    V0_3_0,
    /// 0.3.1: the same with a typing error mended.
    V0_3_1,
    /// 0.4.0: CHECK, and prevResult on DEL.
    V0_4_0,
    /// 1.0.0: addresses without a version of their own.
    V1_0_0,
    /// 1.1.0: GC and STATUS, MTU and PCI address in results.
    V1_1_0,
}

/// A version that is not spoken here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("CNI version {0:?} is not supported, supported are {supported}", supported = Version::list())]
pub struct UnknownVersion(pub String);

impl Version {
    /// All versions that are spoken, oldest first.
    pub const ALL: [Self; 5] = [Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// What VERSION answers as `cniVersion`.
    pub const NEWEST: Self = Self::V1_1_0;

    /// The version as it is written in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Whether the verb CHECK exists, and DEL is given the result of ADD.
    #[must_use]
    pub fn has_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// Whether the verbs GC and STATUS exist.
    #[must_use]
    pub fn has_gc_and_status(self) -> bool {
        self >= Self::V1_1_0
    }

    fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Version {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| UnknownVersion(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_age_and_read_as_written() {
        assert!(Version::ALL.is_sorted());
        assert!(Version::ALL.iter().all(|version| version.as_str().parse() == Ok(*version)));
    }

    #[test]
    fn an_unknown_version_is_answered_with_the_known_ones() {
        let message = "9.9.9".parse::<Version>().unwrap_err().to_string();
        assert_eq!(message, "CNI version \"9.9.9\" is not supported, supported are 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0");
    }

    #[test]
    fn verbs_came_with_their_versions() {
        assert!(!Version::V0_3_1.has_check() && Version::V0_4_0.has_check());
        assert!(!Version::V1_0_0.has_gc_and_status() && Version::V1_1_0.has_gc_and_status());
    }
}
