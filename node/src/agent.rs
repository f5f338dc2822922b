//! The agent's parts put together.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::client::ClientBuilder;
use kube::{Api, Client, Config};
use node_protocol::names;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tower::timeout::TimeoutLayer;

use crate::args::{HostArgs, RunArgs};
use crate::cni::{self, Chain};
use crate::devices::{self, Device, Found};
use crate::explain::{self, Explainer};
use crate::health::{self, FollowedVersion};
use crate::launchers::{self, Launchers, Reports};
use crate::node_object;
use crate::plugin::{self, Access};
use crate::processor::Processor;
use crate::{api, files, probes};

/// How often the plugin's file and its place in the chain are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often the Node object is compared.
const COMPARE: Duration = Duration::from_secs(300);
const COLLECT: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(5);
/// How long the API server may take to say whether this is an uninstallation.
const FAREWELL: Duration = Duration::from_secs(10);
/// The longest wait for the head of the API server's answer; the API server itself gives up after 60 s.
const LONGEST_ANSWER: Duration = Duration::from_secs(70);
/// How long a launcher may be known whose pod is gone: kubelet's folders are looked at every second.
const LAST_LAUNCHER: Duration = Duration::from_secs(5);
const RUNTIMES: [&str; 2] = ["/run/containerd/containerd.sock", "/run/crio/crio.sock"];

/// Why the agent ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AgentError {
    /// The system's.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// Of the API server or the way to it.
    #[error("Kubernetes")]
    Kubernetes(#[from] kube::Error),
    /// The chain could not be undone.
    #[error(transparent)]
    Chain(#[from] cni::ChainError),
}

impl AgentError {
    /// An error of the system while `what` was done.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Tries the devices and writes what was found.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn prepare(file: &Path, launcher: &Path) -> Result<(), AgentError> {
    let found = devices::examine(launcher);
    for Found { device, problem } in &found {
        match problem {
            None => tracing::info!(device = device.path(), "usable"),
            Some(problem) => tracing::warn!(device = device.path(), problem, "not offered"),
        }
    }
    let text = serde_json::to_vec(&found).map_err(|error| AgentError::system("write what was found")(error.into()))?;
    files::replace(file, &text, 0o644).map(drop).map_err(AgentError::system("write what was found"))
}

/// Serves the node until SIGTERM.
///
/// # Errors
/// What keeps it from starting.
pub(crate) async fn run(args: RunArgs) -> Result<(), AgentError> {
    let mut terminated = signal(SignalKind::terminate()).map_err(AgentError::system("wait for SIGTERM"))?;
    let config = Config::infer().await.map_err(kube::Error::InferConfig)?;
    // A connection can be lost without notice.
    let client = ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(LONGEST_ANSWER)).build();
    let reports = Arc::new(Reports::new(&args.node_name));
    let served = tokio::select! {
        served = serve(&args, client.clone(), Arc::clone(&reports)) => served,
        _ = terminated.recv() => Ok(()),
    };
    if served.is_ok() && is_uninstalled(client).await {
        put_back(&args.host, &reports, LAST_LAUNCHER).await?;
    }
    served
}

/// Undoes what the agent changed, unless VMs are left after `patience`: their DEL needs the plugin.
async fn put_back(host: &HostArgs, reports: &Reports, patience: Duration) -> Result<(), AgentError> {
    let mut changes = reports.changes();
    let ended = changes.wait_for(|_| reports.running() == 0);
    if tokio::time::timeout(patience, ended).await.is_err() {
        let launchers = reports.running();
        tracing::warn!(launchers, "the agent is being uninstalled while VMs run here: the CNI plugin stays for them");
        return Ok(());
    }
    tracing::info!("the agent is being uninstalled: the host is put back");
    undo(host)
}

/// Undoes what the agent changed on the host. Every step is tried; the first failure is returned.
///
/// # Errors
/// The first step that failed.
pub(crate) fn undo(host: &HostArgs) -> Result<(), AgentError> {
    let unchained = chain(host, false).undo();
    let removed = cni::remove(&host.cni_bin_dir).map_err(AgentError::system("remove the CNI plugin"));
    let cdi = devices::remove_cdi(&host.cdi_dir).map_err(AgentError::system("remove the CDI specification"));
    unchained?;
    removed.and(cdi)
}

/// Whether the agent's DaemonSet is gone, or with it the right to read it. An upgrade leaves both.
async fn is_uninstalled(client: Client) -> bool {
    let sets: Api<DaemonSet> = Api::namespaced(client, names::NAMESPACE);
    match tokio::time::timeout(FAREWELL, sets.get(names::AGENT)).await {
        Ok(Ok(set)) => set.metadata.deletion_timestamp.is_some(),
        Ok(Err(kube::Error::Api(status))) => [401, 403, 404].contains(&status.code),
        // An API server that cannot be reached says nothing.
        Ok(Err(_)) | Err(_) => false,
    }
}

fn chain(host: &HostArgs, has_drop_ins: bool) -> Chain {
    Chain { folder: host.cni_conf_dir.clone(), mode: host.chain, has_drop_ins }
}

