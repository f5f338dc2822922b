//! What all answers need: the API server, the way to launchers, bodies in and JSON out.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use kube::Client;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::status::{Failure, Kind};
use crate::agents::LauncherClient;
use crate::http::Answer;
use crate::objects::VirtualMachineInstance;

/// Longest body of a request: a VirtualMachine to be expanded.
const MAX_BODY: usize = 3 << 20;

/// What answers are made from.
pub(super) struct Api {
    /// The API server.
    pub(super) client: Client,
    /// The way to launchers.
    pub(super) launchers: LauncherClient,
}

/// The instance of a name.
///
/// # Errors
/// It does not exist, or the API server did not answer.
pub(super) async fn instance(client: &Client, namespace: &str, name: &str) -> Result<VirtualMachineInstance, Failure> {
    let api = kube::Api::<VirtualMachineInstance>::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await;
    let found = found.map_err(|error| Failure::internal(format!("unable to retrieve vmi [{name}]: {error}")))?;
    found.ok_or_else(|| Failure::not_found(Kind::Instance, name))
}

/// A request's body.
///
/// # Errors
/// It is too long, or the connection broke off.
pub(super) async fn body(request: Request<Incoming>) -> Result<Bytes, Failure> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    Ok(body.map_err(|error| Failure::bad_request(format!("the body cannot be read: {error}")))?.to_bytes())
}

/// The options in a body; an empty body has none.
///
/// # Errors
/// The body is no JSON object of this shape.
pub(super) fn options<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Failure> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    let failed = |error| Failure::bad_request(format!("Can not unmarshal Request body to struct, error: {error}"));
    serde_json::from_slice(body).map_err(failed)
}

/// A JSON answer. Clients look for exactly this content type.
pub(super) fn json_answer(code: StatusCode, value: &Value) -> Answer {
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 202 without a body.
pub(super) fn accepted() -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}
