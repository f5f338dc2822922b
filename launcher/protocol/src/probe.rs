//! What `tapvisor-launcher probe` prints: one JSON object.

use serde::{Deserialize, Serialize};

/// The whole report, as one JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Whether /dev/kvm can run guests.
    #[serde(flatten)]
    pub kvm: Verdict,
    /// Confinement that this kernel lacks (Landlock, seccomp): one message each, with the reason.
    #[serde(default)]
    pub lacks: Vec<String>,
}

/// Whether /dev/kvm can run guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kvm", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Verdict {
    /// It executes code on the processor.
    Usable,
    /// It is absent, closed, or only interprets code and cannot run Linux.
    Unusable {
        /// The reason, as a message for users.
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
