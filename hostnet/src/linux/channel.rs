//! Requests and answers over netlink: acknowledged batches and dumps.
//!
//! Guarantees: answers to earlier requests are skipped by their sequence number; a dump that the kernel says was disturbed is
//! taken again. Assumption: the kernel answers while it handles a request, so an empty queue means that no answer will come.

use std::io;

use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};

use super::frame::{Frame, frames, refusal};
use super::steps::{Bus, Steps};
use crate::kernel::KernelError;

/// The kernel fills datagrams of a dump up to this much (NLMSG_GOODSIZE aside, `netlink_dump` takes at most 32 KiB).
const BUFFER_BYTES: usize = 32 * 1024;

/// How often a dump is taken again because the kernel's tables changed under it.
const DUMP_ATTEMPTS: usize = 16;

/// A message the kernel refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) sequence: u32,
    pub(crate) error: KernelError,
}

/// The two netlink sockets of a namespace, and the numbers of what was said on them.
#[derive(Debug)]
pub(crate) struct Channel<'s> {
    pub(crate) steps: Box<dyn Steps + Send + 's>,
    sequence: u32,
    buffer: Vec<u8>,
}

impl<'s> Channel<'s> {
    pub(crate) fn new(steps: impl Steps + Send + 's) -> Self {
        Self { steps: Box::new(steps), sequence: 0, buffer: Vec::new() }
    }

    /// A number for the next message.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Skips `count` numbers that the caller gave to messages, from the one that `next_sequence` returned last.
    pub(crate) fn skip_sequences(&mut self, count: u32) {
        self.sequence = self.sequence.wrapping_add(count.saturating_sub(1));
    }

    /// Sends messages numbered `first..=last`, of which the last asks for an acknowledgement, and returns the first refusal.
    ///
    /// Refusals come in the order of the messages, before the last one's answer. A refusal of the batch as a whole carries
    /// the number `first` of its opening message, and may be all that comes.
    pub(crate) fn request(
        &mut self,
        bus: Bus,
        messages: &[u8],
        first: u32,
        last: u32,
    ) -> Result<Option<Refused>, KernelError> {
        self.steps.send(bus, messages).map_err(|source| KernelError::Socket { action: "request", source })?;
        let mut refused: Option<Refused> = None;
        loop {
            match self.receive(bus) {
                Ok(()) => {}
                // No answer is left: after a refusal that ended the batch this is the regular end.
                Err(KernelError::Socket { source, .. })
                    if source.kind() == io::ErrorKind::WouldBlock && refused.is_some() =>
                {
                    return Ok(refused);
                }
                Err(error) => return Err(error),
            }
            for frame in frames(&self.buffer).filter(|frame| frame.kind == NLMSG_ERROR) {
                // Wrapping distance: numbers before `first` belong to requests that were given up.
                if frame.sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                    continue;
                }
                if let (None, Some(error)) = (&refused, refusal(&frame)) {
                    refused = Some(Refused { sequence: frame.sequence, error });
                }
                if frame.sequence == last {
                    return Ok(refused);
                }
            }
        }
    }

    /// Asks for a dump with one message and reads each answer with `read`.
    pub(crate) fn dump<T>(
        &mut self,
        bus: Bus,
        message: &[u8],
        sequence: u32,
        mut read: impl FnMut(&Frame<'_>) -> Result<Option<T>, KernelError>,
    ) -> Result<Vec<T>, KernelError> {
        for _ in 0..DUMP_ATTEMPTS {
            self.steps.send(bus, message).map_err(|source| KernelError::Socket { action: "request", source })?;
            let mut found = Vec::new();
            let mut disturbed = false;
            'answers: loop {
                self.receive(bus)?;
                for frame in frames(&self.buffer).filter(|frame| frame.sequence == sequence) {
                    disturbed |= frame.flags & NLM_F_DUMP_INTR != 0;
                    match frame.kind {
                        NLMSG_DONE | NLMSG_ERROR => match refusal(&frame) {
                            Some(error) => return Err(error),
                            None => break 'answers,
                        },
                        _ => found.extend(read(&frame)?),
                    }
                }
            }
            if !disturbed {
                return Ok(found);
            }
        }
        Err(KernelError::Decode {
            what: "a dump",
            why: "its tables changed under every attempt to read them".to_owned(),
        })
    }

    /// Receives one datagram; a buffer too small for it grows, and the request has to be repeated by the caller.
    fn receive(&mut self, bus: Bus) -> Result<(), KernelError> {
        // Cleared first: room is reserved beyond what is there.
        self.buffer.clear();
        self.buffer.reserve(BUFFER_BYTES);
        let received = self.steps.receive(bus, &mut self.buffer);
        let bytes = received.map_err(|source| KernelError::Socket { action: "answer", source })?;
        if bytes > self.buffer.len() {
            self.buffer.reserve(bytes);
            let why = format!("the datagram has {bytes} bytes, more than any dump's");
            return Err(KernelError::Decode { what: "a request", why });
        }
        Ok(())
    }
}
