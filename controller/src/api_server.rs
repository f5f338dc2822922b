//! The client of the API server.
//!
//! Guarantees: a request is answered or fails within a bound. A connection can be lost without notice, and a pass that waits for
//! its answer would keep every further pass over the same object from starting.

use std::time::Duration;

use kube::client::{Client, ClientBuilder};
use kube::{Config, Error};
use tower::timeout::TimeoutLayer;

/// The longest wait for the head of an answer. The API server itself gives up after 60 s; the body of a watch is not bounded by it.
pub(crate) const LONGEST_ANSWER: Duration = Duration::from_secs(70);

/// A client whose requests fail when the head of the answer does not arrive within `longest`.
///
/// # Errors
/// When the configuration names certificates that cannot be read.
pub(crate) fn client(config: Config, longest: Duration) -> Result<Client, Error> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(longest)).build())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;
    use tokio::net::TcpListener;

    use super::*;

    // spec: CTRL-27
    #[tokio::test]
    async fn a_request_that_is_never_answered_fails() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
        let client = client(Config::new(uri), Duration::from_millis(50)).unwrap();
        let accept = async {
            let connection = silent.accept().await.unwrap();
            std::future::pending::<()>().await;
            drop(connection);
        };
        let pods = Api::<Pod>::namespaced(client, "default");
        tokio::select! {
            answer = pods.get("any") => assert!(matches!(answer, Err(Error::Service(_))), "{answer:?}"),
            () = accept => unreachable!("it waits for ever"),
        }
    }
}