async fn serve(args: &RunArgs, client: Client, reports: Arc<Reports>) -> Result<(), AgentError> {
    let nodes: Api<Node> = Api::all(client);
    let is_ready = Arc::new(AtomicBool::new(false));
    tokio::spawn(probes::serve(listen(names::PROBE_PORT).await?, Arc::clone(&is_ready)));
    let pods = args.kubelet_root.join("pods");
    let explainer =
        Explainer { runtime: runtime_socket(args), socket: explain::SOCKET.into(), node: args.node_name.clone() };
    let launchers = Arc::new(Launchers::new(pods.clone()));
    let followed = FollowedVersion::default();
    let health = listen_on(&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], names::HEALTH_PORT).await?;
    tokio::spawn(health::serve(health, args.certificates.clone(), Arc::clone(&followed)));
    let api = api::Api { reports: Arc::clone(&reports), launchers, explainer, followed };
    tokio::spawn(api::serve(listen(names::PORT).await?, args.certificates.clone(), api));
    tokio::spawn(launchers::follow(pods, reports));
    let runtime = runtime_of(&nodes, &args.node_name).await;
    offer_devices(args, &runtime)?;
    let (network, networks) = watch::channel(String::new());
    tokio::spawn(collect_garbage(args.clone(), networks));
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let labels = node_object::labels(&Processor::parse(&cpuinfo));
    tokio::spawn(keep_published(nodes, args.node_name.clone(), labels, Arc::clone(&is_ready)));
    let chain = chain(&args.host, node_object::has_drop_ins(&runtime));
    keep_installed(args, &chain, &network, &is_ready).await;
    Ok(())
}

/// On all of the pod's addresses; a pod without IPv6 has those of IPv4 alone.
async fn listen(port: u16) -> Result<TcpListener, AgentError> {
    listen_on(&[Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()], port).await
}

/// On the first of these addresses that can be listened on.
async fn listen_on(addresses: &[IpAddr], port: u16) -> Result<TcpListener, AgentError> {
    let addresses: Vec<_> = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
    TcpListener::bind(&addresses[..]).await.map_err(AgentError::system("listen"))
}

