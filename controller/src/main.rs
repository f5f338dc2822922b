//! `tapvisor-controller`: runs kubevirt.io/v1 objects of a cluster as launcher pods.
//!
//! Flow: every replica answers health checks and metrics. The replica that holds the Lease watches KubeVirt objects
//! (configuration), VirtualMachineInstances and launcher pods; each change of an instance or its pod leads to one pass of
//! [`vmi::reconcile`].
//! Guarantees: a replica that loses its Lease ends its process before another may take it.

mod admission;
mod agents;
mod api_server;
mod cache;
mod certificates;
mod conditions;
mod config;
mod events;
mod eviction;
mod http;
mod installation;
mod lease;
mod manifest;
mod metrics;
mod migration;
mod monitor;
mod objects;
mod replicaset;
mod review;
mod subresources;
mod template;
mod tls;
mod uninstall;
mod vm;
mod vmi;
mod writer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, Config};
use node_protocol::PodUid;
use rustls::ClientConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use agents::{AgentList, Agents, LauncherClient, Reports};
use config::ClusterConfig;
use http::Server;
use installation::Published;
use lease::Lease;
use metrics::Metrics;
use monitor::{Monitor, Sources};
use objects::VirtualMachineInstance;
use subresources::Subresources;
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
    /// The same with a shell and tools, for clusters whose KubeVirt object has the annotation tapvisor.io/launcher-tools: "true"
    #[arg(long, value_name = "IMAGE")]
    launcher_tools_image: Option<String>,
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
    /// Address of the subresource API
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8444")]
    api_address: SocketAddr,
}

