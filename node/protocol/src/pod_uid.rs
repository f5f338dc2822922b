//! The UID of a pod, as the name of kubelet's folder for it.

use serde::{Deserialize, Serialize};

/// A pod's UID: a UUID, or the 32 hexadecimal digits that kubelet gives a pod of a file on the node.
///
/// It is safe as one component of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodUid(String);

/// A text that is no pod's UID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the UID of a pod, expected a UUID")]
pub struct PodUidError(String);

impl PodUid {
    /// The UID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PodUid {
    type Error = PodUidError;

    fn try_from(text: String) -> Result<Self, PodUidError> {
        let digits = text.bytes().filter(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).count();
        let dashes = text.bytes().enumerate().filter(|(_, byte)| *byte == b'-').map(|(at, _)| at);
        let is_uuid = digits == 32 && text.len() == 36 && dashes.eq([8, 13, 18, 23]);
        let is_hash = digits == 32 && text.len() == 32;
        if is_uuid || is_hash { Ok(Self(text)) } else { Err(PodUidError(text.chars().take(64).collect())) }
    }
}

impl std::str::FromStr for PodUid {
    type Err = PodUidError;

    fn from_str(text: &str) -> Result<Self, PodUidError> {
        text.to_owned().try_into()
    }
}

impl From<PodUid> for String {
    fn from(uid: PodUid) -> Self {
        uid.0
    }
}

impl std::fmt::Display for PodUid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: NODE-1
    #[test]
    fn only_the_two_shapes_that_kubelet_uses_are_uids() {
        for good in ["5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f", "5d1f1c2e1e0b4b7c9d1a0c5b6a7d8e9f"] {
            assert_eq!(good.parse::<PodUid>().unwrap().as_str(), good);
        }
        let long = "a".repeat(40);
        let bad = [
            "",
            ".",
            "..",
            "a/b",
            "5D1F1C2E-1E0B-4B7C-9D1A-0C5B6A7D8E9F",
            "5d1f1c2e1-e0b-4b7c-9d1a-0c5b6a7d8e9f",
            &long,
        ];
        for bad in bad {
            assert!(bad.parse::<PodUid>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<PodUid>("\"../../etc\"").is_err());
    }
}
