//! Operations on links, addresses and routes as rtnetlink messages, many in one send.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use terms::IfName;

use super::channel::Channel;
use super::frame::Frame;
use super::steps::Bus;
use super::{Linux, address, bridge, link, route};
use crate::kernel::KernelError;
use crate::op::{LinkChange, NewLinkKind, Op};

/// Flags of a request that makes something new.
pub(super) const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// Messages that wait to be sent together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Number of each message and the operation that it is part of.
    messages: Vec<(u32, usize)>,
    /// Where the last message starts.
    last: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.messages.clear();
    }

    fn push(&mut self, sequence: u32, operation: usize, flags: u16, payload: RouteNetlinkMessage) {
        let bytes = serialize(sequence, NLM_F_REQUEST | flags, payload);
        self.last = self.bytes.len();
        self.bytes.extend_from_slice(&bytes);
        self.messages.push((sequence, operation));
    }

    /// Asks for an answer to the last message alone (refusals come unasked) and yields the buffer and the numbers in it.
    pub(super) fn finish(&mut self) -> Option<(&[u8], u32, u32)> {
        const FLAGS: std::ops::Range<usize> = 6..8;
        let ((first, _), (last, _)) = (*self.messages.first()?, *self.messages.last()?);
        let flags = self.bytes.get_mut(self.last..)?.get_mut(FLAGS)?.first_chunk_mut::<2>()?;
        *flags = (u16::from_ne_bytes(*flags) | NLM_F_ACK).to_ne_bytes();
        Some((&self.bytes, first, last))
    }

    pub(super) fn operation_of(&self, sequence: u32) -> usize {
        self.messages.iter().find(|(number, _)| *number == sequence).map_or(0, |(_, operation)| *operation)
    }
}

pub(super) fn serialize(sequence: u32, flags: u16, payload: RouteNetlinkMessage) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(payload));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

impl Linux<'_> {
    /// Adds an operation's messages to the batch.
    pub(super) fn queue(&mut self, batch: &mut Batch, operation: usize, op: &Op) -> Result<(), KernelError> {
        let (flags, payload) = match op {
            Op::SetLink { link, set } => return self.queue_change(batch, operation, link, set),
            Op::CreateLink(new) => {
                let parent = new.kind.parent().map(|parent| self.index(parent)).transpose()?;
                let other =
                    matches!(new.kind, NewLinkKind::VethAcross { .. }).then(|| self.other_netns()).transpose()?;
                let message = link::creation(new, parent, other);
                // Before anything is queued: a missing master makes the caller flush and come again.
                self.master_index(&new.set)?;
                self.push(batch, operation, NEW, RouteNetlinkMessage::NewLink(message));
                return match link::after_creation(&new.set) {
                    Some(rest) => self.queue_named_change(batch, operation, &new.name, &rest),
                    None => Ok(()),
                };
            }
            Op::RenameLink { link, name } => {
                let index = self.index(link)?;
                self.indices.retain(|(known, _)| known != link && known != name);
                (0, RouteNetlinkMessage::SetLink(link::renaming(index, name)))
            }
            Op::MoveLink { link, name } => {
                let index = self.index(link)?;
                let other = self.other_netns()?;
                self.indices.retain(|(known, _)| known != link);
                (0, RouteNetlinkMessage::SetLink(link::moving(index, name, other)))
            }
            Op::AddVlans(vlans) => (0, RouteNetlinkMessage::SetLink(bridge::vlans(self.index(&vlans.link)?, vlans))),
            Op::DeleteVlans(vlans) => (0, RouteNetlinkMessage::DelLink(bridge::vlans(self.index(&vlans.link)?, vlans))),
            Op::DeleteLink { link } => {
                let index = self.index(link)?;
                // With it go the other end of a cable and the links built on it.
                self.indices.clear();
                (0, RouteNetlinkMessage::DelLink(link::by_index(index)))
            }
            Op::DeleteGroup { group: 0 } => {
                return Err(KernelError::Invalid("group 0 is every link's: it cannot be deleted".to_owned()));
            }
            Op::DeleteGroup { group } => {
                self.indices.clear();
                (0, RouteNetlinkMessage::DelLink(link::by_group(*group)))
            }
            Op::AddAddress(new) => {
                (NEW, RouteNetlinkMessage::NewAddress(address::message(self.index(&new.link)?, new)))
            }
            Op::DeleteAddress { link, address } => {
                (0, RouteNetlinkMessage::DelAddress(address::deletion(self.index(link)?, *address)))
            }
            Op::AddRoute(new) => (NEW, RouteNetlinkMessage::NewRoute(self.route(new)?)),
            Op::ReplaceRoute(new) => (NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewRoute(self.route(new)?)),
            Op::DeleteRoute(old) => (0, RouteNetlinkMessage::DelRoute(route::deletion(self.route(old)?))),
            Op::CreateTap(_) | Op::WriteSysctl { .. } | Op::Nft(_) | Op::DeleteConntrack(_) => {
                return Err(KernelError::Invalid(format!("{op} is no rtnetlink message")));
            }
        };
        self.push(batch, operation, flags, payload);
        Ok(())
    }

    /// Adds a change of a link that exists; one that changes nothing adds no message.
    pub(super) fn queue_change(
        &mut self,
        batch: &mut Batch,
        operation: usize,
        name: &IfName,
        set: &LinkChange,
    ) -> Result<(), KernelError> {
        if set.is_empty() {
            return Ok(());
        }
        let (index, master) = (self.index(name)?, self.master_index(set)?);
        for message in link::changes(Some(index), name, set, master) {
            self.push(batch, operation, 0, RouteNetlinkMessage::NewLink(message));
        }
        Ok(())
    }

    /// The same for a link that a waiting message makes: it has no index yet.
    fn queue_named_change(
        &mut self,
        batch: &mut Batch,
        operation: usize,
        name: &IfName,
        set: &LinkChange,
    ) -> Result<(), KernelError> {
        let master = self.master_index(set)?;
        for message in link::changes(None, name, set, master) {
            self.push(batch, operation, 0, RouteNetlinkMessage::NewLink(message));
        }
        Ok(())
    }

    fn push(&mut self, batch: &mut Batch, operation: usize, flags: u16, payload: RouteNetlinkMessage) {
        batch.push(self.channel.next_sequence(), operation, flags, payload);
    }
}

impl Channel<'_> {
    /// Dumps what `request` asks for; `read` sees the payload of each message of kind `wanted`. The kernel sends far more
    /// attributes than anybody here looks at, so they are not decoded on the way.
    pub(super) fn dump_route<T>(
        &mut self,
        request: RouteNetlinkMessage,
        wanted: u16,
        mut read: impl FnMut(&[u8]) -> Result<Option<T>, KernelError>,
    ) -> Result<Vec<T>, KernelError> {
        let sequence = self.next_sequence();
        let bytes = serialize(sequence, NLM_F_REQUEST | NLM_F_DUMP, request);
        self.dump(
            Bus::Route,
            &bytes,
            sequence,
            |frame: &Frame<'_>| {
                if frame.kind == wanted { read(frame.payload) } else { Ok(None) }
            },
        )
    }
}
