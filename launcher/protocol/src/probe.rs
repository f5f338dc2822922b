//! What `tapvisor-launcher probe` prints: one JSON object.

use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// What /dev/kvm is worth.
    #[serde(flatten)]
    pub kvm: Verdict,
    /// What the launcher cannot confine itself with here: Landlock, seccomp; for people, each with its reason.
    #[serde(default)]
    pub lacks: Vec<String>,
}

/// What /dev/kvm is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kvm", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Verdict {
    /// It executes.
    Usable,
    /// It does not, or not in earnest.
    Unusable {
        /// Why, for people.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_has_the_shape_that_others_read() {
        let unusable = Verdict::Unusable { reason: "only interprets".to_owned() };
        assert_eq!(serde_json::to_string(&unusable).unwrap(), r#"{"kvm":"unusable","reason":"only interprets"}"#);
        assert_eq!(serde_json::from_str::<Verdict>(r#"{"kvm":"usable"}"#).unwrap(), Verdict::Usable);
        let probe = Probe { kvm: Verdict::Usable, lacks: vec!["Landlock: none".to_owned()] };
        assert_eq!(serde_json::to_string(&probe).unwrap(), r#"{"kvm":"usable","lacks":["Landlock: none"]}"#);
    }
}
