//! The product's own certificates: an authority, and a certificate for each of its servers, made and renewed here.
//!
//! Flow: the leading replica runs [`maintain`]; servers read their Secret again and again, so a renewal needs no restart.
//! Guarantees: an authority that is renewed stays trusted together with its successor until the next renewal.

use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ClientConfig;
use serde_json::json;
use tokio::sync::watch;

use crate::MANAGER;
use crate::tls::{self, CERTIFICATE, KEY, text};

/// Secret with the authority's certificate and key.
const AUTHORITY: &str = "tapvisor-ca";
/// Secret with the certificate of the admission webhook.
pub(crate) const WEBHOOK: &str = "tapvisor-webhook-tls";
/// Secret with the certificate of the subresource API.
pub(crate) const SUBRESOURCES: &str = "tapvisor-api-tls";
/// Secret with the certificate of the node agents.
const NODE: &str = "tapvisor-node-tls";
/// The ValidatingWebhookConfiguration that is told the authority.
const WEBHOOK_CONFIGURATION: &str = "tapvisor";

/// The APIServices that are told the authority.
const API_SERVICES: [&str; 2] = ["v1.subresources.kubevirt.io", "v1alpha3.subresources.kubevirt.io"];

/// Certificates of the authorities that are trusted.
const AUTHORITIES: &str = "ca.crt";
/// Day after which a Secret's certificate is made again.
const RENEW_AFTER: &str = "tapvisor.io/renew-after";

const AUTHORITY_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 90;
/// How often dates are looked at.
const PERIOD: Duration = Duration::from_secs(3600);
const RETRY: Duration = Duration::from_secs(5);
/// How often the authority is read for this replica's own certificate.
const CLIENT_PERIOD: Duration = Duration::from_secs(60);

