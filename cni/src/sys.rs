//! The allocator of a process that serves one call and ends: allocations follow one another in a fixed arena.
//!
//! *Guarantees.* Freeing the latest allocation returns its space and growing it keeps its place, which is what vectors and
//! strings do most. Everything else stays until the process ends. When the arena is full, the C library's allocator serves, so
//! a large configuration is read like a small one. Threads may share it: STATUS starts one.
//! *Why not a general allocator.* Its locks and free lists took 40 % of the instructions of an ADD.
#![expect(unsafe_code, reason = "an allocator hands out raw memory: GlobalAlloc is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Vectors of this size and more move to the C library's allocator, which can free them.
const LARGEST_BYTES: usize = 128 << 10;

const ARENA_ALIGN: usize = align_of::<Arena<0>>();

/// The arena's bytes, aligned for every type.
#[repr(C, align(64))]
struct Arena<const BYTES: usize>(UnsafeCell<[u8; BYTES]>);

/// Hands out an arena of `BYTES` from its beginning to its end. Pages that are never written take no memory.
pub(crate) struct Bump<const BYTES: usize> {
    arena: Arena<BYTES>,
    used: AtomicUsize,
}

// SAFETY: `Sync` of the cell: its bytes are reached only by pointers from `alloc`, and `used` moves by one atomic exchange, so no
// two callers are given the same bytes.
unsafe impl<const BYTES: usize> Sync for Bump<BYTES> {}

impl<const BYTES: usize> Bump<BYTES> {
    pub(crate) const fn new() -> Self {
        Self { arena: Arena(UnsafeCell::new([0; BYTES])), used: AtomicUsize::new(0) }
    }

    fn start(&self) -> *mut u8 {
        self.arena.0.get().cast()
    }

    /// Where a pointer is in the arena; at least `BYTES` for one of the C library.
    fn offset(&self, pointer: *mut u8) -> usize {
        pointer.addr().wrapping_sub(self.start().addr())
    }

