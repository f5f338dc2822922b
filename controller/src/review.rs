//! AdmissionReviews of admission.k8s.io/v1: what the API server asks, and the answer.

use serde::{Deserialize, Serialize};

/// Kubernetes cuts longer warnings off.
const LONGEST_WARNING: usize = 250;

/// A question about an object of type `K`.
#[derive(Debug, Deserialize)]
struct Review<K> {
    request: Request<K>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request<K> {
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) namespace: String,
    #[serde(default)]
    pub(crate) dry_run: Option<bool>,
    pub(crate) object: K,
}

impl<K: for<'a> Deserialize<'a>> Request<K> {
    /// The request in a body.
    ///
    /// # Errors
    /// The body is no AdmissionReview of such an object.
    pub(crate) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body).map(|Review { request }| request)
    }
}

/// An AdmissionReview that answers a request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Debug, Serialize)]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Refusal>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug, Serialize)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) code: u16,
    /// The API server's word for the code.
    pub(crate) reason: &'static str,
    /// A sentence for people.
    pub(crate) message: String,
}

/// The answer to the review with this UID.
///
/// # Errors
/// It cannot be written as JSON, a defect of this module.
pub(crate) fn response(
    uid: String,
    status: Option<Refusal>,
    warnings: Vec<String>,
) -> Result<Vec<u8>, serde_json::Error> {
    let warnings = warnings.into_iter().map(|warning| warning.chars().take(LONGEST_WARNING).collect()).collect();
    let response = Response { uid, allowed: status.is_none(), status, warnings };
    serde_json::to_vec(&Answer { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response })
}
