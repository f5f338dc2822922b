//! Puts the server together: configuration, sockets, database, then the services.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhcp::pool::{Server, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Clock;
use crate::conf::{self, Conf, ConfError};
use crate::confine::{ConfineError, confine};
use crate::dhcpv4::Service;
use crate::files::Root;
use crate::interface::{Interface, InterfaceError};
use crate::lease_log::{LeaseLog, LeaseLogError};
use crate::packets::{Packets, PacketsError};
use crate::{http, tftp};

const TFTP_PORT: u16 = 69;
/// Seconds for which an address is not given out after a client reported that another host uses it.
const DECLINE_SECONDS: u32 = 3600;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Conf(#[from] ConfError),
    #[error("{path}")]
    Contradiction { path: PathBuf, source: dhcp::ConfigError },
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error(transparent)]
    Packets(#[from] PacketsError),
    #[error(transparent)]
    LeaseLog(#[from] LeaseLogError),
    #[error("{field}: cannot open the folder {path}")]
    Root { field: &'static str, path: PathBuf, source: nix::Error },
    #[error("cannot listen on {what} {address}")]
    Listen { what: &'static str, address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Confine(#[from] ConfineError),
    #[error("cannot start")]
    Start(#[source] std::io::Error),
}

/// Serves until SIGTERM or SIGINT, and if `ends_with_input` until standard input ends.
///
/// # Errors
/// When the configuration is refused, or what it needs is not there.
pub(crate) fn serve(path: &Path, ends_with_input: bool) -> Result<(), ServeError> {
    let conf = conf::read(path)?;
    let interface = Interface::find(&conf.interface, conf.address)?;
    let service = open_dhcp(path, &conf, &interface)?;
    let files = Files::open(&conf, interface.address.into())?;
    let folders = [conf.tftp.as_deref(), conf.http.as_ref().map(|(root, _)| root.as_path())];
    let read: Vec<&Path> = folders.into_iter().flatten().collect();
    if !confine(&read, &conf.leases)? {
        tracing::warn!(
            "this kernel does not have all of Landlock: the server could read other files if it were taken over"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(ServeError::Start)?;
    std::thread::Builder::new().name("dhcpv4".to_owned()).spawn(|| service.run()).map_err(ServeError::Start)?;
    tracing::info!(interface = %interface.name, address = %interface.address, "ready");
    runtime.block_on(until_end(files, ends_with_input)).map_err(ServeError::Start)
}

fn open_dhcp(path: &Path, conf: &Conf, interface: &Interface) -> Result<Service, ServeError> {
    let config = ServerConfig {
        mac: interface.mac,
        address: interface.address,
        subnets: conf.subnets.clone(),
        boot: conf.boot.clone(),
        decline_seconds: DECLINE_SECONDS,
    };
    let contradiction = |source| ServeError::Contradiction { path: path.to_owned(), source };
    let mut engine = Server::new(config).map_err(contradiction)?;
    let packets = Packets::open(interface)?;
    let (log, recovered) = LeaseLog::open(&conf.leases)?;
    if let Some((kept, lines)) = &recovered.damaged {
        tracing::error!(
            kept = %kept.display(), damaged_lines = lines, leases = recovered.records.len(),
            "the lease database is damaged: the old file is kept, all whole leases are taken over"
        );
    }
    let clock = Clock::start();
    let count = recovered.records.len();
    let others = engine.restore(clock.now(), recovered.records);
    tracing::info!(leases = count - others.len(), of_other_networks = others.len(), "the lease database is read");
    Ok(Service { engine, packets, log, clock, others })
}

/// The sockets of TFTP and HTTP with their folders.
struct Files {
    address: IpAddr,
    tftp: Option<(std::net::UdpSocket, Arc<Root>)>,
    http: Option<(std::net::TcpListener, Arc<Root>)>,
}

impl Files {
    fn open(conf: &Conf, address: IpAddr) -> Result<Self, ServeError> {
        let root = |field, path: &Path| match Root::open(path) {
            Ok(root) => Ok(Arc::new(root)),
            Err((path, source)) => Err(ServeError::Root { field, path, source }),
        };
        let tftp = conf.tftp.as_ref().map(|path| {
            let at = SocketAddr::new(address, TFTP_PORT);
            let failed = |source| ServeError::Listen { what: "UDP", address: at, source };
            let socket = std::net::UdpSocket::bind(at).map_err(failed)?;
            socket.set_nonblocking(true).map_err(failed)?;
            Ok::<_, ServeError>((socket, root("tftp.root", path)?))
        });
        let http = conf.http.as_ref().map(|(path, port)| {
            let at = SocketAddr::new(address, *port);
            let failed = |source| ServeError::Listen { what: "TCP", address: at, source };
            let listener = std::net::TcpListener::bind(at).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            Ok::<_, ServeError>((listener, root("http.root", path)?))
        });
        Ok(Self { address, tftp: tftp.transpose()?, http: http.transpose()? })
    }
}

async fn until_end(files: Files, ends_with_input: bool) -> std::io::Result<()> {
    let input = Arc::new(tokio::sync::Notify::new());
    let ended = Arc::clone(&input);
    if ends_with_input {
        let read = move || {
            // An error is an end as well.
            drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
            ended.notify_one();
        };
        std::thread::Builder::new().name("input".to_owned()).spawn(read)?;
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    if let Some((socket, root)) = files.tftp {
        tokio::spawn(tftp::serve(tokio::net::UdpSocket::from_std(socket)?, files.address, root));
    }
    if let Some((listener, root)) = files.http {
        tokio::spawn(http::serve(tokio::net::TcpListener::from_std(listener)?, root));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = input.notified() => {}
    }
    tracing::info!("ended");
    Ok(())
}
