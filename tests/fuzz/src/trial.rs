//! One input for one parser: whether it panics, and how much memory it holds at most.
//!
//! Memory is seen only by a program whose global allocator is [`Counting`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::catch_unwind;

use crate::Target;

/// The system's allocator, with a count of what this thread holds.
#[derive(Debug)]
pub struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call is handed on to the system's allocator with the same arguments; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise for `alloc` is the one that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `pointer` came from `System.alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs one input; the error says what was wrong with it.
pub fn tried(target: &Target, input: &[u8]) -> Result<(), String> {
    HELD.set(0);
    MOST.set(0);
    catch_unwind(|| (target.run)(input)).map_err(|_| "panicked".to_owned())?;
    let most = usize::try_from(MOST.get()).unwrap_or(0);
    if most > target.max_memory_bytes {
        return Err(format!("held {most} bytes, its bound is {}", target.max_memory_bytes));
    }
    Ok(())
}
