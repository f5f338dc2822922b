//! Memory for a process that serves one call: handed out from the front of one area and mostly never taken back.
//!
//! *Guarantees*: those of any allocator; threads may share it. What is large, or no longer fits, comes from dlmalloc and goes
//! back there. *Assumption*: a call allocates about a thousand times and ends, so that finding freed memory again would cost
//! more than the memory is worth. The C library of a static build would besides map and unmap pages for every vector that grows.
#![expect(
    unsafe_code,
    reason = "an allocator hands out memory by its address, which only the caller knows to use well"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use dlmalloc::GlobalDlmalloc;

/// Several times what a call needs; pages that are never touched cost nothing.
const AREA_BYTES: usize = 512 * 1024;

/// More than the largest buffer of a call with an ordinary configuration.
const LARGEST_BYTES: usize = 64 * 1024;

/// Where everything else comes from.
static LARGE: GlobalDlmalloc = GlobalDlmalloc;

/// The area.
#[repr(align(64))]
pub(crate) struct Arena {
    bytes: UnsafeCell<[u8; AREA_BYTES]>,
    /// All before this is handed out.
    used: AtomicUsize,
}

// SAFETY: the bytes are only ever reached through pieces that `used` gave to one owner each.
unsafe impl Sync for Arena {}

impl Arena {
    pub(crate) const fn new() -> Self {
        Self { bytes: UnsafeCell::new([0; AREA_BYTES]), used: AtomicUsize::new(0) }
    }

    /// A piece of the area; `None` when it does not fit or is better placed elsewhere.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        if layout.size() > LARGEST_BYTES {
            return None;
        }
        let first = self.bytes.get().addr();
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let start = first.checked_add(used)?.checked_next_multiple_of(layout.align())? - first;
            let end = start.checked_add(layout.size()).filter(|end| *end <= AREA_BYTES)?;
            match self.used.compare_exchange_weak(used, end, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(self.bytes.get().cast::<u8>().wrapping_add(start)),
                Err(now) => used = now,
            }
        }
    }

    /// Where in the area a piece begins.
    fn place(&self, piece: *mut u8) -> Option<usize> {
        piece.addr().checked_sub(self.bytes.get().addr()).filter(|start| *start < AREA_BYTES)
    }

    /// Moves the end of the last piece; `false` if another piece follows.
    fn move_end(&self, from: usize, to: usize) -> bool {
        self.used.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: `take` never gives the same bytes twice, as `used` only grows past what was given, and falls only by a piece whose
// owner gave it back; pieces are as long and as aligned as was asked for; dlmalloc vouches for the rest.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is the caller's, who upholds `alloc`'s precondition that it is not empty.
        self.take(layout).unwrap_or_else(|| unsafe { LARGE.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(piece) = self.take(layout) else {
            // SAFETY: the layout is the caller's, as above.
            return unsafe { LARGE.alloc_zeroed(layout) };
        };
        // SAFETY: the piece is as long as the layout says and nobody else's.
        unsafe { piece.write_bytes(0, layout.size()) };
        piece
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match self.place(piece) {
            Some(start) => {
                self.move_end(start + layout.size(), start);
            }
            // SAFETY: what is not of the area came from dlmalloc, with this layout, as the caller upholds.
            None => unsafe { LARGE.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        let Some(start) = self.place(piece) else {
            // SAFETY: as in `dealloc`; the caller upholds that `bytes` is neither zero nor too large for the alignment.
            return unsafe { LARGE.realloc(piece, layout, bytes) };
        };
        let end = start.saturating_add(bytes);
        if bytes <= LARGEST_BYTES && end <= AREA_BYTES && self.move_end(start + layout.size(), end) {
            return piece;
        }
        // SAFETY: the caller upholds that `bytes` with this alignment is a layout, and that it is not empty.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(bytes, layout.align())) };
        if !new.is_null() {
            // SAFETY: both pieces are at least that long, and the new one overlaps no other.
            unsafe { piece.copy_to_nonoverlapping(new, layout.size().min(bytes)) };
            // SAFETY: the piece and its layout are the caller's, who gives it up.
            unsafe { self.dealloc(piece, layout) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// An arena of one's own; too large for a stack.
    fn arena() -> &'static Arena {
        Box::leak(Box::new(const { Arena::new() }))
    }

    #[test]
    fn pieces_are_aligned_and_apart() {
        let arena = arena();
        let mut last_end = 0;
        for (size, align) in [(1, 1), (3, 8), (100, 64), (7, 2), (4096, 16)] {
            let piece = arena.take(layout(size, align)).unwrap().addr();
            assert_eq!(piece % align, 0);
            assert!(piece >= last_end);
            last_end = piece + size;
        }
    }

    #[test]
    fn the_last_piece_grows_where_it_is_and_others_move_with_their_contents() {
        let arena = arena();
        let small = layout(8, 8);
        // SAFETY: pieces are used within the layouts they were asked for with, and given up once.
        unsafe {
            let one = arena.alloc(small);
            one.write_bytes(7, 8);
            let grown = arena.realloc(one, small, 1000);
            assert_eq!(grown, one);
            let two = arena.alloc(small);
            let moved = arena.realloc(grown, layout(1000, 8), 2000);
            assert_ne!(moved, grown);
            assert_eq!(moved.cast::<[u8; 8]>().read(), [7; 8]);
            arena.dealloc(moved, layout(2000, 8));
            assert_eq!(arena.alloc(small), moved);
            assert_ne!(two, moved);
        }
    }

    #[test]
    fn what_is_large_or_does_not_fit_comes_from_elsewhere() {
        let arena = arena();
        // SAFETY: as above.
        unsafe {
            let large = arena.alloc_zeroed(layout(LARGEST_BYTES + 1, 8));
            assert_eq!(arena.place(large), None);
            let large = arena.realloc(large, layout(LARGEST_BYTES + 1, 8), LARGEST_BYTES * 3);
            assert_eq!(large.read(), 0);
            arena.dealloc(large, layout(LARGEST_BYTES * 3, 8));
            while arena.take(layout(LARGEST_BYTES, 8)).is_some() {}
            let beyond = arena.alloc(layout(LARGEST_BYTES, 8));
            assert!(!beyond.is_null() && arena.place(beyond).is_none());
            arena.dealloc(beyond, layout(LARGEST_BYTES, 8));
        }
    }

    #[test]
    fn zeroed_memory_is_zero_where_something_was_before() {
        let arena = arena();
        // SAFETY: as above.
        unsafe {
            let dirty = arena.alloc(layout(64, 8));
            dirty.write_bytes(0xff, 64);
            arena.dealloc(dirty, layout(64, 8));
            let clean = arena.alloc_zeroed(layout(64, 8));
            assert_eq!(clean, dirty);
            assert_eq!(clean.cast::<[u8; 64]>().read(), [0; 64]);
        }
    }

    #[test]
    fn threads_get_pieces_of_their_own() {
        let arena = arena();
        let mut all: Vec<usize> = std::thread::scope(|scope| {
            let take = || (0..500).map(|_| arena.take(layout(32, 8)).unwrap().addr()).collect::<Vec<_>>();
            let threads = [scope.spawn(take), scope.spawn(take), scope.spawn(take)];
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] >= 32));
    }
}