/// Why certificates are not as they must be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The API server refused a request or did not answer.
    #[error("cannot read or write {object}")]
    Api {
        /// The object.
        object: &'static str,
        /// The API server's answer.
        #[source]
        source: kube::Error,
    },
    /// A certificate of this replica cannot be used.
    #[error("cannot use a certificate for node agents")]
    Client(#[source] tls::TlsError),
    /// A certificate or key cannot be made or read.
    #[error("cannot make a certificate for {object}")]
    Make {
        /// The Secret.
        object: &'static str,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
}

/// Keeps what this replica shows to node agents valid, for ever: a certificate by the authority that the leading replica
/// keeps, made again each day.
pub(crate) async fn follow_client(
    client: Client,
    namespace: String,
    publish: watch::Sender<Option<Arc<ClientConfig>>>,
) {
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    let mut made_for = None;
    loop {
        let wait = match make_client(&secrets, Timestamp::now(), &mut made_for, &publish).await {
            Ok(true) => CLIENT_PERIOD,
            Ok(false) => RETRY,
            Err(error) => {
                let reason = protocol::chain::chain(&error);
                tracing::warn!(reason, "no certificate for node agents is made");
                RETRY
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// `false` while there is no authority.
async fn make_client(
    secrets: &Api<Secret>,
    now: Timestamp,
    made_for: &mut Option<(Date, String)>,
    publish: &watch::Sender<Option<Arc<ClientConfig>>>,
) -> Result<bool, CertificateError> {
    let today = now.to_zoned(TimeZone::UTC).date();
    let existing = get(secrets, AUTHORITY).await?;
    let (Some(key), Some(trusted)) = (text(existing.as_ref(), KEY), text(existing.as_ref(), AUTHORITIES)) else {
        return Ok(false);
    };
    let current = Some((today, trusted.clone()));
    if *made_for != current {
        let make = |source| CertificateError::Make { object: "node agents", source };
        let authority = Authority { key: KeyPair::from_pem(&key).map_err(make)?, trusted };
        let (certificate, key) = leaf(&authority, MANAGER, ExtendedKeyUsagePurpose::ClientAuth, today).map_err(make)?;
        let config = tls::client_config(&certificate, &key, &authority.trusted).map_err(CertificateError::Client)?;
        publish.send_replace(Some(Arc::new(config)));
        *made_for = current;
    }
    Ok(true)
}

/// Keeps all certificates in Secrets valid, for ever.
pub(crate) async fn maintain(client: Client, namespace: &str) {
    loop {
        let wait = match renew(&client, namespace, Timestamp::now()).await {
            Ok(()) => PERIOD,
            Err(error) => {
                tracing::warn!(reason = protocol::chain::chain(&error), "certificates are not renewed");
                RETRY
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn renew(client: &Client, namespace: &str, now: Timestamp) -> Result<(), CertificateError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let today = now.to_zoned(TimeZone::UTC).date();
    let authority = authority(&secrets, today).await?;
    for (name, service) in [(WEBHOOK, "tapvisor-webhook"), (NODE, "tapvisor-node"), (SUBRESOURCES, "tapvisor-api")] {
        let existing = get(&secrets, name).await?;
        if !is_due(existing.as_ref(), today) && text(existing.as_ref(), AUTHORITIES) == Some(authority.trusted.clone())
        {
            continue;
        }
        let make = |source| CertificateError::Make { object: name, source };
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        let (certificate, key) =
            leaf(&authority, &format!("{service}.{namespace}.svc"), server, today).map_err(make)?;
        let data = [(CERTIFICATE, certificate), (KEY, key), (AUTHORITIES, authority.trusted.clone())];
        put(&secrets, name, &data, renewal(today, LEAF_DAYS)).await?;
        tracing::info!(secret = name, "a new certificate");
    }
    tell_webhook(client, &authority.trusted).await?;
    tell_aggregator(client, &authority.trusted).await
}

/// The authority that signs, and all that are trusted, in PEM.
struct Authority {
    key: KeyPair,
    trusted: String,
}

async fn authority(secrets: &Api<Secret>, today: Date) -> Result<Authority, CertificateError> {
    let make = |source| CertificateError::Make { object: AUTHORITY, source };
    let existing = get(secrets, AUTHORITY).await?;
    if let (false, Some(key), Some(trusted)) =
        (is_due(existing.as_ref(), today), text(existing.as_ref(), KEY), text(existing.as_ref(), AUTHORITIES))
    {
        return Ok(Authority { key: KeyPair::from_pem(&key).map_err(make)?, trusted });
    }
    let key = KeyPair::generate().map_err(make)?;
    let certificate = authority_parameters(today).self_signed(&key).map_err(make)?.pem();
    let trusted = format!("{certificate}{}", text(existing.as_ref(), CERTIFICATE).unwrap_or_default());
    let data = [(CERTIFICATE, certificate), (KEY, key.serialize_pem()), (AUTHORITIES, trusted.clone())];
    put(secrets, AUTHORITY, &data, renewal(today, AUTHORITY_DAYS)).await?;
    tracing::info!(secret = AUTHORITY, "a new authority");
    Ok(Authority { key, trusted })
}

fn authority_parameters(today: Date) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, AUTHORITY);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut parameters, today, AUTHORITY_DAYS);
    parameters
}

/// A certificate for one purpose, and its key, in PEM.
fn leaf(
    authority: &Authority,
    name: &str,
    purpose: ExtendedKeyUsagePurpose,
    today: Date,
) -> Result<(String, String), rcgen::Error> {
    // Only the authority's name and key go into what it signs.
    let issuer = Issuer::new(authority_parameters(today), &authority.key);
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new([name.to_owned()])?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.extended_key_usages = vec![purpose];
    parameters.use_authority_key_identifier_extension = true;
    valid(&mut parameters, today, LEAF_DAYS);
    Ok((parameters.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}

/// From yesterday, for clocks that are behind.
fn valid(parameters: &mut CertificateParams, today: Date, days: i64) {
    let day = |date: Date| {
        let number = |value: i8| u8::try_from(value).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), number(date.month()), number(date.day()))
    };
    parameters.not_before = day(today.saturating_sub(1.day()));
    parameters.not_after = day(today.saturating_add(days.days()));
}

/// After two thirds of a certificate's days.
fn renewal(today: Date, days: i64) -> Date {
    today.saturating_add((days * 2 / 3).days())
}

fn is_due(secret: Option<&Secret>, today: Date) -> bool {
    let after =
        secret.and_then(|secret| secret.annotations().get(RENEW_AFTER)).and_then(|text| text.parse::<Date>().ok());
    after.is_none_or(|after| after <= today)
}

async fn get(secrets: &Api<Secret>, object: &'static str) -> Result<Option<Secret>, CertificateError> {
    secrets.get_opt(object).await.map_err(|source| CertificateError::Api { object, source })
}

async fn put(
    secrets: &Api<Secret>,
    object: &'static str,
    data: &[(&str, String)],
    renewal: Date,
) -> Result<(), CertificateError> {
    let data: std::collections::BTreeMap<_, _> = data.iter().map(|(key, text)| (*key, text)).collect();
    let patch = Patch::Apply(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": object, "annotations": {RENEW_AFTER: renewal.to_string()}},
        "stringData": data,
    }));
    let written = secrets.patch(object, &PatchParams::apply(MANAGER).force(), &patch).await;
    written.map(drop).map_err(|source| CertificateError::Api { object, source })
}

/// Tells the API server by which authority the webhook is known.
async fn tell_webhook(client: &Client, trusted: &str) -> Result<(), CertificateError> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let failed = |source| CertificateError::Api { object: "the ValidatingWebhookConfiguration", source };
    // An installation without it has no admission to speak of.
    let Some(found) = api.get_opt(WEBHOOK_CONFIGURATION).await.map_err(failed)? else { return Ok(()) };
    let bundle = ByteString(trusted.as_bytes().to_vec());
    let webhooks = found.webhooks.unwrap_or_default();
    if webhooks.iter().all(|webhook| webhook.client_config.ca_bundle.as_ref() == Some(&bundle)) {
        return Ok(());
    }
    let webhooks: Vec<_> =
        webhooks.iter().map(|hook| json!({"name": hook.name, "clientConfig": {"caBundle": bundle}})).collect();
    let patch = Patch::Strategic(json!({"webhooks": webhooks}));
    api.patch(WEBHOOK_CONFIGURATION, &PatchParams::default(), &patch).await.map(drop).map_err(failed)
}

/// Tells the API server by which authority the subresource API is known.
async fn tell_aggregator(client: &Client, trusted: &str) -> Result<(), CertificateError> {
    let api: Api<APIService> = Api::all(client.clone());
    let failed = |source| CertificateError::Api { object: "the APIServices of subresources.kubevirt.io", source };
    let bundle = ByteString(trusted.as_bytes().to_vec());
    for name in API_SERVICES {
        // An installation without it has no subresource API to speak of.
        let Some(found) = api.get_opt(name).await.map_err(failed)? else { continue };
        if found.spec.and_then(|spec| spec.ca_bundle).as_ref() != Some(&bundle) {
            let patch = Patch::Merge(json!({"spec": {"caBundle": bundle}}));
            api.patch(name, &PatchParams::default(), &patch).await.map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    fn secret(renew_after: &str) -> Secret {
        serde_json::from_value(json!({"metadata": {"annotations": {RENEW_AFTER: renew_after}}})).unwrap()
    }

    // spec: CTRL-9
    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_days() {
        let renewal = renewal(day("2026-01-01"), LEAF_DAYS);
        assert_eq!(renewal, day("2026-03-02"));
        assert!(!is_due(Some(&secret("2026-03-02")), day("2026-03-01")));
        assert!(is_due(Some(&secret("2026-03-02")), day("2026-03-02")));
        assert!(is_due(Some(&secret("never")), day("2026-01-01")) && is_due(None, day("2026-01-01")));
    }

    // spec: CTRL-9
    #[test]
    fn a_servers_certificate_is_trusted_by_its_authority_and_by_no_other() {
        let today = day("2026-01-01");
        let make = || {
            let key = KeyPair::generate().unwrap();
            let trusted = authority_parameters(today).self_signed(&key).unwrap().pem();
            Authority { key, trusted }
        };
        let (ours, other) = (make(), make());
        // The authority's parameters may be those of a later day: they are not part of what is signed.
        let (certificate, _) =
            leaf(&ours, "tapvisor-webhook.tapvisor.svc", ExtendedKeyUsagePurpose::ServerAuth, day("2026-05-01"))
                .unwrap();
        assert!(crate::tls::is_trusted(
            &certificate,
            &ours.trusted,
            "tapvisor-webhook.tapvisor.svc",
            "2026-05-02T00:00:00Z"
        ));
        assert!(!crate::tls::is_trusted(
            &certificate,
            &other.trusted,
            "tapvisor-webhook.tapvisor.svc",
            "2026-05-02T00:00:00Z"
        ));
        assert!(!crate::tls::is_trusted(
            &certificate,
            &ours.trusted,
            "tapvisor-node.tapvisor.svc",
            "2026-05-02T00:00:00Z"
        ));
        assert!(!crate::tls::is_trusted(
            &certificate,
            &ours.trusted,
            "tapvisor-webhook.tapvisor.svc",
            "2026-12-02T00:00:00Z"
        ));
    }
}
