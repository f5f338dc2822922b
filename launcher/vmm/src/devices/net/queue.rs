//! Frames into and out of the queues.

use std::io::{Read as _, Write as _};

use virtio_queue::{Queue, QueueOwnedT as _, QueueT as _};

use super::spec::{BUFFERS_AT, HEADER};
use crate::memory::GuestMemory;

type Result<T> = std::result::Result<T, String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Writes a frame, header first, into the guest's buffers: one, or several when `mergeable`. Whether there were enough;
/// otherwise nothing is taken.
///
/// # Errors
/// What is wrong with the queue.
pub(super) fn deliver(queue: &mut Queue, memory: &GuestMemory, frame: &mut [u8], mergeable: bool) -> Result<bool> {
    let (mut chains, mut room) = (Vec::new(), 0);
    while room < frame.len() {
        let Some(chain) = queue.pop_descriptor_chain(memory) else {
            chains.iter().for_each(|_| queue.go_to_previous_position());
            return Ok(false);
        };
        let capacity = chain.clone().writer(memory).map_err(text)?.available_bytes();
        if capacity < HEADER {
            return Err(format!("a receive buffer of {capacity} bytes has no room for the header"));
        }
        room += capacity;
        chains.push((chain, capacity));
        if !mergeable && room < frame.len() {
            // §5.1.6.3.1: such a driver must offer room for any frame. This one is dropped, its buffer used with no bytes.
            let heads = chains.iter().map(|(chain, _)| chain.head_index());
            heads.into_iter().try_for_each(|head| queue.add_used(memory, head, 0)).map_err(text)?;
            return Ok(true);
        }
    }
    let count = u16::try_from(chains.len()).unwrap_or(u16::MAX);
    frame.iter_mut().skip(BUFFERS_AT).zip(count.to_le_bytes()).for_each(|(to, from)| *to = from);
    let mut rest = &*frame;
    for (chain, capacity) in chains {
        let head = chain.head_index();
        let (part, after) = rest.split_at(capacity.min(rest.len()));
        chain.writer(memory).map_err(text)?.write_all(part).map_err(text)?;
        queue.add_used(memory, head, u32::try_from(part.len()).unwrap_or_default()).map_err(text)?;
        rest = after;
    }
    Ok(true)
}

/// Takes a frame of the guest, header first, into `frame`: its length, zero for one that is too short or too long and so is
/// dropped, or nothing when the guest sends none.
///
/// # Errors
/// What is wrong with the queue.
pub(super) fn take(queue: &mut Queue, memory: &GuestMemory, frame: &mut [u8]) -> Result<Option<usize>> {
    let Some(chain) = queue.pop_descriptor_chain(memory) else { return Ok(None) };
    let head = chain.head_index();
    let mut reader = chain.reader(memory).map_err(text)?;
    let length = reader.available_bytes();
    let length = if (HEADER + 14..=frame.len()).contains(&length) { length } else { 0 };
    reader.read_exact(frame.get_mut(..length).unwrap_or_default()).map_err(text)?;
    queue.add_used(memory, head, 0).map_err(text)?;
    Ok(Some(length))
}
