//! The subresource API `subresources.kubevirt.io`, which the API server aggregates: what virtctl does to VMs that run.
//!
//! Flow: HTTPS of the aggregator → [`trust`]: who asks → [`path`]: for what → [`access`]: may they → [`answer`]. Actions on a
//! guest go on to the agent of its node, streams are joined here. Every replica serves, whether it leads or not.
//! Guarantees: no call but discovery, version and health is answered without a SubjectAccessReview; a refusal is a Status
//! object with KubeVirt's code and text; nothing is kept between calls.

mod access;
mod agent;
mod answer;
mod calls;
mod discovery;
mod durations;
mod explain;
mod instance;
mod machine;
mod names;
mod openapi;
mod path;
mod status;
mod streams;
mod trust;
mod websocket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use kube::Client;
use rustls::ClientConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::agents::LauncherClient;
use crate::http;
use crate::tls::ServerCertificate;

use calls::Api;

/// What the API is served with.
pub(crate) struct Subresources {
    /// The API server.
    pub(crate) client: Client,
    /// The namespace of the node agents.
    pub(crate) namespace: String,
    /// What this server shows.
    pub(crate) certificate: ServerCertificate,
    /// What it shows to node agents; `None` until it is made.
    pub(crate) agents: watch::Receiver<Option<Arc<ClientConfig>>>,
}

/// Listens for the aggregator; the future answers it, for ever.
///
/// # Errors
/// The system's, where the address is in use.
pub(crate) async fn serve(address: SocketAddr, with: Subresources) -> io::Result<impl Future<Output = ()>> {
    let listener = TcpListener::bind(address).await?;
    let Subresources { client, namespace, certificate, agents } = with;
    let launchers = LauncherClient { client: client.clone(), namespace, tls: agents };
    let api = Arc::new(Api { client: client.clone(), launchers });
    let (publish, trust) = watch::channel(None);
    let accept = async move {
        loop {
            let Some(stream) = http::accept(&listener).await else { continue };
            tokio::spawn(connection(stream, certificate.clone(), trust.clone(), Arc::clone(&api)));
        }
    };
    Ok(async move {
        tokio::join!(accept, trust::follow(client, publish));
    })
}

async fn connection(stream: TcpStream, certificate: ServerCertificate, trust: trust::Trust, api: Arc<Api>) {
    let front_proxy = trust.borrow().clone();
    let verifier = front_proxy.as_ref().map(|trust| Arc::clone(&trust.verifier));
    let stream = match certificate.accept(stream, verifier).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a client and the subresource API do not agree on keys");
            return;
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    // Headers of anyone else name no user.
    let front_proxy = front_proxy.filter(|trust| shown.is_some_and(|shown| trust.is_front_proxy(shown)));
    http::serve(stream, move |request| answer::answer(Arc::clone(&api), request, front_proxy.clone())).await;
}
