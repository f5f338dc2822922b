//! The agent's certificate, from the files of a `kubernetes.io/tls` Secret with `ca.crt`; read for each connection, so that a
//! new one counts at once.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};

/// For a server that answers only clients with a certificate that `ca.crt` signed.
///
/// # Errors
/// The first file that is missing or unfit.
pub(crate) fn for_own_clients(folder: &Path) -> io::Result<ServerConfig> {
    let mut authorities = RootCertStore::empty();
    for authority in certificates(folder, "ca.crt")? {
        authorities.add(authority).map_err(|error| unfit("ca.crt", &error))?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider());
    let clients = clients.build().map_err(|error| unfit("ca.crt", &error))?;
    let config = versions()?.with_client_cert_verifier(clients);
    config.with_single_cert(certificates(folder, "tls.crt")?, key(folder)?).map_err(|error| unfit("tls.crt", &error))
}

/// For a server that asks clients for no certificate.
///
/// # Errors
/// The first file that is missing or unfit.
pub(crate) fn for_any_client(folder: &Path) -> io::Result<ServerConfig> {
    let config = versions()?.with_no_client_auth();
    config.with_single_cert(certificates(folder, "tls.crt")?, key(folder)?).map_err(|error| unfit("tls.crt", &error))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn versions() -> io::Result<ConfigBuilder<ServerConfig, WantsVerifier>> {
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    config.map_err(io::Error::other)
}

fn certificates(folder: &Path, name: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(folder.join(name)).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    found.map_err(|error| unfit(name, &error))
}

fn key(folder: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(folder.join("tls.key")).map_err(|error| unfit("tls.key", &error))
}

fn unfit(name: &str, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{name}: {error}"))
}
