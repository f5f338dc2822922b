//! The wiring that a request needs in one namespace: taps, settings and tables.

use std::collections::BTreeMap;

use hostnet::Facts;
use hostnet::nft::Table;
use hostnet::sysctl::Sysctl;
use wiring::{Binding, Digest, Family, MTU_KEY, Owner, Request};

use super::addresses::Choice;
use super::mark::{OFF, mac_key, multicast_key};
use super::refusal::Refusal;
use super::taps::{Nic, Tap};
use super::{bridge, masquerade, rules};

/// All that must be there, in the order of the request's interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) digest: Digest,
    pub(crate) owner: Owner,
    /// The link group of all our taps: one message deletes them.
    pub(crate) group: u32,
    pub(crate) nics: Vec<Nic>,
    /// Settings, in the order in which they are written.
    pub(crate) sysctls: Vec<(Sysctl, &'static str)>,
    pub(crate) tables: Vec<Table>,
}

impl Desired {
    /// The wiring of `request` in a namespace with these `facts`; `group` is the link group of this attachment.
    pub(crate) fn of(request: &Request, group: u32, facts: &Facts) -> Result<Self, Refusal> {
        let mut desired = Self {
            digest: request.digest(),
            owner: request.owner(),
            group,
            nics: Vec::new(),
            sysctls: Vec::new(),
            tables: Vec::new(),
        };
        let (mut masqueraded, mut bridged) = (Vec::new(), Vec::new());
        for interface in request.interfaces() {
            match interface.binding {
                Binding::Masquerade => {
                    let (nic, shape) = masquerade::of(interface, facts)?;
                    desired.nics.push(nic);
                    masqueraded.push(shape);
                }
                Binding::Bridge => {
                    let (nic, shape) = bridge::of(interface, facts)?;
                    desired.nics.push(nic);
                    bridged.push(shape);
                }
                // The device itself goes to the guest; one with a user-space driver cannot even be seen from here.
                Binding::Sriov => {}
            }
        }
        desired.sysctls = masquerade::sysctls(&masqueraded, facts);
        desired.tables = rules::tables(&masqueraded, &bridged);
        Ok(desired)
    }

    /// All taps: a NIC's own, then its service tap.
    pub(crate) fn taps(&self) -> impl Iterator<Item = &Tap> {
        self.nics.iter().flat_map(Nic::taps)
    }

    /// What the mark of each NIC's tap records: earlier values of what is about to change (those of the namespace
    /// are in the first mark), the MTU, because the pod interface's may be changed later, and the guest's address of a
    /// family where there is a choice.
    pub(crate) fn notes(&self, choices: &[Choice], facts: &Facts) -> Vec<BTreeMap<String, String>> {
        let mut pairs: Vec<BTreeMap<_, _>> = self.nics.iter().map(|nic| notes(nic, facts)).collect();
        for choice in choices {
            let index = self.nics.iter().position(|nic| nic.pod_interface == choice.pod_interface);
            if let Some(pairs) = index.and_then(|index| pairs.get_mut(index)) {
                let key = wiring::address_key(Family::of(choice.address));
                pairs.insert(key.to_owned(), choice.address.to_string());
            }
        }
        for (key, wanted) in &self.sysctls {
            // A setting of a link of our own goes with the link; so nothing of it is among the facts.
            if let (Some(old), Some(first)) = (facts.sysctl(key), pairs.first_mut())
                && old != *wanted
            {
                first.insert(key.path().to_owned(), old.to_owned());
            }
        }
        pairs
    }
}

/// Refuses a wiring that is still to be made where its subnets are taken or its MTU does not fit. Only ADD asks: what later
/// plugins and people change after it breaks no wiring.
pub(crate) fn refuse_impossible(request: &Request, desired: &Desired, facts: &Facts) -> Result<(), Refusal> {
    let wired = request.interfaces().iter().filter(|interface| interface.binding != Binding::Sriov);
    wired.zip(&desired.nics).try_for_each(|(interface, nic)| match interface.binding {
        Binding::Masquerade => masquerade::refuse_impossible(interface, nic, facts),
        Binding::Bridge => bridge::refuse_impossible(interface, nic, facts),
        Binding::Sriov => Ok(()),
    })
}

fn notes(nic: &Nic, facts: &Facts) -> BTreeMap<String, String> {
    let old = facts.link(&nic.pod_interface).and_then(|link| link.mac);
    let change = nic.change(facts);
    let mac = change.mac.and(old).map(|old| (mac_key(&nic.pod_interface), old.to_string()));
    let multicast = change.all_multicast.map(|_| (multicast_key(&nic.pod_interface), OFF.to_owned()));
    // One by one: to collect would sort first, with code of its own.
    let mut notes = BTreeMap::new();
    for (key, value) in mac.into_iter().chain(multicast).chain([(MTU_KEY.to_owned(), nic.tap.mtu.to_string())]) {
        notes.insert(key, value);
    }
    notes
}
