//! `tapvisor-controller`: runs kubevirt.io/v1 objects of a cluster as launcher pods.
//!
//! Flow: every replica answers health checks and metrics. The replica that holds the Lease watches KubeVirt objects
//! (configuration), VirtualMachineInstances and launcher pods; each change of an instance or its pod leads to one pass of
//! [`vmi::reconcile`].
//! Guarantees: a replica that loses its Lease ends its process before another may take it.

mod admission;
mod certificates;
mod config;
mod http;
mod installation;
mod lease;
mod metrics;
mod objects;
mod tls;
mod vmi;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use config::ClusterConfig;
use http::Server;
use lease::Lease;
use metrics::Metrics;
use objects::VirtualMachineInstance;
use tls::ServerCertificate;
use vmi::names::LAUNCHER_LABEL;
use vmi::reconcile::{Context, on_error, reconcile};
use vmi::sandbox;

/// Name under which this program writes.
const MANAGER: &str = "tapvisor-controller";

/// Runs kubevirt.io/v1 objects as launcher pods.
#[derive(Debug, Parser)]
#[command(name = "tapvisor-controller", version)]
struct Options {
    /// Image of the launcher's container
    #[arg(long, value_name = "IMAGE")]
    launcher_image: String,
    /// Namespace of the Lease that replicas compete for
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", default_value = "tapvisor")]
    namespace: String,
    /// This replica's name in the Lease
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "tapvisor-controller")]
    identity: String,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8080")]
    health_address: SocketAddr,
    /// Address of the admission webhook
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443")]
    webhook_address: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(log_filter()).with_ansi(false).with_writer(std::io::stderr).init();
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(reason = protocol::chain::chain(&*error), "ended");
            ExitCode::FAILURE
        }
    }
}

fn log_filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,kube_runtime=error".into())
}

async fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::try_default().await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = Arc::new(Metrics::default());
    let (certificate, follow_certificate) =
        ServerCertificate::follow(client.clone(), options.namespace.clone(), certificates::WEBHOOK);
    let config = ClusterConfig::new(options.launcher_image.clone());
    let server = Arc::new(Server { metrics: Arc::clone(&metrics), certificate, config });
    let health = http::serve_health(options.health_address, Arc::clone(&server)).await?;
    let admission = http::serve_admission(options.webhook_address, server).await?;
    let lease = Lease::new(client.clone(), &options.namespace, &options.identity);
    let work = async {
        lease.acquire().await?;
        tracing::info!(identity = options.identity, "leading");
        metrics.leading(true);
        tokio::select! {
            lost = lease.keep() => Err(lost.into()),
            () = control(client.clone(), options.launcher_image, Arc::clone(&metrics)) => Err("the watches ended".into()),
            () = certificates::maintain(client, options.namespace.clone()) => Err("certificates are kept for ever".into()),
        }
    };
    let serve = async { tokio::join!(health, admission, follow_certificate) };
    let result = tokio::select! {
        ended = work => ended,
        _ = serve => Err("the servers ended".into()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // The next replica need not wait for the Lease to expire.
    if result.is_ok() {
        lease.release().await?;
    }
    result
}

async fn control(client: Client, launcher_image: String, metrics: Arc<Metrics>) {
    let (publish, config) = watch::channel(ClusterConfig::new(launcher_image));
    let label = format!("{}={}", LAUNCHER_LABEL.0, LAUNCHER_LABEL.1);
    let (pods, writer) = reflector::store();
    let launcher_pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default().labels(&label));
    let launcher_pods = reflector(writer, launcher_pods).default_backoff().touched_objects();
    let (sandbox_events, writer) = reflector::store();
    let events = watcher(Api::<Event>::all(client.clone()), sandbox::config());
    let events = reflector(writer, events).default_backoff().applied_objects();
    let context = Arc::new(Context { client: client.clone(), pods: pods.clone(), sandbox_events, config });
    installation::adopt(client.clone(), publish.clone()).await;
    let changed = tokio_watch(publish.subscribe());
    let instances = Controller::new(Api::<VirtualMachineInstance>::all(client.clone()), watcher::Config::default())
        .owns_stream(launcher_pods)
        .watches_stream(events, move |event: Event| instance_of(&event, &pods))
        .reconcile_all_on(changed)
        .run(reconcile, on_error, context)
        .for_each(|result| {
            metrics.passed(result.is_ok());
            async move {
                if let Err(error) = result {
                    tracing::debug!(%error, "a pass over an instance failed");
                }
            }
        });
    tokio::join!(instances, installation::run(client, publish));
}

/// A signal for each change of the configuration.
fn tokio_watch(config: watch::Receiver<ClusterConfig>) -> impl futures_util::Stream<Item = ()> + Send + Sync + 'static {
    futures_util::stream::unfold(config, |mut config| async move {
        config.changed().await.ok()?;
        Some(((), config))
    })
}

/// The instance whose pod an event is about.
fn instance_of(event: &Event, pods: &Store<Pod>) -> Option<ObjectRef<VirtualMachineInstance>> {
    let about = &event.involved_object;
    let key = ObjectRef::new(about.name.as_deref()?).within(about.namespace.as_deref()?);
    let pod = pods.get(&key)?;
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    Some(ObjectRef::new(&owner.name).within(about.namespace.as_deref()?))
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
