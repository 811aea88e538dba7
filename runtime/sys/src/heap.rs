//! The program's memory: lists of free blocks by size, cut from large pieces. In: layouts. Out: blocks. Must never: give a
//! block out twice, or ask the kernel for each.
//!
//! musl's own allocator takes memory by the page, and gives it back at once: 46 system calls of a run, and as many pages
//! that the kernel has to clear. A run is over before anything would be worth giving back; what the services that stay
//! have freed is used again.
#![allow(unsafe_code)] // blocks of memory are pointers

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Each block begins at a multiple of this.
const ALIGN: usize = 16;
/// Larger blocks are the C library's.
const LARGEST: usize = 32 << 10;
/// Sizes of blocks: 16, 32, and so on to 128, then four for each doubling up to the largest.
const SIZES: usize = 40;
/// Taken from the C library at once.
const PIECE: usize = 128 << 10;

/// Where a free block says which is the next of its size.
struct Free(*mut Free);

struct Lists {
    free: [*mut Free; SIZES],
    /// What has not been cut yet.
    uncut: *mut u8,
    uncut_len: usize,
}

// SAFETY: the blocks belong to the lists alone, whichever thread holds them.
unsafe impl Send for Lists {}

/// To be a program's `#[global_allocator]`.
pub struct Heap(Mutex<Lists>);

impl Heap {
    /// Without any memory yet.
    #[expect(clippy::new_without_default, reason = "a static can't be made by Default")]
    pub const fn new() -> Self {
        Self(Mutex::new(Lists { free: [null_mut(); SIZES], uncut: null_mut(), uncut_len: 0 }))
    }
}

/// Which of the sizes holds so many bytes, and how large it is; None where the C library's allocator is asked.
fn size_for(layout: Layout) -> Option<(usize, usize)> {
    if layout.align() > ALIGN || layout.size() > LARGEST {
        return None;
    }
    let last = layout.size().saturating_sub(1);
    // The power of two above it, divided by eight, is the step between two sizes.
    let bits = (usize::BITS - (last | 127).leading_zeros()) as usize;
    let steps = (last >> (bits - 3)) + 1;
    Some(((bits - 7) * 4 + steps - 1, steps << (bits - 3)))
}

impl Lists {
    fn take(&mut self, index: usize, bytes: usize) -> *mut u8 {
        let block = self.free[index];
        if !block.is_null() {
            // SAFETY: what is in the list was a block of this size, and holds a `Free` since it was given back.
            self.free[index] = unsafe { (*block).0 };
            return block.cast();
        }
        if self.uncut_len < bytes {
            // What is left of the old piece stays unused: less than one block.
            // SAFETY: the size is not zero.
            let piece = unsafe { System.alloc(Layout::from_size_align_unchecked(PIECE, ALIGN)) };
            if piece.is_null() {
                return piece;
            }
            (self.uncut, self.uncut_len) = (piece, PIECE);
        }
        let block = self.uncut;
        // SAFETY: so many bytes of the piece are left, as was just seen to.
        self.uncut = unsafe { block.add(bytes) };
        self.uncut_len -= bytes;
        block
    }

    /// # Safety
    /// The block is of this size, came from `take` and is used no more.
    unsafe fn give(&mut self, index: usize, block: *mut u8) {
        let block = block.cast::<Free>();
        // SAFETY: the smallest block has room for it, and its alignment.
        unsafe { block.write(Free(self.free[index])) };
        self.free[index] = block;
    }
}

// SAFETY: a block has the size and the alignment that was asked for and is nobody else's until it is given back: `take`
// cuts each from a piece once, `give` puts it into the list of its own size. No call unwinds.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match size_for(layout) {
            Some((index, bytes)) => self.0.lock().unwrap_or_else(PoisonError::into_inner).take(index, bytes),
            // SAFETY: the caller's promises are the same.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match size_for(layout) {
            // SAFETY: the caller gives the layout that the block was asked for with.
            Some((index, _)) => unsafe {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).give(index, block);
            },
            // SAFETY: as above.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller sees to it that the size is none that overflows.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (size_for(layout), size_for(wanted)) {
            (Some(old), Some(new)) if old == new => block,
            // SAFETY: the caller's promises are the same.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            // SAFETY: both blocks are as long as the shorter of the two sizes, and one of them is new.
            _ => unsafe {
                let new = self.alloc(wanted);
                if !new.is_null() {
                    block.copy_to_nonoverlapping(new, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                new
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    #[test]
    fn a_size_holds_what_was_asked_for_and_wastes_a_quarter_at_most() {
        let mut before = None;
        for size in 1..=LARGEST {
            let (index, bytes) = size_for(layout(size)).unwrap();
            assert!(bytes >= size && index < SIZES && bytes % ALIGN == 0, "{size}: {index}, {bytes}");
            assert!(size <= 128 || bytes * 4 <= size * 5, "{size}: {bytes}");
            // Each size has an index of its own.
            let (index_before, bytes_before) = before.unwrap_or((index, bytes));
            assert_eq!(index == index_before, bytes == bytes_before, "{size}");
            assert!(index - index_before <= 1, "{size}");
            before = Some((index, bytes));
        }
        assert_eq!(size_for(layout(LARGEST)).unwrap(), (SIZES - 1, LARGEST));
        assert_eq!(size_for(layout(LARGEST + 1)), None);
        assert_eq!(size_for(Layout::from_size_align(8, 32).unwrap()), None);
    }

    /// Blocks of many sizes, from several threads: none overlaps another, and each keeps what was written.
    #[test]
    fn blocks_keep_what_is_in_them() {
        let heap = Heap::new();
        std::thread::scope(|scope| {
            for thread in 1..=4_u8 {
                let heap = &heap;
                scope.spawn(move || churn(heap, thread));
            }
        });
    }

    fn churn(heap: &Heap, thread: u8) {
        let mut held: Vec<(*mut u8, usize, u8)> = Vec::new();
        let mut state = usize::from(thread);
        for round in 0..4_000_usize {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let size = (state >> 33) % (LARGEST + 5000) / (1 + round % 40) + 1;
            let mark = thread.wrapping_mul(61).wrapping_add(round as u8);
            // SAFETY: each block is asked for, written within its size, and given back once with its own layout.
            unsafe {
                match round % 3 {
                    0 | 1 => {
                        let block = heap.alloc(layout(size));
                        assert!(!block.is_null() && block.addr().is_multiple_of(8));
                        block.write_bytes(mark, size);
                        held.push((block, size, mark));
                    }
                    _ => {
                        let (block, old, mark) = held.swap_remove((state >> 7) % held.len());
                        assert!((0..old).all(|at| *block.add(at) == mark));
                        let grown = heap.realloc(block, layout(old), size);
                        assert!((0..old.min(size)).all(|at| *grown.add(at) == mark));
                        heap.dealloc(grown, layout(size));
                    }
                }
            }
        }
        for (block, size, mark) in held {
            // SAFETY: as above.
            unsafe {
                assert!((0..size).all(|at| *block.add(at) == mark));
                heap.dealloc(block, layout(size));
            }
        }
    }
}
