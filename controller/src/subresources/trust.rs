//! Who may say who a user is: the API server's front proxy, as ConfigMap kube-system/extension-apiserver-authentication
//! describes it.
//!
//! Guarantees: names of users are read from headers only on a connection whose client certificate the front proxy's authority
//! signed, for one of the allowed names when any are listed. A rotated authority counts from the next connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use hyper::HeaderMap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// The front proxy as it is now; `None` until the ConfigMap was read.
pub(super) type Trust = watch::Receiver<Option<Arc<FrontProxy>>>;

/// The API server as a client of this one.
#[derive(Debug)]
pub(super) struct FrontProxy {
    /// Verifies certificates that the front proxy's authority signed; none is asked of a client.
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// Common names of certificates; all when there are none.
    allowed_names: Vec<String>,
    user_headers: Vec<String>,
    group_headers: Vec<String>,
    extra_prefixes: Vec<String>,
    uid_headers: Vec<String>,
}

/// Why the ConfigMap says nothing usable.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrustError {
    /// Without an authority no client is believed.
    #[error("key requestheader-client-ca-file is missing")]
    NoAuthority,
    /// The authority is no certificate.
    #[error("requestheader-client-ca-file holds no certificate")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// The authority cannot be used.
    #[error("requestheader-client-ca-file cannot be used")]
    Authority(#[from] rustls::Error),
    /// No verifier can be made of it.
    #[error("requestheader-client-ca-file cannot be used")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A list is no JSON.
    #[error("key {0} is not a JSON list of names")]
    List(&'static str, #[source] serde_json::Error),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

impl FrontProxy {
    /// Reads the ConfigMap's data.
    ///
    /// # Errors
    /// There is no usable authority, or a list is none.
    pub(super) fn read(data: &BTreeMap<String, String>) -> Result<Self, TrustError> {
        let authority = data.get("requestheader-client-ca-file").ok_or(TrustError::NoAuthority)?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(root?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let list = |key: &'static str| match data.get(key) {
            Some(text) => serde_json::from_str::<Vec<String>>(text).map_err(|error| TrustError::List(key, error)),
            None => Ok(Vec::new()),
        };
        Ok(Self {
            verifier: verifier.allow_unauthenticated().build()?,
            allowed_names: list("requestheader-allowed-names")?,
            user_headers: list("requestheader-username-headers")?,
            group_headers: list("requestheader-group-headers")?,
            extra_prefixes: list("requestheader-extra-headers-prefix")?,
            uid_headers: list("requestheader-uid-headers")?,
        })
    }

    /// Whether the certificate that a client showed, which was verified, is the front proxy's.
    pub(super) fn is_front_proxy(&self, certificate: &[u8]) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
        let mut names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        self.allowed_names.is_empty() || names.any(|name| self.allowed_names.iter().any(|allowed| allowed == name))
    }

    /// The user that the front proxy's headers name.
    pub(super) fn user(&self, headers: &HeaderMap) -> Option<User> {
        let values = |names: &[String]| -> Vec<String> {
            let all = names.iter().flat_map(|name| headers.get_all(name.as_str()));
            all.filter_map(|value| value.to_str().ok()).filter(|value| !value.is_empty()).map(str::to_owned).collect()
        };
        let name = values(&self.user_headers).into_iter().next()?;
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for (header, value) in headers {
            let Ok(value) = value.to_str() else { continue };
            let key = self.extra_prefixes.iter().find_map(|prefix| after(header.as_str(), prefix));
            if let Some(key) = key {
                extra.entry(unescaped(key)).or_default().push(value.to_owned());
            }
        }
        let uid = values(&self.uid_headers).into_iter().next();
        Some(User { name, uid, groups: values(&self.group_headers), extra })
    }
}

/// What follows a prefix, whose case makes no difference.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// A key with its percent escapes resolved; one that is malformed stays as it is.
fn unescaped(key: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = key.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'%', None) => return key.to_owned(),
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

/// Follows the ConfigMap, for ever.
pub(super) async fn follow(client: Client, publish: watch::Sender<Option<Arc<FrontProxy>>>) {
    let maps = Api::<ConfigMap>::namespaced(client, NAMESPACE);
    let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut maps = std::pin::pin!(watcher(maps, config).default_backoff().applied_objects());
    while let Some(map) = maps.next().await {
        let read = match map {
            Ok(map) => FrontProxy::read(&map.data.unwrap_or_default()),
            Err(error) => {
                tracing::warn!(%error, "ConfigMap {NAMESPACE}/{NAME} cannot be read, retrying");
                continue;
            }
        };
        match read {
            Ok(front_proxy) => drop(publish.send_replace(Some(Arc::new(front_proxy)))),
            Err(error) => {
                let reason = protocol::chain::chain(&error);
                tracing::warn!(reason, "ConfigMap {NAMESPACE}/{NAME} is not usable: no user is believed");
                publish.send_replace(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    /// A certificate with a common name: its PEM and DER.
    fn certificate(name: &str) -> (String, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate.pem(), certificate.der().to_vec())
    }

    fn data(names: &str) -> BTreeMap<String, String> {
        let pairs = [
            ("requestheader-client-ca-file", certificate("authority").0),
            ("requestheader-allowed-names", names.to_owned()),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#.to_owned()),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#.to_owned()),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#.to_owned()),
        ];
        pairs.into_iter().map(|(key, text)| (key.to_owned(), text)).collect()
    }

    // spec: SUB-2
    #[test]
    fn only_a_certificate_of_an_allowed_name_speaks_for_users() {
        let (_, front_proxy) = certificate("front-proxy-client");
        let (_, other) = certificate("kubelet");
        let trust = FrontProxy::read(&data(r#"["front-proxy-client"]"#)).unwrap();
        assert!(trust.is_front_proxy(&front_proxy) && !trust.is_front_proxy(&other));
        assert!(!trust.is_front_proxy(b"no certificate"));
        assert!(FrontProxy::read(&data("[]")).unwrap().is_front_proxy(&other), "an empty list allows every name");
    }

    // spec: SUB-2
    #[test]
    fn a_user_is_read_with_groups_and_extra() {
        let trust = FrontProxy::read(&data("[]")).unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(trust.user(&headers), None);
        for (name, value) in [
            ("x-remote-user", "ann"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "system:authenticated"),
            ("x-remote-extra-example.org%2fteam", "a"),
            ("x-other", "b"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let user = trust.user(&headers).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups),
            ("ann", vec!["dev".to_owned(), "system:authenticated".to_owned()])
        );
        assert_eq!(user.extra, [("example.org/team".to_owned(), vec!["a".to_owned()])].into());
    }

    #[test]
    fn a_map_without_an_authority_is_refused() {
        let mut broken = data("[]");
        broken.insert("requestheader-group-headers".to_owned(), "X-Remote-Group".to_owned());
        assert!(matches!(FrontProxy::read(&broken), Err(TrustError::List("requestheader-group-headers", _))));
        broken.remove("requestheader-client-ca-file");
        assert!(matches!(FrontProxy::read(&broken), Err(TrustError::NoAuthority)));
    }
}
