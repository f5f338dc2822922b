//! Which KubeVirt object the controller follows: the controller says it to each agent, and each agent to who asks for its health.

use serde::{Deserialize, Serialize};

/// The body of `PUT /v1/configuration`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Followed {
    /// `metadata.resourceVersion` of the KubeVirt object whose configuration was looked at last; an integer, as the API server writes it.
    pub resource_version: u64,
}

/// The answer to `GET /healthz` on [`HEALTH_PORT`](crate::names::HEALTH_PORT), in KubeVirt's words: a client that changed the
/// configuration asks until it is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Health {
    /// The same version as decimal text, `0` before the controller has said one.
    pub config_resource_version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: NODE-9
    #[test]
    fn the_followed_version_has_the_documented_text() {
        let followed = Followed { resource_version: 4711 };
        assert_eq!(serde_json::to_string(&followed).unwrap(), r#"{"resourceVersion":4711}"#);
        let health = Health { config_resource_version: "4711".to_owned() };
        assert_eq!(serde_json::to_string(&health).unwrap(), r#"{"config-resource-version":"4711"}"#);
    }
}
