//! Addresses that are looked for on the link before they are offered (RFC 2131 §2.2, RFC 5227).
//!
//! *Flow.* [`Probes::start`] keeps a client's DISCOVER; when the wait is over, [`Probes::due`] hands the message
//! back, to be answered; a host that uses the address meanwhile ends the wait by [`Probes::claimed`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::arp::Claim;
use crate::Frame;

/// Most addresses at once: what bounds the memory. Beyond them addresses are offered unasked, for a flood must not keep clients
/// from theirs.
pub(crate) const MOST_PROBES: usize = 1024;
/// How often each is asked for: the loss of one frame hides no host.
const TIMES: u32 = 2;

#[derive(Debug)]
pub(crate) struct Probe {
    /// The client, which may use the address itself.
    mac: [u8; 6],
    discover: Frame,
    due: Duration,
    left: u32,
}

/// What is to be done about an address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// To be asked for once more.
    Again(Ipv4Addr),
    /// No host has answered: the client's message can be.
    Unused(Ipv4Addr, Frame),
}

/// The addresses that are looked for.
#[derive(Debug)]
pub(crate) struct Probes {
    wait: Duration,
    by_address: BTreeMap<Ipv4Addr, Probe>,
    by_due: BTreeSet<(Duration, Ipv4Addr)>,
}

impl Probes {
    /// Each address is looked for as long as `wait`; zero looks for none.
    pub(crate) fn new(wait: Duration) -> Self {
        Self { wait, by_address: BTreeMap::new(), by_due: BTreeSet::new() }
    }

    /// Whether the address is looked for already, and the answer to its client has to wait: what a client repeats replaces what it
    /// sent before.
    pub(crate) fn repeat(&mut self, address: Ipv4Addr, mac: [u8; 6], discover: &[u8]) -> bool {
        let Some(probe) = self.by_address.get_mut(&address) else { return false };
        (probe.mac, probe.discover) = (mac, discover.to_vec());
        true
    }

    /// Begins to look for an address; `false` when it is to be offered unasked. That is so, too, when it is looked for already: then
    /// clients ask so fast that one takes another's offer, and none would get to its end.
    pub(crate) fn start(&mut self, now: Duration, address: Ipv4Addr, mac: [u8; 6], discover: &[u8]) -> bool {
        if self.stop(address).is_some() || self.wait.is_zero() || self.by_address.len() >= MOST_PROBES {
            return false;
        }
        let probe = Probe { mac, discover: discover.to_vec(), due: now + self.wait / TIMES, left: TIMES - 1 };
        self.insert(address, probe);
        true
    }

    /// When [`Probes::due`] has something to do.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// The next thing to do at `now`, if there is one.
    pub(crate) fn due(&mut self, now: Duration) -> Option<Due> {
        let address = self.by_due.first().filter(|(due, _)| *due <= now)?.1;
        let mut probe = self.stop(address)?;
        if probe.left == 0 {
            return Some(Due::Unused(address, probe.discover));
        }
        (probe.left, probe.due) = (probe.left - 1, now + self.wait / TIMES);
        self.insert(address, probe);
        Some(Due::Again(address))
    }

    /// The message of the client that was to get an address which another host uses.
    pub(crate) fn claimed(&mut self, claim: Claim) -> Option<Frame> {
        let is_another = self.by_address.get(&claim.address).is_some_and(|probe| probe.mac != claim.mac);
        if is_another { self.stop(claim.address).map(|probe| probe.discover) } else { None }
    }

    /// Looks for it no more.
    pub(crate) fn stop(&mut self, address: Ipv4Addr) -> Option<Probe> {
        let probe = self.by_address.remove(&address)?;
        self.by_due.remove(&(probe.due, address));
        Some(probe)
    }

    fn insert(&mut self, address: Ipv4Addr, probe: Probe) {
        self.by_due.insert((probe.due, address));
        self.by_address.insert(address, probe);
    }
}
