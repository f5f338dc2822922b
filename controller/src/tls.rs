//! HTTPS with a certificate that is replaced while connections come in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Keys of a Secret with a certificate, as type kubernetes.io/tls names them.
pub(crate) const CERTIFICATE: &str = "tls.crt";
pub(crate) const KEY: &str = "tls.key";

/// How often a Secret is read: much shorter than the time between a renewal and the end of the old certificate.
const PERIOD: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);
/// Longest a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Text under a key of a Secret.
pub(crate) fn text(secret: Option<&Secret>, key: &str) -> Option<String> {
    let ByteString(bytes) = secret?.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.clone()).ok()
}

/// What errors call the certificate that a replica makes for itself.
const OWN: &str = "of this replica";

/// Why a Secret gives no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The API server refused the request or did not answer.
    #[error("cannot read Secret {0}")]
    Api(&'static str, #[source] kube::Error),
    /// It does not exist yet.
    #[error("Secret {0} does not exist yet")]
    None(&'static str),
    /// Its text is no certificate or no key.
    #[error("Secret {0} holds no certificate with its key")]
    Pem(&'static str, #[source] PemError),
    /// Certificate and key do not belong together.
    #[error("Secret {0} cannot be used")]
    Config(&'static str, #[source] rustls::Error),
}

/// The certificate of a Secret, as it is now; `None` until there is one.
#[derive(Clone)]
pub(crate) struct ServerCertificate(watch::Receiver<Option<Arc<CertifiedKey>>>);

impl ServerCertificate {
    /// Follows a Secret of a namespace; the future does it, for ever.
    pub(crate) fn follow(client: Client, namespace: String, secret: &'static str) -> (Self, impl Future<Output = ()>) {
        let (publish, receive) = watch::channel(None);
        let follow = async move {
            let api = Api::<Secret>::namespaced(client, &namespace);
            let mut current = None;
            loop {
                let wait = match read(&api, secret, &mut current).await {
                    Ok(Some(certificate)) => {
                        publish.send_replace(Some(certificate));
                        PERIOD
                    }
                    Ok(None) => PERIOD,
                    Err(error) => {
                        let reason = protocol::chain::chain(&error);
                        tracing::debug!(reason, "the server's certificate is not read");
                        RETRY
                    }
                };
                tokio::time::sleep(wait).await;
            }
        };
        (Self(receive), follow)
    }

    /// Whether there is a certificate.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Agrees on keys with a client; `clients` verifies the certificate that it may show, without it none is asked for.
    ///
    /// # Errors
    /// There is no certificate yet, the client takes too long, does not trust it, or shows one that is not valid.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let certificate = self.0.borrow().clone().ok_or(io::ErrorKind::NotConnected)?;
        let config = server_config(certificate, clients).map_err(io::Error::other)?;
        tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(Arc::new(config)).accept(stream)).await?
    }
}

/// A Secret's certificate and key, unless that is `current`.
async fn read(
    api: &Api<Secret>,
    name: &'static str,
    current: &mut Option<String>,
) -> Result<Option<Arc<CertifiedKey>>, TlsError> {
    let secret = api.get_opt(name).await.map_err(|source| TlsError::Api(name, source))?;
    let (Some(certificate), Some(key)) = (text(secret.as_ref(), CERTIFICATE), text(secret.as_ref(), KEY)) else {
        return Err(TlsError::None(name));
    };
    if current.as_ref() == Some(&certificate) {
        return Ok(None);
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.map_err(|source| TlsError::Pem(name, source))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|source| TlsError::Pem(name, source))?;
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|source| TlsError::Config(name, source))?;
    *current = Some(certificate);
    Ok(Some(Arc::new(key)))
}

/// What shows a certificate to servers and trusts only authorities of the product's own.
///
/// # Errors
/// The texts are not PEM, or certificate and key do not belong together.
pub(crate) fn client_config(certificate: &str, key: &str, authorities: &str) -> Result<ClientConfig, TlsError> {
    let pem = |source| TlsError::Pem(OWN, source);
    let config = |source| TlsError::Config(OWN, source);
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(root.map_err(pem)?).map_err(config)?;
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(pem)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(config)?;
    builder.with_root_certificates(roots).with_client_auth_cert(chain.map_err(pem)?, key).map_err(config)
}

fn server_config(
    certificate: Arc<CertifiedKey>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Whether a client that trusts `authorities` accepts a server's certificate for a name at a time.
#[cfg(test)]
pub(crate) fn is_trusted(certificate: &str, authorities: &str, name: &str, at: &str) -> bool {
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::{ServerName, UnixTime};

    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let seconds = at.parse::<jiff::Timestamp>().unwrap().as_second().try_into().unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(&certificate, &[], &name, &[], now).is_ok()
}
