//! The namespace as it is against the wiring as it was asked for: pure, from facts. Nothing is attached before this.

use hostnet::Facts;
use hostnet::facts::{Link, LinkKind, Tun, TunMode};
use machine::{Machine, Nic};
use terms::{IfName, MacAddr, Mtu};
use wiring::{Binding, Family, Interface, Mark, NicKey, Owner, Request};

use super::place::{Place, VerifyError};
use super::{Resolvers, default_route, guest};

/// A NIC whose wiring is as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WiredNic {
    /// Its name in the manifest.
    pub(crate) name: String,
    /// The VM tap, whose frames are the guest's.
    pub(crate) tap: IfName,
    /// Whether the tap takes several descriptors.
    pub(crate) queues: u16,
    /// Where the guest's questions arrive, and what it is answered; `None` on a network without addresses.
    pub(crate) service: Option<WiredService>,
    /// Ethernet address of the guest's NIC.
    pub(crate) mac: MacAddr,
    /// The guest's: at most the tap's.
    pub(crate) mtu: Mtu,
    /// What of its network the guest is not told, in words.
    pub(crate) not_told: Vec<String>,
}

/// A service tap and what is said on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WiredService {
    pub(crate) tap: IfName,
    pub(crate) answers: dhcp::Config,
}

/// Compares what `facts` hold with what `request` asked for, NIC by NIC in the machine's order; `me` is who will attach.
///
/// # Errors
/// The first thing that is missing or different, by device, with what was expected and found.
pub(crate) fn verify(
    machine: &Machine,
    request: &Request,
    facts: &Facts,
    me: Owner,
    resolvers: &Resolvers,
) -> Result<Vec<WiredNic>, VerifyError> {
    let interfaces = plugged_in(machine, request)?;
    let nics = machine.nics.iter().zip(&interfaces).enumerate();
    let wired = |(index, (nic, interface)): (usize, (&Nic, &&Interface))| {
        let flaw = |flaw: String| VerifyError::Machine { index, nic: nic.name.clone(), flaw };
        let key = NicKey::of(&interface.pod_interface).map_err(|error| flaw(error.to_string()))?;
        let tap = match interface.binding {
            Binding::Masquerade => key.masquerade_tap(),
            Binding::Bridge => key.bridge_tap(),
            Binding::Sriov => return Err(flaw("binding sriov: there is no wiring to verify".to_owned())),
        };
        let at = Place { index, machine, request, interfaces: &interfaces, interface, nic, facts, me };
        at.verify(&tap, &key)
    };
    let mut wired = nics.map(wired).collect::<Result<Vec<_>, _>>()?;
    name_servers(machine, &interfaces, facts, resolvers, &mut wired);
    Ok(wired)
}

/// The pod's name servers go to the NIC with the default route, where none has one to the first with DHCP: by another NIC they
/// may not be reachable, and a guest that asks servers of two networks mixes their answers. The other NICs have those that
/// their own network's result names.
fn name_servers(
    machine: &Machine,
    interfaces: &[&Interface],
    facts: &Facts,
    resolvers: &Resolvers,
    wired: &mut [WiredNic],
) {
    let has_default = |index: usize| {
        [Family::V4, Family::V6].iter().any(|family| default_route::is_told(interfaces, index, facts, *family))
    };
    let served: Vec<_> =
        (0..wired.len()).filter(|index| wired.get(*index).is_some_and(|n| n.service.is_some())).collect();
    let mut chosen: Vec<_> = served.iter().copied().filter(|index| has_default(*index)).collect();
    if chosen.is_empty() {
        chosen.extend(served.first());
    }
    for (index, nic) in wired.iter_mut().enumerate() {
        let Some(service) = &mut nic.service else { continue };
        let (resolv, subdomain) = match chosen.contains(&index) {
            true => (Some(&resolvers.of_pod), machine.subdomain.as_deref()),
            false => (resolvers.of_nics.get(&nic.name), None),
        };
        let Some(resolv) = resolv else { continue };
        let (search, left_out) = resolv.search_with(subdomain, &machine.namespace);
        (service.answers.search, service.answers.dns) = (search, resolv.servers.clone());
        nic.not_told.extend(resolv.not_told.iter().cloned().chain(left_out));
    }
}

/// Where each NIC of the machine is plugged in.
fn plugged_in<'a>(machine: &Machine, request: &'a Request) -> Result<Vec<&'a Interface>, VerifyError> {
    let interface = |(index, nic): (usize, &Nic)| {
        let found = request.interfaces().iter().find(|interface| interface.name == nic.name);
        let flaw = "the wiring has no interface of this name".to_owned();
        found.ok_or_else(|| VerifyError::Machine { index, nic: nic.name.clone(), flaw })
    };
    machine.nics.iter().enumerate().map(interface).collect()
}