impl Options {
    /// The configuration without a KubeVirt object.
    fn config(&self) -> ClusterConfig {
        let launcher_tools_image = self.launcher_tools_image.clone();
        ClusterConfig { launcher_tools_image, ..ClusterConfig::new(self.launcher_image.clone()) }
    }
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
    let client = api_server::client(Config::infer().await?, api_server::LONGEST_ANSWER)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = Arc::new(Metrics::default());
    let monitor = Arc::new(Monitor::new(Arc::clone(&metrics)));
    let (certificate, follow_certificate) =
        ServerCertificate::follow(client.clone(), options.namespace.clone(), certificates::WEBHOOK);
    let (api_certificate, follow_api_certificate) =
        ServerCertificate::follow(client.clone(), options.namespace.clone(), certificates::SUBRESOURCES);
    let (publish_tls, tls) = watch::channel(None);
    let follow_client = certificates::follow_client(client.clone(), options.namespace.clone(), publish_tls);
    let api = Subresources {
        client: client.clone(),
        namespace: options.namespace.clone(),
        certificate: api_certificate,
        agents: tls.clone(),
    };
    let api = subresources::serve(options.api_address, api).await?;
    let config = options.config();
    let server = Arc::new(Server { monitor: Arc::clone(&monitor), certificate, client: client.clone(), config });
    let health = http::serve_health(options.health_address, Arc::clone(&server)).await?;
    let admission = http::serve_admission(options.webhook_address, server).await?;
    let lease = Lease::new(client.clone(), &options.namespace, &options.identity);
    let work = async {
        loop {
            lease.acquire().await?;
            tracing::info!(identity = options.identity, "leading");
            metrics.leading(true);
            let lost = tokio::select! {
                lost = lease.keep() => lost,
                () = control(client.clone(), &options, tls.clone(), Arc::clone(&metrics), &monitor) => {
                    return Err("the watches ended".into());
                }
            };
            // Every pass ends here. Admission and the subresource API are served by any replica, also by this one.
            metrics.leading(false);
            monitor.forget().await;
            tracing::warn!(reason = protocol::chain::chain(&lost), "leading no more");
        }
    };
    let serve =
        async { tokio::join!(health, admission, api, follow_certificate, follow_api_certificate, follow_client) };
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

/// What the leading replica does, for ever.
async fn control(
    client: Client,
    options: &Options,
    tls: watch::Receiver<Option<Arc<ClientConfig>>>,
    metrics: Arc<Metrics>,
    monitor: &Monitor,
) {
    installation::wait_alone(client.clone()).await;
    let namespace = &options.namespace;
    // Decides about pods alone: no client of the servers waits for this answer.
    let defaults = ClusterConfig { mounts_images: installation::mounts_images(&client).await, ..options.config() };
    let followed_from = ClusterConfig { bindings: Some(BTreeMap::new()), ..defaults.clone() };
    let (publish, config) = watch::channel(followed_from);
    let (publish_version, followed) = watch::channel(None);
    let publish = Published { config: publish, followed: publish_version };
    let (changed, launchers) = mpsc::unbounded_channel();
    let reports = Arc::new(Reports::default());
    let list = Arc::new(AgentList::new(tls.clone()));
    let (of_agents, agent_list, agent_metrics) = (Arc::clone(&reports), Arc::clone(&list), Arc::clone(&metrics));
    let of_instances = LauncherClient { client: client.clone(), namespace: namespace.clone(), tls: tls.clone() };
    let agents = Agents { reports: of_agents, changed, tls, list: agent_list, metrics: agent_metrics, followed };
    installation::adopt(client.clone(), &publish).await;
    let recorder = events::recorder(client.clone(), &options.identity);
    let sets = replicaset::reconcile::run(client.clone(), recorder.clone(), &metrics);
    let machines =
        vm::reconcile::run(client.clone(), recorder.clone(), defaults.clone(), &metrics, |instances, machines| {
            monitor.follow_caches(instances, machines);
        });
    let (pods, writer) = reflector::store();
    // One for all passes that wait for these pods.
    let filled = cache::filled(&pods);
    let (of_monitor, config_in_force) = (Arc::clone(&reports), config.clone());
    monitor.follow(Sources { pods: pods.clone(), reports: of_monitor, config: config_in_force, agents: list });
    let sources = migration::reconcile::Sources {
        pods: pods.clone(),
        filled: filled.clone(),
        reports: Arc::clone(&reports),
        config: config.clone(),
    };
    let migrations = migration::reconcile::run(client.clone(), recorder.clone(), sources, &metrics);
    let orphans = vmi::orphans::run(client.clone(), pods.clone(), filled.clone());
    let reports = (reports, launchers, of_instances);
    let instances = run_instances(client.clone(), config, reports, recorder, &metrics, (pods, writer, filled));
    tokio::join!(
        machines,
        sets,
        migrations,
        instances,
        orphans,
        installation::run(client.clone(), publish, defaults),
        uninstall::run(client.clone(), namespace),
        certificates::maintain(client.clone(), namespace),
        agents.follow(client, namespace),
    );
}

/// Runs the controller of instances, for ever.
async fn run_instances(
    client: Client,
    config: watch::Receiver<ClusterConfig>,
    (reports, reported, launchers): (Arc<Reports>, mpsc::UnboundedReceiver<PodUid>, LauncherClient),
    recorder: Recorder,
    metrics: &Metrics,
    (pods, writer, filled): (Store<Pod>, reflector::store::Writer<Pod>, cache::Filled),
) {
    let label = format!("{}={}", LAUNCHER_LABEL.0, LAUNCHER_LABEL.1);
    let launcher_pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default().labels(&label));
    let launcher_pods = reflector(writer, launcher_pods).default_backoff().touched_objects();
    let complaints = sandbox::REASONS.map(|reason| {
        let (store, writer) = reflector::store();
        let events = watcher(Api::<Event>::all(client.clone()), sandbox::config(reason));
        (store, reflector(writer, events).default_backoff().applied_objects().boxed())
    });
    let (sandbox_events, events): (Vec<_>, Vec<_>) = complaints.into_iter().unzip();
    let events = futures_util::stream::select_all(events);
    let reported = {
        let pods = pods.clone();
        stream(reported).filter_map(move |uid| std::future::ready(instance_of_pod(&uid, &pods)))
    };
    let changed = changes(config.clone());
    let context = Arc::new(Context {
        client: client.clone(),
        filled,
        pods: pods.clone(),
        sandbox_events,
        reports,
        config,
        recorder,
        launchers,
    });
    Controller::new(Api::<VirtualMachineInstance>::all(client), watcher::Config::default())
        .owns_stream(launcher_pods)
        .watches_stream(events, move |event: Event| instance_of(&event, &pods))
        .reconcile_on(reported)
        .reconcile_all_on(changed)
        .run(reconcile, on_error, context)
        .for_each(|result| {
            metrics.passed(result.is_ok());
            async move {
                if let Err(error) = result {
                    tracing::debug!(%error, "a pass over an instance failed");
                }
            }
        })
        .await;
}

fn stream<T: Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> + Send + 'static {
    futures_util::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

/// A signal for each change of the configuration.
fn changes(config: watch::Receiver<ClusterConfig>) -> impl Stream<Item = ()> + Send + 'static {
    futures_util::stream::unfold(config, |mut config| async move {
        config.changed().await.ok()?;
        Some(((), config))
    })
}

/// The instance whose pod an event is about.
fn instance_of(event: &Event, pods: &Store<Pod>) -> Option<ObjectRef<VirtualMachineInstance>> {
    let about = &event.involved_object;
    let key = ObjectRef::new(about.name.as_deref()?).within(about.namespace.as_deref()?);
    owner(&*pods.get(&key)?)
}

/// The instance of a launcher pod with a UID.
fn instance_of_pod(uid: &PodUid, pods: &Store<Pod>) -> Option<ObjectRef<VirtualMachineInstance>> {
    let pods = pods.state();
    owner(pods.iter().find(|pod| pod.metadata.uid.as_deref() == Some(uid.as_str()))?)
}

fn owner(pod: &Pod) -> Option<ObjectRef<VirtualMachineInstance>> {
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    Some(ObjectRef::new(&owner.name).within(pod.metadata.namespace.as_deref()?))
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
