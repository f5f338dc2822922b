//! The queues: numbers of pages that the guest gives up, and ranges that it reports as free.

use std::io::Read as _;

use virtio_queue::{Queue, QueueT as _};
use vm_memory::GuestAddress;

use super::spec::{MOST_PAGES, MOST_REQUESTS, PAGE};
use crate::memory::GuestMemory;
use crate::sys::ram;

/// What a queue's requests hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Numbers of pages, to be taken.
    Pages,
    /// Buffers that are free, to be taken.
    Buffers,
    /// Numbers of pages that the guest uses again, of which nothing has to be known.
    Nothing,
}

/// Serves the requests that are there, up to a number of them. Whether there are more.
///
/// # Errors
/// What is wrong with the queue.
pub(super) fn serve(queue: &mut Queue, memory: &GuestMemory, content: Content) -> Result<bool, String> {
    for _ in 0..MOST_REQUESTS {
        let Some(chain) = queue.pop_descriptor_chain(memory) else {
            return crate::virtio::wait(queue, memory);
        };
        let head = chain.head_index();
        match content {
            Content::Pages => {
                let mut bytes = [0; 4 * MOST_PAGES];
                let mut reader = chain.reader(memory).map_err(|error| error.to_string())?;
                let length = reader.available_bytes().min(bytes.len());
                let numbers = bytes.get_mut(..length).unwrap_or_default();
                reader.read_exact(numbers).map_err(|error| error.to_string())?;
                let ranges = runs(numbers);
                ranges.into_iter().try_for_each(|(start, size)| take(memory, start, size))?;
            }
            Content::Buffers => {
                for buffer in chain.filter(virtio_queue::desc::split::Descriptor::is_write_only) {
                    take(memory, buffer.addr().0, buffer.len().into())?;
                }
            }
            Content::Nothing => {}
        }
        queue.add_used(memory, head, 0).map_err(|error| error.to_string())?;
    }
    Ok(true)
}

/// Start and size of each run of neighbouring pages.
fn runs(numbers: &[u8]) -> Vec<(u64, u64)> {
    let (numbers, _) = numbers.as_chunks::<4>();
    let mut pages: Vec<_> = numbers.iter().map(|number| u64::from(u32::from_le_bytes(*number)) * PAGE).collect();
    pages.sort_unstable();
    pages.dedup();
    let mut runs = Vec::<(u64, u64)>::new();
    for page in pages {
        match runs.last_mut() {
            Some((start, size)) if *start + *size == page => *size += PAGE,
            _ => runs.push((page, PAGE)),
        }
    }
    runs
}

/// Gives the whole pages of a range back to the host.
fn take(memory: &GuestMemory, start: u64, size: u64) -> Result<(), String> {
    let outside = || format!("{size} bytes at {start:#x} are no memory of the guest");
    let end = start.checked_add(size).ok_or_else(outside)? / PAGE * PAGE;
    let start = start.checked_next_multiple_of(PAGE).ok_or_else(outside)?;
    let size = usize::try_from(end.saturating_sub(start)).map_err(|_| outside())?;
    ram::discard(memory, GuestAddress(start), size).map_err(|error| error.to_string())
}
