//! The request queue: buffers to write random bytes into.

use std::io::{Read, Write as _};

use virtio_queue::{Queue, QueueT as _};

use super::spec::{MOST_BYTES, MOST_REQUESTS};
use crate::memory::GuestMemory;
use crate::virtio::wait;

/// Fills the buffers that are there, up to a number of them. Whether there are more.
///
/// # Errors
/// What is wrong with the queue, or that the source failed.
pub(super) fn fill(source: &mut impl Read, queue: &mut Queue, memory: &GuestMemory) -> Result<bool, String> {
    let mut served = 0;
    let mut bytes = [0; MOST_BYTES];
    while served < MOST_REQUESTS {
        let Some(chain) = queue.pop_descriptor_chain(memory) else {
            if !wait(queue, memory)? {
                return Ok(false);
            }
            continue;
        };
        served += 1;
        let head = chain.head_index();
        let mut writer = chain.writer(memory).map_err(|error| error.to_string())?;
        let room = writer.available_bytes().min(MOST_BYTES);
        let random = bytes.get_mut(..room).unwrap_or_default();
        source.read_exact(random).map_err(|error| error.to_string())?;
        writer.write_all(random).map_err(|error| error.to_string())?;
        let written = u32::try_from(room).unwrap_or_default();
        queue.add_used(memory, head, written).map_err(|error| error.to_string())?;
    }
    Ok(true)
}
