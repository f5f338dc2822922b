//! The control queue (§5.1.6.5): how many pairs of queues the driver uses, which frames it wants, the guest's address, and that it
//! has announced the guest.

use std::io::{Read as _, Write as _};

use virtio_queue::{Queue, QueueT as _};

use super::filter::{self, Address, Mode, Table};
use super::spec::{
    CONTROL_ANNOUNCE, CONTROL_ANNOUNCE_ACK, CONTROL_ERROR, CONTROL_MAC, CONTROL_MAC_ADDRESS, CONTROL_MAC_TABLE,
    CONTROL_OK, CONTROL_PAIRS, CONTROL_PAIRS_SET, CONTROL_RX,
};
use crate::memory::GuestMemory;
use crate::virtio::wait;

/// Bytes of a request that are read: more than two tables of [`filter::MOST`] addresses take.
const MOST_BYTES: usize = 4096;

/// What a driver asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// So many pairs of queues are used from now on.
    Pairs(u16),
    /// The guest was announced.
    Announced,
    /// A mode of receiving is switched on or off.
    Mode(Mode, bool),
    /// Other addresses are received: single ones and groups.
    Tables(Table, Table),
    /// The guest has another address.
    Address(Address),
}

impl Request {
    /// Of the first bytes of a request of `length` bytes; nothing for one that is malformed or unknown.
    fn parse(bytes: &[u8], length: usize) -> Option<Self> {
        let (&[class, command], data) = bytes.split_first_chunk()?;
        match (class, command, data) {
            (CONTROL_PAIRS, CONTROL_PAIRS_SET, &[low, high]) => Some(Self::Pairs(u16::from_le_bytes([low, high]))),
            (CONTROL_ANNOUNCE, CONTROL_ANNOUNCE_ACK, []) => Some(Self::Announced),
            (CONTROL_RX, command, &[on @ 0..=1]) => Some(Self::Mode(Mode::of(command)?, on == 1)),
            (CONTROL_MAC, CONTROL_MAC_ADDRESS, data) => Some(Self::Address(data.try_into().ok()?)),
            // Too long to be read whole: both kinds pass.
            (CONTROL_MAC, CONTROL_MAC_TABLE, _) if length > bytes.len() => Some(Self::Tables(None, None)),
            (CONTROL_MAC, CONTROL_MAC_TABLE, data) => {
                let (unicast, data) = table(data)?;
                let (multicast, data) = table(data)?;
                data.is_empty().then_some(Self::Tables(unicast, multicast))
            }
            _ => None,
        }
    }
}

/// A number of addresses and these (`struct virtio_net_ctrl_mac`), and what follows them.
fn table(data: &[u8]) -> Option<(Table, &[u8])> {
    let (count, data) = data.split_first_chunk()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let (addresses, rest) = data.split_at_checked(count.checked_mul(size_of::<Address>())?)?;
    let (addresses, _) = addresses.as_chunks();
    Some(((count <= filter::MOST).then(|| addresses.to_vec()), rest))
}

/// Answers all requests; `carry_out` says whether one is possible.
///
/// # Errors
/// What is wrong with the queue.
pub(super) fn answer(
    queue: &mut Queue,
    memory: &GuestMemory,
    mut carry_out: impl FnMut(Request) -> bool,
) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    loop {
        // A driver waits for each answer, so there is one request a time; a queue's size ends a ring that never does.
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop_descriptor_chain(memory) else { break };
            let head_index = chain.head_index();
            let mut reader = chain.clone().reader(memory).map_err(|error| text(&error))?;
            let length = reader.available_bytes();
            let mut bytes = vec![0; length.min(MOST_BYTES)];
            reader.read_exact(&mut bytes).map_err(|error| text(&error))?;
            let done = Request::parse(&bytes, length).is_some_and(&mut carry_out);
            let mut writer = chain.writer(memory).map_err(|error| text(&error))?;
            writer.write_all(&[if done { CONTROL_OK } else { CONTROL_ERROR }]).map_err(|error| text(&error))?;
            queue.add_used(memory, head_index, 1).map_err(|error| text(&error))?;
        }
        if !wait(queue, memory)? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Option<Request> {
        Request::parse(bytes, bytes.len())
    }

    // spec: LAB-31
    #[test]
    fn requests_of_a_driver_are_read_and_malformed_ones_refused() {
        let own = [2, 0, 0, 0, 0, 7];
        let tables = [&[1, 0, 1, 0, 0, 0][..], &own, &[0; 4]].concat();
        assert_eq!(parsed(&tables), Some(Request::Tables(Some(vec![own]), Some(Vec::new()))));
        assert_eq!(parsed(&[0, 1, 1]), Some(Request::Mode(Mode::AllMulticast, true)));
        assert_eq!(parsed(&[&[1, 1][..], &own].concat()), Some(Request::Address(own)));
        assert_eq!(parsed(&[4, 0, 2, 0]), Some(Request::Pairs(2)));
        assert_eq!(parsed(&[3, 0]), Some(Request::Announced));
        let short = &tables[..tables.len() - 1];
        let long = [&tables[..], &[0]].concat();
        let many = [1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let malformed: [&[u8]; 9] = [&[], &[0], &[0, 6, 1], &[0, 0, 2], &[0, 0], &[1, 1, 2], short, &long, &many];
        for bytes in malformed {
            assert_eq!(parsed(bytes), None, "{bytes:?}");
        }
    }

    // spec: LAB-31
    #[test]
    fn a_table_that_is_longer_than_what_is_kept_passes_all() {
        let count = filter::MOST + 1;
        let tables = [&[1, 0, u8::try_from(count).unwrap(), 0, 0, 0][..], &vec![2; 6 * count], &[0; 4]].concat();
        assert_eq!(parsed(&tables), Some(Request::Tables(None, Some(Vec::new()))));
        assert_eq!(Request::parse(&tables, 100_000), Some(Request::Tables(None, None)));
    }
}
