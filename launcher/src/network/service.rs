//! One NIC's service tap: a thread between the tap and the DHCP engine.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dhcp::{Config, ConfigError, Engine, Frame, Observations};
use hostnet::tap::VNET_HEADER_BYTES;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::control::{LeaseStatus, ServiceStatus};

use crate::guest_log::GuestLog;

/// Largest frame a tap hands over: header, Ethernet, 64 KiB.
const MAX_FRAME_BYTES: usize = VNET_HEADER_BYTES as usize + 14 + 65_536;

/// A guest got or kept its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Name of the NIC in the manifest.
    pub(crate) nic: String,
    pub(crate) address: IpAddr,
}

/// The answering side of one NIC.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    engine: Arc<Mutex<Engine>>,
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl Service {
    /// Checks what is to be answered.
    ///
    /// # Errors
    /// When something of it cannot be sent.
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let v4 = config.v4.as_ref().map(|v4| IpAddr::V4(v4.address.ip()));
        let v6 = config.v6.as_ref().map(|v6| IpAddr::V6(v6.address));
        Ok(Self { engine: Arc::new(Mutex::new(Engine::new(config)?)), v4, v6 })
    }

    /// Answers on `tap` until it is gone, in a thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(&self, nic: String, tap: OwnedFd, on_lease: impl Fn(Lease) + Send + 'static) -> io::Result<()> {
        let wire = Wire { service: self.clone(), tap: tap.into(), nic, epoch: epoch(), failures: GuestLog::new() };
        crate::threads::spawn("dhcp", move || wire.run(&on_lease))?;
        Ok(())
    }

    /// For `status`: addresses, and which of them the guest holds.
    pub(crate) fn status(&self) -> ServiceStatus {
        let engine = self.lock();
        let seen = engine.snapshot();
        let family = |address: &Option<IpAddr>, seen: FamilyCounts| {
            let FamilyCounts { asked, answered, is_leased: leased, grants } = seen;
            address.map(|address| LeaseStatus { address, asked, answered, leased, grants })
        };
        let (v4, v6) = (&seen.v4, &seen.v6);
        let is_leased = (v4.lease.is_some(), v6.lease.is_some());
        ServiceStatus {
            ipv4: family(
                &self.v4,
                FamilyCounts { asked: v4.received, answered: v4.answered, is_leased: is_leased.0, grants: v4.acks },
            ),
            ipv6: family(
                &self.v6,
                FamilyCounts { asked: v6.received, answered: v6.answered, is_leased: is_leased.1, grants: v6.grants },
            ),
            router_solicitations: seen.router_solicitations,
            router_advertisements: seen.router_advertisements,
            strangers_ignored: seen.ignored.not_our_client,
            clients: seen.clients.iter().map(|(mac, _)| *mac).collect(),
        }
    }

    /// What an answer had no room for, in words.
    pub(crate) fn not_told(&self) -> Vec<String> {
        left_out(&self.lock().snapshot())
    }

    fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge: the engine's clock starts with its thread")]
fn epoch() -> Instant {
    Instant::now()
}

fn left_out(seen: &Observations) -> Vec<String> {
    let counts = [("DHCPv4", seen.v4.search_left_out), ("DHCPv6", seen.v6.search_left_out)];
    let left = counts.into_iter().filter(|(_, names)| *names > 0);
    left.map(|(protocol, names)| {
        format!("the last {names} names of the search list by {protocol}: its answer has no more room")
    })
    .collect()
}

/// Counts of one address family: requests, answers, and whether the guest has a lease.
struct FamilyCounts {
    asked: u64,
    answered: u64,
    is_leased: bool,
    grants: u64,
}

/// A tap and the engine behind it.
struct Wire {
    service: Service,
    tap: File,
    nic: String,
    epoch: Instant,
    /// A guest can make every answer fail, by taking its link down.
    failures: GuestLog,
}

impl Wire {
    fn run(mut self, on_lease: &impl Fn(Lease)) {
        let mut buffer = vec![0; MAX_FRAME_BYTES];
        loop {
            match self.turn(&mut buffer, on_lease) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(nic = self.nic, %error, "the service tap is gone: the guest's leases will run out");
                    return;
                }
            }
        }
    }

    fn turn(&mut self, buffer: &mut [u8], on_lease: &impl Fn(Lease)) -> io::Result<()> {
        let has_frame = self.wait()?;
        let now = self.epoch.elapsed();
        let (frames, leases, left_out) = {
            let mut engine = self.service.lock();
            let before_all = engine.snapshot();
            let before = grants(&before_all);
            let frames = if has_frame {
                let read = self.tap.read(buffer)?;
                let frame = buffer.get(usize::from(VNET_HEADER_BYTES)..read);
                frame.map(|frame| engine.on_frame(now, frame)).unwrap_or_default()
            } else {
                engine.on_deadline(now)
            };
            let after_all = engine.snapshot();
            let after = grants(&after_all);
            let mut left_out = left_out(&after_all);
            // Said once, not with every lease.
            left_out.retain(|what| !self::left_out(&before_all).contains(what));
            let granted = [(self.service.v4, before.0 < after.0), (self.service.v6, before.1 < after.1)];
            (frames, granted.into_iter().filter(|(_, is_new)| *is_new).filter_map(|(address, _)| address), left_out)
        };
        left_out
            .iter()
            .for_each(|what| tracing::warn!(nic = self.nic, what, "the guest cannot be given a part of its network"));
        frames.iter().for_each(|frame| self.send(frame));
        leases.for_each(|address| on_lease(Lease { nic: self.nic.clone(), address }));
        Ok(())
    }

    /// Waits for a frame or the engine's deadline; says which.
    fn wait(&self) -> io::Result<bool> {
        let deadline = self.service.lock().next_deadline();
        let timeout = match deadline.map(|deadline| deadline.saturating_sub(self.epoch.elapsed())) {
            None => PollTimeout::NONE,
            // Rounded up: a wait that ends just before the deadline would be repeated with nothing to wait for.
            Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
        };
        let mut fds = [PollFd::new(self.tap.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, timeout)? > 0)
    }

    fn send(&mut self, frame: &Frame) {
        // An all-zero header asks for nothing: sums are complete, there are no segments.
        let mut bytes = vec![0; usize::from(VNET_HEADER_BYTES)];
        bytes.extend_from_slice(frame);
        // A tap writes a frame whole or not at all, and what is lost is asked for again.
        if let Err(error) = (&self.tap).write(&bytes)
            && self.failures.permits()
        {
            tracing::warn!(nic = self.nic, %error, "an answer to the guest was lost");
        }
    }
}

fn grants(seen: &Observations) -> (u64, u64) {
    (seen.v4.acks, seen.v6.grants)
}
