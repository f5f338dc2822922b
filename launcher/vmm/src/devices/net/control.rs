//! The control queue (§5.1.6.5): how many pairs of queues the driver uses, and that it has announced the guest.
//!
//! Filters of received frames are accepted and not applied: a device may pass more than they ask for (§5.1.6.5.1), and only
//! frames for the guest reach its tap.

use std::io::{Read as _, Write as _};

use virtio_queue::{Queue, QueueT as _};

use super::spec::{
    CONTROL_ANNOUNCE, CONTROL_ANNOUNCE_ACK, CONTROL_ERROR, CONTROL_MAC, CONTROL_MAC_TABLE, CONTROL_OK, CONTROL_PAIRS,
    CONTROL_PAIRS_SET, CONTROL_RX, CONTROL_RX_LAST,
};
use crate::memory::GuestMemory;
use crate::virtio::wait;

/// What a driver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// So many pairs of queues are used from now on.
    Pairs(u16),
    /// The guest was announced.
    Announced,
    /// A filter.
    Filter,
}

/// Class, command and the first bytes of its data.
#[derive(Debug, Clone, Copy, Default)]
struct Head([u8; 4]);

impl Head {
    fn request(self, length: usize) -> Option<Request> {
        let [class, command, low, high] = self.0;
        match (class, command, length) {
            (CONTROL_PAIRS, CONTROL_PAIRS_SET, 4) => Some(Request::Pairs(u16::from_le_bytes([low, high]))),
            (CONTROL_ANNOUNCE, CONTROL_ANNOUNCE_ACK, 2) => Some(Request::Announced),
            (CONTROL_RX, command, 3) if command <= CONTROL_RX_LAST => Some(Request::Filter),
            (CONTROL_MAC, CONTROL_MAC_TABLE, 10..) => Some(Request::Filter),
            _ => None,
        }
    }
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
            let mut head = Head::default();
            let known = length.min(head.0.len());
            reader.read_exact(head.0.get_mut(..known).unwrap_or_default()).map_err(|error| text(&error))?;
            let done = head.request(length).is_some_and(&mut carry_out);
            let mut writer = chain.writer(memory).map_err(|error| text(&error))?;
            writer.write_all(&[if done { CONTROL_OK } else { CONTROL_ERROR }]).map_err(|error| text(&error))?;
            queue.add_used(memory, head_index, 1).map_err(|error| text(&error))?;
        }
        if !wait(queue, memory)? {
            return Ok(());
        }
    }
}