impl Place<'_> {
    fn verify(&self, tap: &IfName, key: &NicKey) -> Result<WiredNic, VerifyError> {
        let pod = self.link(&self.interface.pod_interface)?;
        let vm = self.link(tap)?;
        let is_multi_queue = self.interface.queues.value() > 1;
        // First: what another request asked for looks like a fault of each device.
        self.check_mark(vm)?;
        self.check_tap(vm, Some(is_multi_queue))?;
        let expected_mtu = self.interface.mtu.map_or(pod.mtu_bytes, |mtu| mtu.value());
        self.equal(tap, "MTU", &expected_mtu, &vm.mtu_bytes)?;
        let mtu = Mtu::try_from(u64::from(vm.mtu_bytes)).map_err(|error| self.not_wired(error.to_string()))?;
        let mac = self.mac(pod)?;
        let guest::Answers { config, mtu, not_told } = guest::answers(self, pod, vm, mac, mtu)?;
        let service = match config {
            None => None,
            Some(mut answers) => {
                answers.mtu = Some(mtu);
                let service = self.link(&key.service_tap())?;
                self.check_tap(service, None)?;
                Some(WiredService { tap: service.name.clone(), answers })
            }
        };
        let queues = self.interface.queues.value();
        Ok(WiredNic { name: self.nic.name.clone(), tap: tap.clone(), queues, service, mac, mtu, not_told })
    }

    fn link(&self, name: &IfName) -> Result<&Link, VerifyError> {
        let found = self.facts.links.iter().find(|link| link.name == *name);
        found.ok_or_else(|| self.not_wired(format!("{name} is not in the namespace")))
    }

    /// A tap of ours; `multi_queue` is not compared when `None`. A vnet header is whatever the last descriptor asked for.
    fn check_tap(&self, link: &Link, multi_queue: Option<bool>) -> Result<(), VerifyError> {
        let tun = match &link.kind {
            LinkKind::Tun(tun @ Tun { mode: TunMode::Tap, .. }) => tun,
            other => return Err(self.differs(&link.name, "kind", "tap".to_owned(), format!("{other:?}"))),
        };
        let id = |id: Option<u32>| id.map_or("unset".to_owned(), |id| id.to_string());
        self.equal(&link.name, "owner", &self.me.uid.to_string(), &id(tun.owner))?;
        self.equal(&link.name, "group", &self.me.gid.to_string(), &id(tun.group))?;
        if let Some(multi_queue) = multi_queue {
            self.equal(&link.name, "multi_queue", &multi_queue, &tun.multi_queue)?;
        }
        self.equal(&link.name, "persistence", &true, &tun.persist)?;
        self.equal(&link.name, "administrative state", &"up", &if link.up { "up" } else { "down" })
    }

    fn check_mark(&self, vm: &Link) -> Result<(), VerifyError> {
        let Some(alias) = vm.alias.as_deref() else {
            return Err(self.not_wired(format!("{} carries no commit mark: its wiring was not finished", vm.name)));
        };
        let mark: Mark = alias.parse().map_err(|error| self.not_wired(format!("{}: {error}", vm.name)))?;
        if mark.generation() != wiring::GENERATION {
            let (found, ours) = (mark.generation(), wiring::GENERATION);
            return Err(self.not_wired(format!(
                "{} was wired by another release of the plugin: generation {found}, this launcher knows {ours}",
                vm.name
            )));
        }
        if mark.digest() == self.request.digest() {
            return Ok(());
        }
        Err(VerifyError::AnotherRequest {
            nic: self.nic.name.clone(),
            device: vm.name.clone(),
            expected: self.request.digest().to_string(),
            found: mark.digest().to_string(),
        })
    }

    /// Behind a masquerade the guest has an address of its own, on a bridged NIC the pod interface's.
    fn mac(&self, pod: &Link) -> Result<MacAddr, VerifyError> {
        let requested = self.interface.mac;
        if self.interface.binding == Binding::Masquerade {
            let missing = "mac: a masquerade NIC needs one".to_owned();
            let flaw = || VerifyError::Machine { index: self.index, nic: self.nic.name.clone(), flaw: missing };
            return requested.ok_or_else(flaw);
        }
        let Some(found) = pod.mac else {
            return Err(self.not_wired(format!("{} has no Ethernet address, a bridge binding needs one", pod.name)));
        };
        match requested {
            Some(requested) => self.equal(&pod.name, "MAC address", &requested, &found).map(|()| found),
            None => Ok(found),
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
