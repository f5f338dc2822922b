//! One port of one Service in one IP family, and the names of what serves it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use hostnet::nft::{
    Chain, Element, Field, IpVersion, NatTarget, Rule, Set, Statement, UpdateSet, Value, ValueKind, Verdict, VerdictMap,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use terms::Protocol;
use wiring::Family;

/// Most clients one backend remembers for session affinity.
const AFFINITY_CLIENTS: u32 = 65_536;

/// Where a port of a Service is reached, and the VMs behind it; all addresses are of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Frontend {
    /// `namespace/service/port` as people read it; unique together with the family.
    pub name: String,
    /// The family of all its addresses.
    pub family: Family,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The Service's own addresses: cluster, external and load-balancer ones.
    pub addresses: BTreeSet<IpAddr>,
    /// The port at those addresses.
    pub port: u16,
    /// The port at every address of the host.
    pub node_port: Option<u16>,
    /// How long a client stays with its backend, if it does.
    pub affinity_seconds: Option<u32>,
    /// Ready VMs, in a stable order.
    pub backends: BTreeSet<SocketAddr>,
}

impl Frontend {
    /// The chain that picks a backend. Its name changes with what it does, so that an update adds and removes whole chains.
    #[must_use]
    pub fn chain_name(&self) -> String {
        let backends: Vec<_> = self.backends.iter().map(ToString::to_string).collect();
        let text = format!("{} {:?} {} {:?}", self.name, self.family, backends.join(" "), self.affinity_seconds);
        format!("service-{}", short_hash(&text))
    }

    /// The chains and sets that serve it, by name.
    #[must_use]
    pub fn parts(&self) -> Parts {
        let mut parts = Parts::default();
        let pick = match self.affinity_seconds {
            Some(seconds) => self.sticky(seconds, &mut parts),
            None => self.spread(&mut parts),
        };
        parts.chains.insert(pick.name.clone(), pick);
        parts
    }

    /// The elements that lead to it: whom to look up in the address map, and whom among the host's ports.
    #[must_use]
    pub fn entries(&self) -> Entries {
        let verdict = (!self.backends.is_empty()).then(|| Verdict::Goto(self.chain_name()));
        let at_address = self
            .addresses
            .iter()
            .map(|address| element([Value::from(*address), self.protocol.into(), self.port.into()], verdict.clone()));
        let at_node = self.node_port.map(|port| element([Value::from(self.protocol), port.into()], verdict.clone()));
        Entries { refused: verdict.is_none(), addresses: at_address.collect(), node_port: at_node }
    }

    /// Any backend, each as likely as the others.
    fn spread(&self, parts: &mut Parts) -> Chain {
        let chain = Chain::regular(&self.chain_name());
        let rule = Rule::named(self.name.clone()).counter();
        if let [only] = Vec::from_iter(&self.backends)[..] {
            return chain.rule(rule.is(Field::L4proto, self.protocol).dnat_to(only.ip(), only.port()));
        }
        let map = format!("backends-{}", chain.name.trim_start_matches("service-"));
        let backends = self
            .backends
            .iter()
            .zip(0u32..)
            .map(|(backend, index)| Element::of([index]).to([Value::from(backend.ip()), backend.port().into()]));
        let data = [self.address_kind(), ValueKind::Port];
        parts
            .sets
            .insert(map.clone(), Set { elements: backends.collect(), ..Set::map(&map, [ValueKind::Number], data) });
        let to = NatTarget::Map { fields: vec![self.lot()], map, with_port: true };
        chain.rule(rule.is(Field::L4proto, self.protocol).with(self.dnat(to)))
    }

    /// The backend that the client had before, else any, remembered.
    fn sticky(&self, seconds: u32, parts: &mut Parts) -> Chain {
        let mut chain = Chain::regular(&self.chain_name());
        let source = if self.family == Family::V4 { Field::IpSaddr } else { Field::Ip6Saddr };
        let mut lots = Vec::new();
        for (backend, lot) in self.backends.iter().zip(0u32..) {
            let hash = short_hash(&format!("{} {backend}", self.name));
            let (clients, to) = (format!("clients-{hash}"), format!("backend-{hash}"));
            let known = Rule::named(format!("{}: known clients of {backend}", self.name));
            chain = chain.rule(known.in_set([source], &clients).goto(&to));
            lots.push((vec![Value::from(lot)], Verdict::Goto(to.clone())));
            parts
                .sets
                .insert(clients.clone(), Set::new(&clients, [self.address_kind()]).dynamic(seconds, AFFINITY_CLIENTS));
            let remember = UpdateSet { set: clients, fields: vec![source], refresh: true, timeout_seconds: None };
            let rule = Rule::named(format!("{}: {backend}", self.name)).counter().with(Statement::UpdateSet(remember));
            let rule = rule.is(Field::L4proto, self.protocol).dnat_to(backend.ip(), backend.port());
            parts.chains.insert(to.clone(), Chain::regular(&to).rule(rule));
        }
        let draw = Statement::VerdictMap { fields: vec![self.lot()], map: VerdictMap::Inline(lots) };
        chain.rule(Rule::named(format!("{}: new clients", self.name)).counter().with(draw))
    }

    fn lot(&self) -> Field {
        // A set of SocketAddr cannot hold more backends than 32 bits count; an empty one has no chain.
        Field::Random { modulus: u32::try_from(self.backends.len()).unwrap_or(u32::MAX).max(1) }
    }

    fn dnat(&self, to: NatTarget) -> Statement {
        let version = match self.family {
            Family::V4 => IpVersion::V4,
            Family::V6 => IpVersion::V6,
        };
        Statement::Dnat { version, to }
    }

    fn address_kind(&self) -> ValueKind {
        match self.family {
            Family::V4 => ValueKind::Ipv4,
            Family::V6 => ValueKind::Ipv6,
        }
    }
}

/// Chains and sets of one or many frontends, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Chains that the lookups jump to, by name.
    pub chains: BTreeMap<String, Chain>,
    /// Maps of backends and sets of remembered clients.
    pub sets: BTreeMap<String, Set>,
}

/// The elements that lead to one frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    /// It has no backends: the elements go to the refusing sets and have no verdict.
    pub refused: bool,
    /// Elements of address, protocol and port.
    pub addresses: Vec<Element>,
    /// Element of protocol and node port; `None` without one.
    pub node_port: Option<Element>,
}

fn element<const N: usize>(key: [Value; N], verdict: Option<Verdict>) -> Element {
    let element = Element::of(key);
    match verdict {
        Some(verdict) => element.verdict(verdict),
        None => element,
    }
}

/// 16 hexadecimal digits that stand for a text.
fn short_hash(text: &str) -> String {
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
