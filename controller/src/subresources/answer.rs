//! From a request to its answer.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use kube::Client;
use node_protocol::names::EXPLAIN;
use serde_json::json;

use super::calls::{Api, body, json_answer};
use super::path::{Document, Route, Target, route};
use super::status::{Failure, Kind};
use super::trust::FrontProxy;
use super::{access, agent, discovery, explain, instance, machine, streams};
use crate::http::Answer;

/// Answers a request; `front_proxy` is there when the front proxy sent it.
pub(super) async fn answer(api: Arc<Api>, request: Request<Incoming>, front_proxy: Option<Arc<FrontProxy>>) -> Answer {
    match respond(&api, request, front_proxy).await {
        Ok(answer) => answer,
        Err(failure) => {
            tracing::debug!(code = failure.code.as_u16(), message = failure.message, "refused");
            json_answer(failure.code, &failure.to_json())
        }
    }
}

async fn respond(
    api: &Api,
    request: Request<Incoming>,
    front_proxy: Option<Arc<FrontProxy>>,
) -> Result<Answer, Failure> {
    let route = route(request.uri().path())?;
    let user = front_proxy.and_then(|trust| trust.user(request.headers()));
    access::authorize(&api.client, &route, request.method(), user).await?;
    match route {
        Route::Open(Document::Healthz) => Ok(health(&api.client).await),
        Route::Open(document) => Ok(json_answer(StatusCode::OK, &discovery::document(document))),
        Route::ExpandSpec { namespace, .. } if request.method() == Method::PUT => {
            machine::expand_given(api, &body(request).await?, &namespace).await
        }
        Route::ExpandSpec { .. } => Err(Failure::method("PUT")),
        Route::Object(target) => object(api, request, target).await,
    }
}

async fn object(api: &Api, request: Request<Incoming>, target: Target) -> Result<Answer, Failure> {
    let path = request.uri().path().to_owned();
    let parts: Vec<_> = target.parts.iter().map(String::as_str).collect();
    match (target.kind, request.method(), parts.as_slice()) {
        (Kind::Instance, &Method::PUT, [name]) => match instance::Action::of(name) {
            Some(action) => instance::act(api, &target, action, &body(request).await?).await,
            None => Err(unknown(&path, name)),
        },
        (Kind::Machine, &Method::PUT, [name]) => match machine::Action::of(name) {
            Some(action) => machine::act(api, &target, action, &body(request).await?).await,
            None => Err(unknown(&path, name)),
        },
        (Kind::Machine, &Method::GET, ["expand-spec"]) => machine::expand(api, &target).await,
        (Kind::Instance, &Method::GET, [name]) if let Some(document) = agent::Document::of(name) => {
            Ok(agent::document(api, &target, document).await)
        }
        (Kind::Instance, &Method::GET, [EXPLAIN]) => explain::explanation(api, &target).await,
        (Kind::Instance, &Method::GET, ["console"]) => streams::console(api, &target, request).await,
        (Kind::Instance, &Method::GET, ["vnc"]) => streams::vnc(api, &target, request).await,
        (_, &Method::GET, ["portforward", port]) => streams::port_forward(api, &target, request, port, "tcp").await,
        (_, &Method::GET, ["portforward", port, protocol]) => {
            streams::port_forward(api, &target, request, port, protocol).await
        }
        (_, _, [name, ..]) => Err(unknown(&path, name)),
        (_, _, []) => Err(Failure::no_such_path(&path)),
    }
}

/// A subresource that KubeVirt has and this product does not, or one that no release has.
fn unknown(path: &str, name: &str) -> Failure {
    const KUBEVIRTS: [&str; 12] = [
        "addvolume",
        "removevolume",
        "memorydump",
        "removememorydump",
        "evacuate",
        "objectgraph",
        "vnc",
        "usbredir",
        "vsock",
        "backup",
        "redefine-checkpoint",
        "sev",
    ];
    match KUBEVIRTS.contains(&name) {
        true => Failure::not_implemented(format!("the subresource {name} is not implemented")),
        false => Failure::no_such_path(path),
    }
}

/// Whether the API server answers.
async fn health(client: &Client) -> Answer {
    match client.apiserver_version().await {
        Ok(version) => json_answer(
            StatusCode::OK,
            &json!({"apiserver": {"connectivity": "ok", "version": {"gitVersion": version.git_version}}}),
        ),
        Err(error) => json_answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            &json!({"apiserver": {"connectivity": "failed", "error": error.to_string()}}),
        ),
    }
}
