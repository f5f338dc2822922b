//! Puts the server together: configuration, sockets, database, then the services.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhcp::pool::Server;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Clock;
use crate::conf::{self, Conf, ConfError};
use crate::confine::{ConfineError, confine};
use crate::control::{self, Control, Inbox, Report};
use crate::counts::Counts;
use crate::dhcpv4::{Lines, Service};
use crate::files::Root;
use crate::http::{self, files::Files, metrics::Metrics};
use crate::interface::{Interface, InterfaceError};
use crate::lease_log::{LeaseLog, LeaseLogError};
use crate::packets::{Packets, PacketsError};
use crate::reload::Reloader;
use crate::tftp;

const TFTP_PORT: u16 = 69;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Conf(#[from] ConfError),
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

/// Serves until SIGTERM or SIGINT, and if `ends_with_input` until standard input ends. SIGHUP reads the configuration again.
///
/// # Errors
/// When the configuration is refused, or what it needs is not there.
pub(crate) fn serve(path: &Path, ends_with_input: bool) -> Result<(), ServeError> {
    // Its folder stays readable, wherever the process is.
    let path = std::path::absolute(path).map_err(ServeError::Start)?;
    let conf = conf::read(&path)?;
    let interface = Interface::find(&conf.interface, conf.address)?;
    let (control, inbox) = control::pair().map_err(ServeError::Start)?;
    let service = open_dhcp(&path, &conf, &interface, inbox)?;
    let listeners = Listeners::open(&conf, interface.address.into(), &control)?;
    let folders = [path.parent(), conf.tftp.as_deref(), conf.http.as_ref().map(|(root, _)| root.as_path())];
    let read: Vec<&Path> = folders.into_iter().flatten().collect();
    confine(&read, &conf.leases)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(ServeError::Start)?;
    std::thread::Builder::new().name("dhcpv4".to_owned()).spawn(|| service.run()).map_err(ServeError::Start)?;
    let counts = Arc::clone(&listeners.counts);
    let reloader = Reloader { path, interface, control, counts, running: conf };
    runtime.block_on(until_end(listeners, reloader, ends_with_input)).map_err(ServeError::Start)
}

fn open_dhcp(path: &Path, conf: &Conf, interface: &Interface, inbox: Inbox) -> Result<Service, ServeError> {
    let contradiction = |source| ConfError::Contradiction { path: path.to_owned(), source };
    let mut engine = Server::new(conf.engine(interface)).map_err(contradiction)?;
    let packets = Packets::open(interface, conf.proxy)?;
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
    let (report, lines) = (Report::default(), Lines::default());
    Ok(Service { engine, packets, log, clock, others, inbox, report, lines })
}

/// The sockets of TFTP and HTTP with what is served there.
struct Listeners {
    counts: Arc<Counts>,
    tftp: Option<(std::net::UdpSocket, tftp::Files)>,
    http: Option<(TcpListener, Files)>,
    metrics: Option<(TcpListener, Metrics)>,
}

impl Listeners {
    fn open(conf: &Conf, address: IpAddr, control: &Control) -> Result<Self, ServeError> {
        let counts = Arc::new(Counts::default());
        let root = |field, path: &Path| match Root::open(path) {
            Ok(root) => Ok(Arc::new(root)),
            Err((path, source)) => Err(ServeError::Root { field, path, source }),
        };
        let tftp = conf.tftp.as_ref().map(|path| {
            let at = SocketAddr::new(address, TFTP_PORT);
            let failed = |source| ServeError::Listen { what: "UDP", address: at, source };
            let socket = std::net::UdpSocket::bind(at).map_err(failed)?;
            socket.set_nonblocking(true).map_err(failed)?;
            let files = tftp::Files { address, root: root("tftp.root", path)?, counts: Arc::clone(&counts) };
            Ok::<_, ServeError>((socket, files))
        });
        let http = conf.http.as_ref().map(|(path, port)| {
            let listener = listen(SocketAddr::new(address, *port))?;
            Ok::<_, ServeError>((listener, Files { root: root("http.root", path)?, counts: Arc::clone(&counts) }))
        });
        let metrics = conf.metrics.map(|address| {
            let metrics = Metrics { control: control.clone(), counts: Arc::clone(&counts) };
            Ok::<_, ServeError>((listen(address)?, metrics))
        });
        let (tftp, http, metrics) = (tftp.transpose()?, http.transpose()?, metrics.transpose()?);
        Ok(Self { counts, tftp, http, metrics })
    }

    fn serve(self) -> std::io::Result<()> {
        if let Some((socket, files)) = self.tftp {
            tokio::spawn(tftp::serve(tokio::net::UdpSocket::from_std(socket)?, files));
        }
        if let Some((listener, files)) = self.http {
            tokio::spawn(http::serve(tokio::net::TcpListener::from_std(listener)?, files));
        }
        if let Some((listener, metrics)) = self.metrics {
            tokio::spawn(http::serve(tokio::net::TcpListener::from_std(listener)?, metrics));
        }
        Ok(())
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Listen { what: "TCP", address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

async fn until_end(listeners: Listeners, mut reloader: Reloader, ends_with_input: bool) -> std::io::Result<()> {
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
    let mut hangup = signal(SignalKind::hangup())?;
    listeners.serve()?;
    tracing::info!(interface = %reloader.interface.name, address = %reloader.interface.address, "ready");
    loop {
        tokio::select! {
            _ = hangup.recv() => reloader.reload().await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = input.notified() => break,
        }
    }
    tracing::info!("ended");
    Ok(())
}