/// The runtime's name and version, as kubelet says; asked for until there is an answer.
async fn runtime_of(nodes: &Api<Node>, name: &str) -> String {
    loop {
        match nodes.get(name).await {
            Ok(node) => {
                let info = node.status.and_then(|status| status.node_info);
                return info.map(|info| info.container_runtime_version).unwrap_or_default();
            }
            Err(error) => tracing::warn!(%error, "the Node object cannot be read, retrying"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn offer_devices(args: &RunArgs, runtime: &str) -> Result<(), AgentError> {
    let found = std::fs::read(&args.found).map_err(AgentError::system("read what `prepare` found"))?;
    let found: Vec<Found> = serde_json::from_slice(&found)
        .map_err(|error| AgentError::system("read what `prepare` found")(error.into()))?;
    let usable: Vec<Device> =
        found.into_iter().filter(|found| found.problem.is_none()).map(|found| found.device).collect();
    let access = args.devices.unwrap_or_else(|| access_of(runtime));
    if access == Access::Cdi {
        devices::write_cdi(&args.host.cdi_dir, &usable).map_err(AgentError::system("write the CDI specification"))?;
    }
    let folder = args.kubelet_root.join("device-plugins");
    for device in usable {
        let folder = folder.clone();
        tokio::spawn(async move {
            while let Err(error) = plugin::offer(device, access, folder.clone()).await {
                tracing::warn!(resource = device.resource(), %error, "the device cannot be offered, retrying");
                tokio::time::sleep(RETRY).await;
            }
        });
    }
    Ok(())
}

/// containerd reads CDI by default from 2.0 on, CRI-O always.
fn access_of(runtime: &str) -> Access {
    match runtime.split_once("://") {
        Some(("containerd", version)) if version.trim_start_matches('v').starts_with("1.") => Access::Spec,
        _ => Access::Cdi,
    }
}

/// Looks at the plugin's file and its place in the chain, and mends them; says whether both are as they should be.
async fn keep_installed(args: &RunArgs, chain: &Chain, network: &watch::Sender<String>, is_ready: &AtomicBool) {
    let mut complained = String::new();
    loop {
        let installed =
            cni::install(&args.plugins, &args.host.cni_bin_dir).map_err(|error| format!("CNI plugin: {error}"));
        let done = installed.and_then(|is_new| {
            let chained = chain.ensure().map_err(|error| error.to_string())?;
            if is_new || chained.is_changed {
                tracing::info!(mode = ?chained.mode, network = chained.network, is_new, "the CNI plugin is installed and chained");
            }
            Ok(chained.network)
        });
        is_ready.store(done.is_ok(), Ordering::Release);
        match done {
            Ok(name) => {
                complained.clear();
                network.send_if_modified(|known| std::mem::replace(known, name.clone()) != name);
            }
            Err(problem) if problem != complained => {
                tracing::warn!(problem, "the CNI plugin is not in place, retrying");
                complained = problem;
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Keeps the Node object as it should be: labelled while the agent is ready, and not while it is not.
async fn keep_published(nodes: Api<Node>, name: String, labels: BTreeMap<String, String>, is_ready: Arc<AtomicBool>) {
    let mut published = None;
    let mut waited = Duration::ZERO;
    loop {
        let ready = is_ready.load(Ordering::Acquire);
        // An agent that starts may find the labels of the one before it: they stay until it knows better.
        let is_due = published != Some(ready) && (ready || published.is_some()) || waited >= COMPARE;
        if is_due {
            let wanted = if ready { labels.clone() } else { BTreeMap::new() };
            match node_object::publish(&nodes, &name, &wanted).await {
                Ok(()) => (published, waited) = (Some(ready), Duration::ZERO),
                Err(error) => tracing::warn!(%error, "the Node object cannot be changed, retrying"),
            }
        }
        tokio::time::sleep(LOOK).await;
        waited += LOOK;
    }
}

/// The runtime's socket.
fn runtime_socket(args: &RunArgs) -> Option<PathBuf> {
    args.cri_socket.clone().or_else(|| RUNTIMES.iter().map(PathBuf::from).find(|path| path.exists()))
}

async fn collect_garbage(args: RunArgs, mut networks: watch::Receiver<String>) {
    loop {
        let Ok(network) = networks.wait_for(|network| !network.is_empty()).await.map(|network| network.clone()) else {
            return;
        };
        match runtime_socket(&args) {
            None => tracing::warn!("no socket of a container runtime: no garbage is collected"),
            Some(socket) => match cni::collect(socket, &args.host.cni_bin_dir, &network).await {
                Ok(living) => tracing::info!(network, living, "CNI garbage collection"),
                Err(problem) => tracing::warn!(network, problem, "CNI garbage collection failed"),
            },
        }
        tokio::time::sleep(COLLECT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with the plugin in its place, below a folder.
    fn installed(root: &Path) -> HostArgs {
        let at = |name: &str| root.join(name);
        for folder in ["net.d", "bin", "cdi"] {
            std::fs::create_dir(at(folder)).unwrap();
        }
        let list = r#"{"name":"pods","cniVersion":"1.0.0","plugins":[{"type":"ptp"}]}"#;
        std::fs::write(at("net.d/10.conflist"), list).unwrap();
        std::fs::create_dir(at("plugins")).unwrap();
        for file in ["tapvisor-cni", "tapvisor-bridge"] {
            std::fs::write(at("plugins").join(file), "elf").unwrap();
        }
        let host = HostArgs {
            cni_conf_dir: at("net.d"),
            cni_bin_dir: at("bin"),
            cdi_dir: at("cdi"),
            chain: crate::cni::Mode::Auto,
        };
        cni::install(&at("plugins"), &at("bin")).unwrap();
        devices::write_cdi(&at("cdi"), &[Device::Tun]).unwrap();
        chain(&host, true).ensure().unwrap();
        host
    }

    // spec: NODE-4
    #[test]
    fn an_uninstallation_puts_all_back_even_when_a_step_fails() {
        let root = tempfile::tempdir().unwrap();
        let (at, host) = (|name: &str| root.path().join(name), installed(root.path()));
        let missing = HostArgs { cni_conf_dir: at("absent"), ..host.clone() };
        assert!(undo(&missing).is_err());
        assert_eq!(std::fs::read_dir(at("bin")).unwrap().count() + std::fs::read_dir(at("cdi")).unwrap().count(), 0);
        undo(&host).unwrap();
        assert_eq!(std::fs::read_dir(at("net.d")).unwrap().count(), 1);
    }

    // spec: OPS-6
    #[tokio::test]
    async fn an_agent_that_ends_leaves_the_plugin_to_vms_that_need_its_del() {
        let root = tempfile::tempdir().unwrap();
        let (host, reports) = (installed(root.path()), Reports::new("node1"));
        let count = |name: &str| std::fs::read_dir(root.path().join(name)).unwrap().count();
        let before = (count("bin"), count("net.d"));
        let pod = "5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f".parse().unwrap();
        let running = protocol::control::Status::new(protocol::control::State::Running);
        reports.update(&pod, |report| report.status = Some(running));
        put_back(&host, &reports, Duration::from_millis(10)).await.unwrap();
        assert_eq!((count("bin"), count("net.d")), before);
        let outcome = protocol::outcome::Outcome::failed("killed".to_owned());
        reports.update(&pod, |report| report.outcome = Some(outcome));
        put_back(&host, &reports, Duration::from_secs(60)).await.unwrap();
        assert_eq!((count("bin"), count("net.d")), (0, 1));
    }

    #[test]
    fn containers_get_devices_by_cdi_where_the_runtime_reads_it() {
        assert_eq!(access_of("containerd://1.7.27"), Access::Spec);
        assert_eq!(access_of("containerd://2.3.7"), Access::Cdi);
        assert_eq!(access_of("cri-o://1.33.0"), Access::Cdi);
    }
}