    /// Moves the end of what is in use, if it is still at `from`.
    fn move_end(&self, from: usize, to: usize) -> bool {
        self.used.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: of `GlobalAlloc`: a block is inside the arena, aligned by rounding up from an arena aligned to 64 (larger alignments
// go to `System`), and disjoint from all blocks in use, because `used` only shrinks to the start of the latest block when its
// owner frees or shrinks it. Blocks of `System` go back to `System`. Nothing here panics or allocates.
unsafe impl<const BYTES: usize> GlobalAlloc for Bump<BYTES> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut used = self.used.load(Ordering::Relaxed);
        if layout.size() < LARGEST_BYTES && layout.align() <= ARENA_ALIGN {
            loop {
                // An alignment is a power of two, so no division is needed.
                let start = (used + layout.align() - 1) & !(layout.align() - 1);
                let end = start + layout.size();
                if end > BYTES {
                    break;
                }
                match self.used.compare_exchange_weak(used, end, Ordering::Relaxed, Ordering::Relaxed) {
                    // SAFETY: `start + size` is at most `BYTES`, so the pointer stays inside the arena.
                    Ok(_) => return unsafe { self.start().add(start) },
                    Err(moved) => used = moved,
                }
            }
        }
        // SAFETY: the caller upholds the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let start = self.offset(pointer);
        if start < BYTES {
            self.move_end(start + layout.size(), start);
        } else {
            // SAFETY: a pointer outside the arena came from `System` with this layout.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let start = self.offset(pointer);
        if start >= BYTES {
            // SAFETY: a pointer outside the arena came from `System` with this layout.
            return unsafe { System.realloc(pointer, layout, size) };
        }
        let (old, new) = (start + layout.size(), start.saturating_add(size));
        if new <= BYTES && self.move_end(old, new) {
            return pointer;
        }
        if size <= layout.size() {
            return pointer;
        }
        // SAFETY: the caller guarantees that `size`, rounded up to the alignment, does not overflow; the alignment is a layout's.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: the old block has `layout.size()` bytes, the new one more, and they are disjoint.
            unsafe { std::ptr::copy_nonoverlapping(pointer, moved, layout.size()) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL_BYTES: usize = 256 << 10;
    type Small = Bump<SMALL_BYTES>;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Fills a block and says where in the arena it is.
    fn fill(bump: &Small, pointer: *mut u8, size: usize, byte: u8) -> usize {
        // SAFETY: the tests pass blocks that they were given, with their sizes.
        unsafe { std::ptr::write_bytes(pointer, byte, size) };
        bump.offset(pointer)
    }

    fn holds(pointer: *mut u8, size: usize, byte: u8) -> bool {
        // SAFETY: the tests pass blocks that they were given and have filled.
        unsafe { std::slice::from_raw_parts(pointer, size) }.iter().all(|found| *found == byte)
    }

    fn boxed() -> Box<Small> {
        Box::new(Bump::new())
    }

    #[test]
    fn blocks_are_aligned_disjoint_and_the_latest_returns_its_space() {
        let bump = boxed();
        // SAFETY: every block is used inside its size and freed with its layout.
        unsafe {
            let one = bump.alloc(layout(3, 1));
            let two = bump.alloc(layout(16, 16));
            assert_eq!(fill(&bump, one, 3, 1), 0);
            assert_eq!(fill(&bump, two, 16, 2), 16);
            assert!(two.addr().is_multiple_of(16) && holds(one, 3, 1));
            bump.dealloc(one, layout(3, 1));
            assert_eq!(bump.offset(bump.alloc(layout(8, 8))), 32, "space before the latest block is not used again");
            bump.dealloc(two, layout(16, 16));
            let three = bump.alloc(layout(8, 8));
            bump.dealloc(three, layout(8, 8));
            assert_eq!(bump.alloc(layout(8, 8)), three);
        }
    }

    #[test]
    fn the_latest_block_grows_in_place_and_others_move_with_their_bytes() {
        let bump = boxed();
        // SAFETY: as above.
        unsafe {
            let one = bump.alloc(layout(8, 8));
            fill(&bump, one, 8, 7);
            assert_eq!(bump.realloc(one, layout(8, 8), 100), one);
            let two = bump.alloc(layout(8, 8));
            let moved = bump.realloc(one, layout(100, 8), 200);
            assert!(moved != one && moved != two && holds(moved, 8, 7));
            assert_eq!(bump.realloc(moved, layout(200, 8), 50), moved);
            assert_eq!(bump.realloc(two, layout(8, 8), 4), two, "a block that is not the latest shrinks where it is");
        }
    }

    #[test]
    fn a_full_arena_and_large_blocks_are_served_by_the_c_library() {
        let bump = boxed();
        let piece = layout(LARGEST_BYTES / 2, 8);
        // SAFETY: as above.
        unsafe {
            let large = bump.alloc(layout(LARGEST_BYTES, 8));
            assert!(bump.offset(large) >= SMALL_BYTES);
            bump.dealloc(large, layout(LARGEST_BYTES, 8));
            let blocks: Vec<_> = (0u8..40).map(|n| (n, bump.alloc(piece))).collect();
            assert!(blocks.iter().any(|(_, block)| bump.offset(*block) >= SMALL_BYTES));
            for (n, block) in &blocks {
                fill(&bump, *block, piece.size(), *n);
            }
            assert!(blocks.iter().all(|(n, block)| holds(*block, piece.size(), *n)));
            blocks.iter().for_each(|(_, block)| bump.dealloc(*block, piece));
        }
    }

    #[test]
    fn threads_are_given_different_blocks() {
        let bump = boxed();
        let starts = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    // SAFETY: the blocks are never read, written or freed.
                    scope.spawn(|| (0..500).map(|_| bump.offset(unsafe { bump.alloc(layout(24, 8)) })).collect())
                })
                .collect();
            threads.into_iter().flat_map(|thread| -> Vec<usize> { thread.join().unwrap() }).collect::<Vec<_>>()
        });
        let different: std::collections::BTreeSet<_> = starts.iter().collect();
        assert_eq!(different.len(), 2000);
        assert!(starts.iter().all(|start| start.is_multiple_of(24)));
    }
}
