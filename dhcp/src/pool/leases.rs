//! The addresses of one network: who has which, and which is given out next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::config::Subnet;
use super::record::{ClientId, LeaseState, Record};

/// What became of an address, offers included, which no record keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Offered,
    Recorded(LeaseState),
}

#[derive(Debug, Clone)]
struct Binding {
    client: ClientId,
    mac: [u8; 6],
    hostname: String,
    state: State,
    /// When another client may have the address.
    until: Duration,
    /// As in [`Record`].
    granted: Option<Duration>,
}

/// A client that asks for an address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) client: &'a ClientId,
    pub(crate) mac: [u8; 6],
    pub(crate) hostname: &'a str,
    /// The address reserved for it.
    pub(crate) reserved: Option<Ipv4Addr>,
}

/// The leases of one network.
#[derive(Debug)]
pub(crate) struct Leases {
    subnet: Subnet,
    reserved: BTreeSet<Ipv4Addr>,
    by_address: BTreeMap<Ipv4Addr, Binding>,
    by_client: BTreeMap<ClientId, Ipv4Addr>,
    /// Addresses of the pools that were used, the one that has been free for longest first.
    by_until: BTreeSet<(Duration, Ipv4Addr)>,
    /// Those of them that are only offered.
    offers: BTreeSet<(Duration, Ipv4Addr)>,
    /// Where the addresses begin that were never used: a pool and the next number in it.
    fresh: (usize, u32),
    /// Addresses before it that were only offered, and not used since.
    returned: BTreeSet<Ipv4Addr>,
}

impl Leases {
    pub(crate) fn new(subnet: Subnet) -> Self {
        let reserved = subnet.reservations.iter().map(|reservation| reservation.address).collect();
        let fresh = (0, subnet.pools.first().map_or(0, |range| range.first.into()));
        let (by_address, by_client, by_until, offers, returned) = Default::default();
        Self { subnet, reserved, by_address, by_client, by_until, offers, fresh, returned }
    }

    pub(crate) fn subnet(&self) -> &Subnet {
        &self.subnet
    }

