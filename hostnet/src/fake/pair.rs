//! Two fake namespaces, between which links move.

use super::{Fake, links, refused};
use crate::facts::{Ask, Facts, Link, LinkKind};
use crate::kernel::{Failure, Kernel as _, KernelError};
use crate::op::{LinkChange, NewLink, NewLinkKind, Op};
use crate::pair::{Both, KernelPair, PairFacts, Place, Step};
use terms::IfName;

/// The number by which each fake namespace knows the other.
const OTHER: i32 = 0;

/// Two namespaces whose state is plain facts.
#[derive(Debug, Clone, Default)]
pub struct FakePair {
    kernels: Both<Fake>,
    steps: usize,
    fault: Option<usize>,
}

impl FakePair {
    /// Namespaces in which all this is so.
    #[must_use]
    pub fn new(facts: PairFacts) -> Self {
        let kernels = Both { host: Fake::new(facts.host), pod: Fake::new(facts.pod) };
        Self { kernels, steps: 0, fault: None }
    }

    /// The same, in which the step after `steps` successful ones fails once, with EIO.
    #[must_use]
    pub fn failing_after(mut self, steps: usize) -> Self {
        self.fault = Some(steps);
        self
    }

    /// Everything as it is now.
    #[must_use]
    pub fn facts(&self) -> PairFacts {
        Both { host: self.kernels.host.facts().clone(), pod: self.kernels.pod.facts().clone() }
    }

    /// How many steps succeeded.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    fn step(&mut self, step: &Step) -> Result<(), KernelError> {
        if self.fault == Some(self.steps) {
            self.fault = None;
            return Err(refused(libc::EIO));
        }
        // All or nothing, like the kernel's own steps.
        let mut facts = self.facts();
        match &step.op {
            Op::CreateLink(NewLink { name, kind: NewLinkKind::VethAcross { peer, set }, set: own }) => {
                let ends = [(step.at, name), (step.at.other(), peer)];
                for (place, name) in ends {
                    links::add(facts.at_mut(place), name, LinkKind::Veth)?;
                }
                connect(&mut facts, ends)?;
                let set = LinkChange { mac: set.mac, mtu: set.mtu, ..LinkChange::default() };
                links::change(facts.at_mut(step.at.other()), peer, &set)?;
                links::change(facts.at_mut(step.at), name, own)?;
            }
            Op::MoveLink { link, name } => move_link(&mut facts, step.at, link, name)?,
            Op::DeleteLink { link } => {
                let peer = far_end(&facts, step.at, link);
                links::delete(facts.at_mut(step.at), link)?;
                if let Some(peer) = peer {
                    links::delete(facts.at_mut(step.at.other()), &peer)?;
                }
            }
            op => {
                let kernel = self.kernels.at_mut(step.at);
                kernel.execute(std::slice::from_ref(op)).map_err(|failure| failure.error)?;
                self.steps += 1;
                return Ok(());
            }
        }
        let Both { host, pod } = facts;
        self.kernels = Both { host: Fake::new(host), pod: Fake::new(pod) };
        self.steps += 1;
        Ok(())
    }
}

/// Tells each end of a cable where the other is.
fn connect(facts: &mut PairFacts, ends: [(Place, &IfName); 2]) -> Result<(), KernelError> {
    let [one, two] = ends;
    for ((place, name), (other, peer)) in [(one, two), (two, one)] {
        let index = links::find(facts.at_mut(other), peer)?.index;
        let link = links::find(facts.at_mut(place), name)?;
        (link.peer_index, link.peer_netns) = (Some(index), (place != other).then_some(OTHER));
    }
    Ok(())
}

/// The other end of a cable, if it is in the other namespace.
fn far_end(facts: &PairFacts, at: Place, name: &IfName) -> Option<IfName> {
    let link = facts.at(at).link(name)?;
    let index = link.peer_index.filter(|_| link.kind == LinkKind::Veth && link.peer_netns == Some(OTHER))?;
    facts.at(at.other()).link_at(index).map(|peer| peer.name.clone())
}

fn move_link(facts: &mut PairFacts, at: Place, name: &IfName, new: &IfName) -> Result<(), KernelError> {
    if facts.at(at.other()).link(new).is_some() {
        return Err(refused(libc::EEXIST));
    }
    let link: Link = links::find(facts.at_mut(at), name)?.clone();
    if link.kind == LinkKind::Bridge || link.kind == LinkKind::Loopback {
        // NETIF_F_NETNS_LOCAL.
        return Err(refused(libc::EINVAL));
    }
    let near_end = link.peer_index.filter(|_| link.kind == LinkKind::Veth && link.peer_netns.is_none());
    let near_end = near_end.and_then(|index| facts.at(at).link_at(index)).map(|peer| peer.name.clone());
    let far_end = far_end(facts, at, name);
    take(facts.at_mut(at), name);
    let index = links::add(facts.at_mut(at.other()), new, link.kind.clone())?;
    let moved = links::find(facts.at_mut(at.other()), new)?;
    *moved = Link { index, name: new.clone(), up: false, master: None, port: None, ..link };
    if let Some(peer) = near_end {
        connect(facts, [(at.other(), new), (at, &peer)])?;
    }
    if let Some(peer) = far_end {
        connect(facts, [(at.other(), new), (at.other(), &peer)])?;
    }
    Ok(())
}

/// Removes a link and what hangs on it, but not the other end of its cable.
fn take(facts: &mut Facts, name: &IfName) {
    facts.links.retain(|link| link.name != *name);
    facts.addresses.retain(|address| address.link != *name);
    facts.routes.retain(|route| route.link.as_ref() != Some(name));
    facts.neighbours.retain(|neighbour| neighbour.link != *name);
    facts.vlans.retain(|vlans| vlans.link != *name);
    facts.sysctls.retain(|key, _| key.link().as_ref() != Some(name));
}

impl KernelPair for FakePair {
    fn gather(&mut self, ask: &Both<Ask>) -> Result<PairFacts, KernelError> {
        Ok(Both { host: self.kernels.host.gather(&ask.host)?, pod: self.kernels.pod.gather(&ask.pod)? })
    }

    fn execute(&mut self, steps: &[Step]) -> Result<(), Failure> {
        steps.iter().enumerate().try_for_each(|(index, step)| {
            self.step(step).map_err(|error| Failure { index, what: step.to_string(), error })
        })
    }
}
