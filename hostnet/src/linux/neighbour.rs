//! Neighbour entries in rtnetlink's words.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as State,
};
use terms::MacAddr;

use super::Linux;
use super::steps::Steps;
use crate::facts::{Link, Neighbour, NeighbourState};
use crate::kernel::KernelError;

impl<S: Steps> Linux<S> {
    pub(super) fn read_neighbours(&mut self, links: &[Link]) -> Result<Vec<Neighbour>, KernelError> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        self.channel.dump_route(request, "neighbours", |message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => Ok(read(&message, links)),
            _ => Ok(None),
        })
    }
}

/// `None` for an entry whose link vanished since the links were read, or that is of no IP family (a bridge's).
pub(super) fn read(message: &NeighbourMessage, links: &[Link]) -> Option<Neighbour> {
    let link = links.iter().find(|link| link.index == message.header.ifindex)?.name.clone();
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some((*ip).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some((*ip).into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().and_then(MacAddr::new);
            }
            _ => {}
        }
    }
    Some(Neighbour {
        link,
        address: address?,
        mac,
        state: match message.header.state {
            State::Incomplete => NeighbourState::Incomplete,
            State::Reachable => NeighbourState::Reachable,
            State::Stale => NeighbourState::Stale,
            State::Delay => NeighbourState::Delay,
            State::Probe => NeighbourState::Probe,
            State::Failed => NeighbourState::Failed,
            State::Noarp => NeighbourState::Noarp,
            State::Permanent => NeighbourState::Permanent,
            _ => NeighbourState::None,
        },
        router: message.header.flags.contains(NeighbourFlags::Router),
    })
}