    /// Bindings that are recorded, in the order of their addresses.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> {
        self.by_address.iter().filter_map(|(address, binding)| {
            let State::Recorded(state) = binding.state else { return None };
            let (client, hostname) = (binding.client.clone(), binding.hostname.clone());
            let Binding { mac, until, granted, .. } = *binding;
            Some(Record { address: *address, client, mac, state, until, granted, hostname })
        })
    }

    /// How many addresses are known of.
    pub(crate) fn count(&self) -> usize {
        self.by_address.len()
    }

    /// How many addresses are leased at `now`.
    pub(crate) fn leased(&self, now: Duration) -> usize {
        let is_leased = |b: &&Binding| b.state == State::Recorded(LeaseState::Leased) && b.until > now;
        self.by_address.values().filter(is_leased).count()
    }

    /// Takes back what was recorded.
    pub(crate) fn restore(&mut self, record: Record) {
        let asker = Asker { client: &record.client, mac: record.mac, hostname: &record.hostname, reserved: None };
        self.bind(record.address, asker, State::Recorded(record.state), (record.until, record.granted));
    }

    /// The address for a client that has none yet or asks again; `None` when there is none for it.
    pub(crate) fn choose(&mut self, now: Duration, asker: Asker<'_>, wanted: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let known = self.by_client.get(asker.client).copied();
        let preferred = [asker.reserved, known, wanted].into_iter().flatten();
        preferred.into_iter().find(|address| self.may_have(now, asker, *address)).or_else(|| self.unused(now))
    }

    /// Whether the address is the client's or could become it.
    pub(crate) fn may_have(&self, now: Duration, asker: Asker<'_>, address: Ipv4Addr) -> bool {
        let is_for_it = asker.reserved == Some(address) || self.is_dynamic(address);
        is_for_it
            && self.by_address.get(&address).is_none_or(|binding| {
                let is_declined = binding.state == State::Recorded(LeaseState::Declined);
                binding.until <= now || (binding.client == *asker.client && !is_declined)
            })
    }

    /// Whether the client holds the address, by a lease or an offer.
    pub(crate) fn is_of(&self, now: Duration, client: &ClientId, address: Ipv4Addr) -> bool {
        let is_held = |state| matches!(state, State::Offered | State::Recorded(LeaseState::Leased));
        let holds = |binding: &Binding| binding.client == *client && binding.until > now && is_held(binding.state);
        self.by_address.get(&address).is_some_and(holds)
    }

    /// An address of the pools that no client has: one never used, else the one that has been free for longest, else the one that
    /// was offered first and not requested since. So offers alone never exhaust a pool.
    fn unused(&mut self, now: Duration) -> Option<Ipv4Addr> {
        if let Some(address) = self.never_used() {
            return Some(address);
        }
        let oldest = self.by_until.first().filter(|(until, _)| *until <= now);
        oldest.or_else(|| self.offers.first()).map(|(_, address)| *address)
    }

    fn never_used(&mut self) -> Option<Ipv4Addr> {
        if let Some(address) = self.returned.first() {
            return Some(*address);
        }
        while let Some(range) = self.subnet.pools.get(self.fresh.0) {
            let address = Ipv4Addr::from(self.fresh.1);
            if !range.contains(address) {
                self.fresh.0 += 1;
                self.fresh.1 = self.subnet.pools.get(self.fresh.0).map_or(0, |range| range.first.into());
                continue;
            }
            if !self.by_address.contains_key(&address) && !self.reserved.contains(&address) {
                return Some(address);
            }
            self.fresh.1 = self.fresh.1.saturating_add(1);
        }
        None
    }

    fn is_dynamic(&self, address: Ipv4Addr) -> bool {
        self.subnet.is_in_pool(address) && !self.reserved.contains(&address)
    }

    /// Offers the address. A lease that goes on is left as it is.
    pub(crate) fn offer(&mut self, now: Duration, asker: Asker<'_>, address: Ipv4Addr, until: Duration) {
        let is_lease = |b: &Binding| b.client == *asker.client && b.state == State::Recorded(LeaseState::Leased);
        if !self.by_address.get(&address).is_some_and(|binding| is_lease(binding) && binding.until > now) {
            self.bind(address, asker, State::Offered, (until, None));
        }
    }

    /// Leases the address for so long from now and returns what is to be recorded.
    pub(crate) fn lease(&mut self, now: Duration, asker: Asker<'_>, address: Ipv4Addr, granted: Duration) -> Record {
        self.change(now, asker, address, (LeaseState::Leased, granted))
    }

    /// Takes an offer back, because its client chose another server; returns its address.
    pub(crate) fn withdraw(&mut self, client: &ClientId) -> Option<Ipv4Addr> {
        let offered = self.by_client.get(client).copied().filter(|address| self.is_offered(*address))?;
        self.free(offered);
        Some(offered)
    }

    /// Ends the client's own lease of the address, which another client may have after so long from now; `None` when it has none.
    pub(crate) fn end(
        &mut self,
        now: Duration,
        client: &ClientId,
        address: Ipv4Addr,
        end: (LeaseState, Duration),
    ) -> Option<Record> {
        let binding = self.by_address.get(&address).filter(|binding| binding.client == *client)?.clone();
        let asker = Asker { client, mac: binding.mac, hostname: &binding.hostname, reserved: None };
        let record = self.change(now, asker, address, end);
        if record.state == LeaseState::Declined {
            self.by_client.remove(client);
        }
        Some(record)
    }

    fn change(
        &mut self,
        now: Duration,
        asker: Asker<'_>,
        address: Ipv4Addr,
        (state, granted): (LeaseState, Duration),
    ) -> Record {
        let (until, granted) = (now + granted, Some(granted));
        self.bind(address, asker, State::Recorded(state), (until, granted));
        let (client, hostname) = (asker.client.clone(), asker.hostname.to_owned());
        Record { address, client, mac: asker.mac, state, until, granted, hostname }
    }

    fn is_offered(&self, address: Ipv4Addr) -> bool {
        self.by_address.get(&address).is_some_and(|binding| binding.state == State::Offered)
    }

    fn bind(
        &mut self,
        address: Ipv4Addr,
        asker: Asker<'_>,
        state: State,
        (until, granted): (Duration, Option<Duration>),
    ) {
        self.remove(address);
        // Another address that the client was only offered is free again; one that it leased stays its until the end.
        if let Some(other) = self.by_client.get(asker.client).copied().filter(|other| self.is_offered(*other)) {
            self.free(other);
        }
        self.returned.remove(&address);
        if self.is_dynamic(address) {
            self.by_until.insert((until, address));
            if state == State::Offered {
                self.offers.insert((until, address));
            }
        }
        let (client, hostname) = (asker.client.clone(), asker.hostname.to_owned());
        self.by_client.insert(client.clone(), address);
        self.by_address.insert(address, Binding { client, mac: asker.mac, hostname, state, until, granted });
    }

    fn remove(&mut self, address: Ipv4Addr) {
        let Some(binding) = self.by_address.remove(&address) else { return };
        self.by_until.remove(&(binding.until, address));
        self.offers.remove(&(binding.until, address));
        if self.by_client.get(&binding.client) == Some(&address) {
            self.by_client.remove(&binding.client);
        }
    }

    /// Makes an address that was only offered one that was never used.
    fn free(&mut self, address: Ipv4Addr) {
        self.remove(address);
        if self.is_dynamic(address) {
            self.returned.insert(address);
        }
    }
}
