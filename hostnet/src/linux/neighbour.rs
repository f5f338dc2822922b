//! Neighbour entries in rtnetlink's words.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use terms::MacAddr;

use super::Linux;
use super::address::ip;
use crate::attributes::attribute;
use crate::attributes::number;
use crate::facts::{Link, Neighbour, NeighbourState};
use crate::kernel::KernelError;

impl Linux<'_> {
    pub(super) fn read_neighbours(&mut self, links: &[Link]) -> Result<Vec<Neighbour>, KernelError> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        self.channel.dump_route(request, libc::RTM_NEWNEIGH, |message| Ok(read(message, links)))
    }
}

/// `None` for an entry whose link vanished since the links were read, or that is of no IP family (a bridge's).
pub(super) fn read(message: &[u8], links: &[Link]) -> Option<Neighbour> {
    // `struct ndmsg`: family, padding (three bytes), index, state (two bytes), flags, type.
    let ([.., low, high, flags, _], attributes) = message.split_first_chunk::<12>()?;
    let index = number(message, 4)?;
    let link = links.iter().find(|link| link.index == index)?.name.clone();
    let mac = attribute(attributes, libc::NDA_LLADDR);
    Some(Neighbour {
        link,
        address: ip(attribute(attributes, libc::NDA_DST)?)?,
        mac: mac.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()).and_then(MacAddr::new),
        state: match u16::from_ne_bytes([*low, *high]) {
            libc::NUD_INCOMPLETE => NeighbourState::Incomplete,
            libc::NUD_REACHABLE => NeighbourState::Reachable,
            libc::NUD_STALE => NeighbourState::Stale,
            libc::NUD_DELAY => NeighbourState::Delay,
            libc::NUD_PROBE => NeighbourState::Probe,
            libc::NUD_FAILED => NeighbourState::Failed,
            libc::NUD_NOARP => NeighbourState::Noarp,
            libc::NUD_PERMANENT => NeighbourState::Permanent,
            _ => NeighbourState::None,
        },
        router: flags & libc::NTF_ROUTER != 0,
    })
}
