//! Reading what bridges say, and links by name.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::link::{BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use terms::{IfName, VlanId};

use super::rtnl::serialize;
use super::steps::Bus;
use super::{Linux, link};
use crate::attributes::{attribute, attributes_of, number};
use crate::facts::{Ask, ForwardingEntry, Link, PortVlans};
use crate::kernel::KernelError;

impl Linux<'_> {
    /// The links that were asked for by name and are there.
    pub(super) fn read_named_links(&mut self, ask: &Ask) -> Result<Vec<Link>, KernelError> {
        let mut found: Vec<(Link, Option<u32>)> = Vec::new();
        for name in &ask.links_named {
            let mut request = LinkMessage::default();
            request.attributes.push(LinkAttribute::IfName(name.to_string()));
            found.extend(self.read_one_link(request, ask)?);
        }
        let names: Vec<_> = found.iter().map(|(link, _)| (link.index, link.name.clone())).collect();
        let mut links = Vec::new();
        for (link, master) in found {
            let known = master.map(|index| names.iter().find(|(at, _)| *at == index).map(|(_, name)| name.clone()));
            let master = match (known, master) {
                (Some(None), Some(index)) => {
                    self.read_one_link(link::by_index(index), &Ask::default())?.map(|(master, _)| master.name)
                }
                (known, _) => known.flatten(),
            };
            links.push(Link { master, ..link });
        }
        Ok(links)
    }

    fn read_one_link(
        &mut self,
        mut request: LinkMessage,
        ask: &Ask,
    ) -> Result<Option<(Link, Option<u32>)>, KernelError> {
        if !ask.statistics {
            request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        }
        let sequence = self.channel.next_sequence();
        let bytes = serialize(sequence, NLM_F_REQUEST | NLM_F_ACK, RouteNetlinkMessage::GetLink(request));
        // Read like a dump: one message, and the acknowledgement ends it.
        let found = self.channel.dump(Bus::Route, &bytes, sequence, |frame| match frame.kind {
            libc::RTM_NEWLINK => link::read_for(frame.payload, ask),
            _ => Ok(None),
        });
        match found {
            Ok(found) => Ok(found.into_iter().next()),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn read_vlans(&mut self, links: &[Link]) -> Result<Vec<PortVlans>, KernelError> {
        let mut request = LinkMessage::default();
        request.header.interface_family = AddressFamily::Bridge;
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
        let found = self.channel.dump_route(RouteNetlinkMessage::GetLink(request), libc::RTM_NEWLINK, |message| {
            Ok(Some(vlans_of(message, links)))
        });
        match found {
            Ok(found) => Ok(found.into_iter().flatten().collect()),
            // A kernel without them has none.
            Err(error) if error.lacks_subsystem() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn read_forwarding(&mut self, links: &[Link]) -> Result<Vec<ForwardingEntry>, KernelError> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Bridge;
        let request = RouteNetlinkMessage::GetNeighbour(request);
        self.channel.dump_route(request, libc::RTM_NEWNEIGH, |message| Ok(forwarding_entry(message, links)))
    }
}

/// What a message of AF_BRIDGE says of a link's VLANs.
fn vlans_of(message: &[u8], links: &[Link]) -> Vec<PortVlans> {
    /// `struct ifinfomsg` of `linux/rtnetlink.h`.
    const HEADER_BYTES: usize = 16;
    /// IFLA_BRIDGE_VLAN_INFO of `linux/if_bridge.h`.
    const VLAN_INFO: u16 = 2;
    let Some((header, attributes)) = message.split_at_checked(HEADER_BYTES) else { return Vec::new() };
    let Some(link) = number(header, 4).and_then(|index| links.iter().find(|link| link.index == index)) else {
        return Vec::new();
    };
    let of_bridge = attribute(attributes, libc::IFLA_MASTER).is_none_or(|master| number(master, 0) == Some(link.index));
    let mut all = Vec::new();
    let mut begun: Option<VlanId> = None;
    let infos = attributes_of(attribute(attributes, libc::IFLA_AF_SPEC).unwrap_or_default());
    for (_, value) in infos.filter(|(kind, _)| *kind == VLAN_INFO) {
        let [a, b, c, d, ..] = *value else { continue };
        let flags = BridgeVlanInfoFlags::from_bits_retain(u16::from_ne_bytes([a, b]));
        let Ok(vlan) = VlanId::try_from(u64::from(u16::from_ne_bytes([c, d]))) else { continue };
        if flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            begun = Some(vlan);
            continue;
        }
        all.push(PortVlans {
            link: link.name.clone(),
            first: begun.take().unwrap_or(vlan),
            last: vlan,
            pvid: flags.contains(BridgeVlanInfoFlags::Pvid),
            untagged: flags.contains(BridgeVlanInfoFlags::Untagged),
            of_bridge,
        });
    }
    all
}

fn forwarding_entry(message: &[u8], links: &[Link]) -> Option<ForwardingEntry> {
    /// NDA_VLAN and NDA_MASTER of `linux/neighbour.h`.
    const VLAN: u16 = 5;
    const MASTER: u16 = 9;
    // `struct ndmsg`: family, padding (three bytes), index, state (two bytes), flags, type.
    let ([.., low, high, _, _], attributes) = message.split_first_chunk::<12>()?;
    let name_of = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let port: IfName = name_of(number(message, 4)?)?;
    Some(ForwardingEntry {
        bridge: attribute(attributes, MASTER).and_then(|index| number(index, 0)).and_then(name_of),
        port,
        mac: attribute(attributes, libc::NDA_LLADDR)?.try_into().ok()?,
        vlan: attribute(attributes, VLAN).and_then(<[u8]>::first_chunk).copied().map(u16::from_ne_bytes),
        permanent: u16::from_ne_bytes([*low, *high]) & libc::NUD_PERMANENT != 0,
    })
}
