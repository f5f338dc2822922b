//! MSI-X (PCI Local Bus 3.0, §6.8.2): a table of messages, each with a mask, and a bit for what waits behind a mask.

use std::fmt::Debug;

use vmm_sys_util::eventfd::EventFd;

use super::spec::{MSIX_ENABLE, MSIX_MASK_ALL};

/// Bytes of a table entry: address, upper address, data, vector control.
const ENTRY: u64 = 16;
/// Bit 0 of vector control: masked, as after a reset.
const MASKED: u32 = 1;

/// What an interrupt writes, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) address: u64,
    pub(crate) data: u32,
}

/// The interrupts behind the table.
pub(crate) trait Vectors: Debug + Send {
    /// What vector `vector` sends from now on; often what it sends already.
    fn route(&self, vector: u16, message: Message);

    /// Sends it.
    fn fire(&self, vector: u16);

    /// Whether what is written into [`Self::event`] is sent; what was written while it was closed is sent when it opens.
    fn set_open(&self, vector: u16, open: bool);

    /// What sends the vector when it is written, for who does that in this device's place.
    fn event(&self, vector: u16) -> Option<&EventFd>;
}

/// The table, pending bits and message control of a function.
#[derive(Debug)]
pub(super) struct Msix {
    pub(super) control: u16,
    pub(super) table: Vec<[u32; 4]>,
    pub(super) pending: Vec<bool>,
    vectors: Box<dyn Vectors>,
}

impl Msix {
    /// After a reset.
    pub(super) fn new(count: usize, vectors: Box<dyn Vectors>) -> Self {
        Self { control: 0, table: vec![[0, 0, 0, MASKED]; count], pending: vec![false; count], vectors }
    }

    /// Vectors less one, as message control has it.
    pub(super) fn size_field(&self) -> u16 {
        u16::try_from(self.table.len().saturating_sub(1)).unwrap_or_default()
    }

    /// Whether `vector` is one.
    pub(super) fn has(&self, vector: u16) -> bool {
        usize::from(vector) < self.table.len()
    }

    /// Writes the enable and mask bits of message control.
    pub(super) fn set_control(&mut self, control: u16) {
        self.control = control & (MSIX_ENABLE | MSIX_MASK_ALL);
        self.flush();
    }

    /// Sends `vector`, or notes that it waits.
    pub(super) fn trigger(&mut self, vector: u16) {
        if self.is_open(usize::from(vector)) {
            self.vectors.fire(vector);
        } else if let Some(pending) = self.pending.get_mut(usize::from(vector)) {
            *pending = true;
        }
    }

    /// What sends a vector when it is written.
    pub(super) fn event(&self, vector: u16) -> Option<&EventFd> {
        self.vectors.event(vector)
    }

    /// Reads from the table. `data` is all ones already.
    pub(super) fn read_table(&self, offset: u64, data: &mut [u8]) {
        let bytes = self.table.iter().flatten().flat_map(|word| word.to_le_bytes());
        copy(bytes, offset, data);
    }

    /// Writes to the table; parts of entries are merged.
    pub(super) fn write_table(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            let entry = self.table.get_mut(usize::try_from(at / ENTRY).unwrap_or(usize::MAX));
            let (word, shift) = ((at % ENTRY / 4) as usize, 8 * (at % 4));
            if let Some(word) = entry.and_then(|entry| entry.get_mut(word)) {
                *word = *word & !(0xff << shift) | u32::from(*byte) << shift;
            }
        }
        self.flush();
    }

    /// Reads from the pending bits. `data` is all ones already.
    pub(super) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let words =
            self.pending.chunks(64).map(|bits| bits.iter().rev().fold(0_u64, |word, bit| word << 1 | u64::from(*bit)));
        copy(words.flat_map(u64::to_le_bytes), offset, data);
    }

    fn is_open(&self, vector: usize) -> bool {
        let masked = self.table.get(vector).is_none_or(|entry| entry[3] & MASKED != 0);
        self.control & MSIX_ENABLE != 0 && self.control & MSIX_MASK_ALL == 0 && !masked
    }

    fn route(&self, vector: u16) {
        if let Some([low, high, data, _]) = self.table.get(usize::from(vector)) {
            let message = Message { address: u64::from(*high) << 32 | u64::from(*low), data: *data };
            self.vectors.route(vector, message);
        }
    }

    /// Sends what waited and is not masked any more.
    fn flush(&mut self) {
        for vector in 0..u16::try_from(self.table.len()).unwrap_or_default() {
            let at = usize::from(vector);
            if !self.is_open(at) {
                self.vectors.set_open(vector, false);
                continue;
            }
            self.route(vector);
            self.vectors.set_open(vector, true);
            if let Some(pending) = self.pending.get_mut(at)
                && std::mem::take(pending)
            {
                self.vectors.fire(vector);
            }
        }
    }
}

/// Copies what there is of `bytes` from `offset` on.
fn copy(bytes: impl Iterator<Item = u8>, offset: u64, data: &mut [u8]) {
    let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
    data.iter_mut().zip(bytes.skip(skipped)).for_each(|(to, from)| *to = from);
}
