//! What undoes a step: derived from what was before and what is now, in both namespaces.

use super::{PairFacts, Step};
use crate::facts::{AddrGenMode, Address, AddressScope, RouteProtocol};
use crate::op::{LinkChange, Master, Op};
use terms::IfName;

impl Step {
    /// The steps that undo what this one changed, in the order of their execution.
    #[must_use]
    #[cold]
    pub fn inverse(&self, before: &PairFacts, now: &PairFacts) -> Vec<Self> {
        match &self.op {
            Op::MoveLink { link, name } => self.undo_move(link, name, before, now),
            op => {
                let undo = op.inverse(before.at(self.at), now.at(self.at));
                undo.map(|op| Self { at: self.at, op }).into_iter().collect()
            }
        }
    }

    /// Back under its old name, with what it lost on the way: master, state, addresses, routes.
    fn undo_move(&self, link: &IfName, name: &IfName, before: &PairFacts, now: &PairFacts) -> Vec<Self> {
        let (here, away) = (self.at, self.at.other());
        let was = before.at(here);
        let Some(old) = was.link(link) else { return Vec::new() };
        let is_away = now.at(away).link(name).is_some() && before.at(away).link(name).is_none();
        if !is_away {
            return Vec::new();
        }
        let set = LinkChange {
            master: old.master.clone().map(Master::Link),
            up: old.up.then_some(true),
            ..LinkChange::default()
        };
        let settings = (!set.is_empty()).then(|| Op::SetLink { link: link.clone(), set });
        // The kernel's own come back by themselves: link-local addresses with the link, routes with the addresses.
        let is_made = old.addr_gen_mode.is_some_and(|mode| mode != AddrGenMode::None);
        let is_own = |held: &&Address| is_made && held.address.is_ipv6() && held.scope == AddressScope::Link;
        let addresses = was.addresses_of(link).filter(|held| !is_own(held)).cloned().map(Op::AddAddress);
        let routes = was.routes_of(link).filter(|route| route.protocol != RouteProtocol::Kernel).cloned();
        let lost = settings.into_iter().chain(addresses).chain(routes.map(Op::ReplaceRoute));
        let back = Self { at: away, op: Op::MoveLink { link: name.clone(), name: link.clone() } };
        std::iter::once(back).chain(lost.map(|op| Self { at: here, op })).collect()
    }
}
