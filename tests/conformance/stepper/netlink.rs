//! Netlink messages in another process's memory: where each starts, what it asks, and how to make one fail.

use super::memory::Memory;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER_BYTES: usize = 16;
const TYPE_AT: usize = 4;
/// In an error message the code follows the header.
const ERROR_AT: usize = HEADER_BYTES;
#[expect(clippy::cast_possible_truncation, reason = "NLMSG_ERROR is 2")]
const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
/// A type of no family: rtnetlink answers EOPNOTSUPP, nfnetlink ends the batch with EINVAL.
const NO_TYPE: u16 = u16::MAX;
/// Types from here on are nfnetlink's: subsystem in the upper byte.
const FIRST_NFNETLINK: u16 = 0x100;

/// `NFNL_MSG_BATCH_BEGIN` and its end, of `linux/netfilter/nfnetlink.h`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// In a batch's first message: which subsystem it is for (`res_id` of `struct nfgenmsg`).
const SUBSYSTEM_AT: usize = HEADER_BYTES + 2;

/// A message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    address: u64,
    /// Bytes of the batch before it.
    pub(super) offset: usize,
    pub(super) kind: u16,
    pub(super) seq: u32,
}

/// The messages in one send: `pieces` are the buffer's parts in order.
pub(super) fn messages(memory: &Memory, pieces: &[(u64, usize)]) -> Option<Vec<Message>> {
    let mut found = Vec::new();
    let mut before = 0;
    for (address, length) in pieces {
        let bytes = memory.read(*address, *length)?;
        // libmnl gives each page of a batch a piece of its own and never splits a message.
        for (at, header) in headers(&bytes)? {
            let address = address + u64::try_from(at).ok()?;
            found.push(Message { address, offset: before + at, ..header });
        }
        before += length;
    }
    (!found.is_empty()).then_some(found)
}

/// Whether these are nfnetlink's: its batch-begin has the number of RTM_NEWLINK.
pub(super) fn is_nfnetlink(messages: &[Message]) -> bool {
    messages.iter().any(|message| message.kind >= FIRST_NFNETLINK)
}

/// Whether a batch asks for a change.
pub(super) fn changes(messages: &[Message]) -> bool {
    if is_nfnetlink(messages) {
        // Changes of nftables come only in batches, which open with a type below any subsystem's.
        return messages.iter().any(|message| message.kind < FIRST_NFNETLINK);
    }
    // rtnetlink numbers each object's NEW, DEL, GET, SET from a multiple of four.
    messages.iter().any(|message| message.kind % 4 != 2)
}

/// Makes the kernel refuse a message. Of an nftables batch, the first represents the whole: refused there, the error is
/// reported as that of a failed commit. The last has no answer of its own and is not refused.
pub(super) fn spoil(memory: &Memory, message: &Message, is_nfnetlink: bool) -> Option<()> {
    match message.kind {
        BATCH_BEGIN if is_nfnetlink => memory.write(message.address + SUBSYSTEM_AT as u64, &NO_TYPE.to_ne_bytes()),
        BATCH_END if is_nfnetlink => None,
        _ => memory.write(message.address + TYPE_AT as u64, &NO_TYPE.to_ne_bytes()),
    }
}

/// Rewrites the code in every error answer to the message `seq` within a received buffer.
pub(super) fn rewrite_errors(
    memory: &Memory,
    pieces: &[(u64, usize)],
    received: usize,
    seq: u32,
    errno: i32,
) -> Option<()> {
    let mut left = received;
    for (address, length) in pieces {
        let bytes = memory.read(*address, (*length).min(left))?;
        for (at, header) in headers(&bytes).unwrap_or_default() {
            let code = bytes.get(at + ERROR_AT..at + ERROR_AT + 4)?;
            if header.kind == NLMSG_ERROR && header.seq == seq && code != [0; 4] {
                let place = address + u64::try_from(at + ERROR_AT).ok()?;
                memory.write(place, &(-errno).to_ne_bytes())?;
            }
        }
        left = left.saturating_sub(*length);
    }
    Some(())
}

/// The headers in a buffer with their offsets; `None` when it does not hold netlink messages.
fn headers(bytes: &[u8]) -> Option<Vec<(usize, Message)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
        let length = u32::from_ne_bytes(header[0..4].try_into().ok()?) as usize;
        if length < HEADER_BYTES || length > bytes.len() - at {
            return None;
        }
        let kind = u16::from_ne_bytes(header[4..6].try_into().ok()?);
        let seq = u32::from_ne_bytes(header[8..12].try_into().ok()?);
        found.push((at, Message { address: 0, offset: at, kind, seq }));
        at += length.next_multiple_of(4);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: usize) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + body).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.resize((HEADER_BYTES + body).next_multiple_of(4), 0);
        bytes
    }

    fn kinds(bytes: &[u8]) -> Option<Vec<(usize, u16)>> {
        headers(bytes).map(|list| list.iter().map(|(at, header)| (*at, header.kind)).collect())
    }

    #[test]
    fn a_batch_is_taken_apart_at_its_padded_lengths() {
        let batch = [message(16, 5), message(20, 0)].concat();
        assert_eq!(kinds(&batch), Some(vec![(0, 16), (24, 20)]));
    }

    #[test]
    fn other_data_is_no_batch() {
        assert_eq!(kinds(&[0; 32]), None);
        assert_eq!(kinds(&[0xff; 32]), None);
    }

    #[test]
    fn reads_and_changes_are_told_apart() {
        let of = |kinds: &[u16]| -> Vec<Message> {
            kinds.iter().map(|kind| Message { address: 0, offset: 0, kind: *kind, seq: 0 }).collect()
        };
        assert!(!changes(&of(&[libc::RTM_GETLINK])));
        assert!(changes(&of(&[libc::RTM_GETLINK, libc::RTM_NEWADDR])));
        assert!(changes(&of(&[16, 0xa00, 17])) && !changes(&of(&[0xa01])));
    }
}
