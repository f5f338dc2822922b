//! TFTP: a socket for requests, and one for each transfer.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dhcp::tftp::{End, ErrorCode, Refusal, Request, Step, Transfer, data};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::chunks::Chunks;
use crate::counts::Counts;
use crate::files::{Denied, Root, Served};

/// Most transfers at once.
const MOST_TRANSFERS: usize = 512;
/// Most that one client has of them.
const MOST_OF_CLIENT: usize = 16;

/// What is served, and from which address.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) address: IpAddr,
    pub(crate) root: Arc<Root>,
    pub(crate) counts: Arc<Counts>,
}

/// The clients that have a transfer, by address and port.
type Clients = Arc<Mutex<HashSet<SocketAddr>>>;

/// Serves read requests as long as the program runs.
pub(crate) async fn serve(socket: UdpSocket, files: Files) {
    let clients = Clients::default();
    let mut packet = [0; 1500];
    loop {
        match socket.recv_from(&mut packet).await {
            Ok((length, client)) => {
                let packet = packet.get(..length).unwrap_or_default();
                on_request(&socket, &files, &clients, (packet, client)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "TFTP: cannot receive");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn on_request(socket: &UdpSocket, files: &Files, clients: &Clients, (packet, client): (&[u8], SocketAddr)) {
    let refuse = async |refusal: Refusal, file: &str| {
        files.counts.add(|counts| counts.tftp_refused += 1);
        tracing::warn!(%client, file, reason = refusal.message, "TFTP: refused");
        // A client that is gone needs no answer.
        drop(socket.send_to(&refusal.packet(), client).await);
    };
    let request = match Request::parse(packet) {
        Ok(request) => request,
        Err(refusal) => return refuse(refusal, "").await,
    };
    let name = request.file.replace('\\', "/");
    let served = match files.root.file(&name) {
        Ok(served) => served,
        Err(denied) => {
            let code = if denied == Denied::Missing { ErrorCode::NotFound } else { ErrorCode::Access };
            return refuse(Refusal::new(code, format!("{name}: {denied}")), &name).await;
        }
    };
    let entry = match Entry::of(clients, client) {
        Ok(Some(entry)) => entry,
        // The client asks again, because our first answer takes long.
        Ok(None) => return,
        Err(refusal) => return refuse(refusal, &name).await,
    };
    let (address, counts) = (files.address, Arc::clone(&files.counts));
    tokio::spawn(async move {
        let done = transfer(address, client, &request, served).await;
        counts.add(|counts| match &done {
            Ok((end, bytes)) => {
                counts.tftp_bytes += bytes;
                *(if *end == End::Complete { &mut counts.tftp_sent } else { &mut counts.tftp_failed }) += 1;
            }
            Err(_) => counts.tftp_failed += 1,
        });
        match done {
            Ok((End::Complete, bytes)) => tracing::info!(%client, file = name, bytes, "TFTP: sent"),
            Ok((End::Aborted(reason), bytes)) => {
                tracing::info!(%client, file = name, bytes, reason, "TFTP: ended by the client");
            }
            Ok((End::TimedOut, bytes)) => {
                tracing::warn!(%client, file = name, bytes, "TFTP: the client does not answer")
            }
            Err(error) => tracing::warn!(%client, file = name, %error, "TFTP: failed"),
        }
        drop(entry);
    });
}

/// A client's place among the transfers, free again when it is dropped.
struct Entry(Clients, SocketAddr);

impl Entry {
    /// `None` for a client that has a transfer already at this port.
    fn of(clients: &Clients, client: SocketAddr) -> Result<Option<Self>, Refusal> {
        let mut known = clients.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&client) {
            return Ok(None);
        }
        let of_client = known.iter().filter(|other| other.ip() == client.ip()).count();
        if known.len() >= MOST_TRANSFERS || of_client >= MOST_OF_CLIENT {
            let message = format!("{} transfers at once, {of_client} of this client, are too many", known.len());
            return Err(Refusal::new(ErrorCode::Full, message));
        }
        known.insert(client);
        Ok(Some(Self(Arc::clone(clients), client)))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// Sends a file from a port of its own (RFC 1350 §4).
async fn transfer(
    address: IpAddr,
    client: SocketAddr,
    request: &Request,
    served: Served,
) -> std::io::Result<(End, u64)> {
    let socket = UdpSocket::bind((address, 0)).await?;
    socket.connect(client).await?;
    let start = Instant::now();
    let (mut transfer, mut steps) = Transfer::start(Duration::ZERO, request, served.size);
    let mut chunks = Chunks::new(served);
    let mut packet = [0; 1500];
    loop {
        send(&socket, &mut chunks, std::mem::take(&mut steps)).await?;
        if let Some(end) = transfer.end() {
            return Ok((end.clone(), transfer.acknowledged_bytes()));
        }
        steps = match timeout_at(start + transfer.deadline(), socket.recv(&mut packet)).await {
            Ok(Ok(length)) => transfer.on_packet(start.elapsed(), packet.get(..length).unwrap_or_default()),
            // The client's port is closed; it may have what it wants.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Ok((End::Aborted("its port is closed".to_owned()), transfer.acknowledged_bytes()));
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => transfer.on_deadline(start.elapsed()),
        };
    }
}

async fn send(socket: &UdpSocket, chunks: &mut Chunks, steps: Vec<Step>) -> std::io::Result<()> {
    for step in steps {
        let packet = match step {
            Step::Packet(packet) => packet,
            Step::Block { number, bytes: 0, .. } => data(number, &[]),
            Step::Block { number, offset, bytes } => {
                let most = u64::try_from(bytes).unwrap_or(u64::MAX);
                data(number, &chunks.at(offset, most).await?)
            }
        };
        socket.send(&packet).await?;
    }
    Ok(())
}
