//! Which of several replicas works: the one that holds a Lease of coordination.k8s.io.
//!
//! Flow: [`Lease::acquire`] returns once the Lease is free or expired and taken; [`Lease::keep`] renews it and returns only
//! when it is lost; [`Lease::release`] gives it up.
//! Guarantees: every write carries the resourceVersion that was read, so of two replicas one succeeds.
//! Assumptions: clocks need not agree: a replica counts from the moment it saw the Lease change.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::Instant;

const NAME: &str = "tapvisor-controller";
/// How long a Lease lasts that is not renewed.
const DURATION: Duration = Duration::from_secs(30);
const RENEWAL: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(2);
/// The longest wait for the answer to a renewal.
const ANSWER: Duration = Duration::from_secs(5);
/// A holder stops after so long without a renewal. With [`RETRY`] and [`ANSWER`] it has stopped before another replica takes over.
const DEADLINE: Duration = Duration::from_secs(20);

/// This replica's claim.
pub(crate) struct Lease {
    api: Api<Object>,
    identity: String,
}

/// Why a replica must stop working.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    /// Another replica holds it.
    #[error("the Lease is held by {0}")]
    Lost(String),
    /// It could not be renewed before it expired.
    #[error("the Lease could not be renewed for {} s", DEADLINE.as_secs())]
    Expired(#[source] RenewError),
    /// It may not be read or written at all.
    #[error("the Lease may not be read or written")]
    Denied(#[source] kube::Error),
}

/// Why one try to renew it failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    /// The API server's answer.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// No answer: a connection can be lost without notice.
    #[error("the API server did not answer within {} s", ANSWER.as_secs())]
    Silence(#[from] tokio::time::error::Elapsed),
}

impl Lease {
    pub(crate) fn new(client: Client, namespace: &str, identity: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), identity: identity.to_owned() }
    }

    /// Waits until this replica holds the Lease.
    ///
    /// # Errors
    /// When the API server denies access to it.
    pub(crate) async fn acquire(&self) -> Result<(), LeaseError> {
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(true) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    return Err(LeaseError::Denied(kube::Error::Api(status)));
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => tracing::warn!(%error, "the Lease cannot be read or written"),
                Ok(false) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One try; `seen` is the version of another's Lease and when it was first seen.
    async fn try_acquire(&self, seen: &mut Option<(Option<String>, Instant)>) -> kube::Result<bool> {
        let Some(mut object) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let object = Object { metadata, spec: Some(self.spec(0)) };
            return self.api.create(&PostParams::default(), &object).await.map(|_| true);
        };
        let spec = object.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty() && *holder != self.identity);
        let version = object.metadata.resource_version.clone();
        if holder.is_some() {
            let first_seen = match seen {
                Some((at, since)) if *at == version => *since,
                _ => seen.insert((version, Instant::now())).1,
            };
            if first_seen.elapsed() < DURATION {
                return Ok(false);
            }
        }
        object.spec = Some(self.spec(spec.lease_transitions.unwrap_or(0).saturating_add(1)));
        self.api.replace(NAME, &PostParams::default(), &object).await.map(|_| true)
    }

    /// Renews the Lease; returns when this replica must not work any more.
    pub(crate) async fn keep(&self) -> LeaseError {
        let (mut renewed, mut pause) = (Instant::now(), RENEWAL);
        loop {
            tokio::time::sleep(pause).await;
            let tried = Instant::now();
            match self.renew().await {
                Ok(None) => (renewed, pause) = (tried, RENEWAL),
                Ok(Some(holder)) => return LeaseError::Lost(holder),
                Err(error) if renewed.elapsed() >= DEADLINE => return LeaseError::Expired(error),
                Err(error) => {
                    tracing::warn!(%error, "the Lease is not renewed");
                    pause = RETRY;
                }
            }
        }
    }

    /// The other holder, if there is one.
    async fn renew(&self) -> Result<Option<String>, RenewError> {
        tokio::time::timeout(ANSWER, self.write_renewal()).await?.map_err(RenewError::Api)
    }

    async fn write_renewal(&self) -> kube::Result<Option<String>> {
        let mut object = self.api.get(NAME).await?;
        let spec = object.spec.get_or_insert_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.identity {
            return Ok(Some(holder));
        }
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.api.replace(NAME, &PostParams::default(), &object).await.map(|_| None)
    }

    /// Gives the Lease up, so that another replica takes it at once.
    ///
    /// # Errors
    /// The API server's; the Lease then expires by itself.
    pub(crate) async fn release(&self) -> kube::Result<()> {
        let mut object = self.api.get(NAME).await?;
        let spec = object.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() == Some(&self.identity) {
            spec.holder_identity = Some(String::new());
            self.api.replace(NAME, &PostParams::default(), &object).await?;
        }
        Ok(())
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}
