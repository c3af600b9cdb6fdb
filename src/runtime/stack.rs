//! What a synchronous call needs of its caller's stack.
//!
//! Wasmtime lets a guest use `max_wasm_stack` bytes below the host's frame, whether the thread has
//! them or not; a thread that has less is ended by a fault, and the process with it. So every call
//! looks first.

use std::cell::Cell;
use std::fmt;

/// Host frames that may run above the guest's deepest one: signal handling, host functions.
const MARGIN: usize = 128 << 10;

/// The thread has too little stack left for a guest call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackTooSmall {
    /// Bytes left on the calling thread's stack.
    pub available: usize,
    /// Bytes a call needs: the engine's `max_wasm_stack` and 128 KiB for the host's own frames.
    pub needed: usize,
}

impl fmt::Display for StackTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { available, needed } = self;
        write!(
            f,
            "the thread has {available} bytes of stack left and a guest call may need {needed}: \
             give the thread a larger stack, or the engine a smaller max_wasm_stack"
        )
    }
}

impl std::error::Error for StackTooSmall {}

thread_local! {
    /// The lowest address of this thread's stack: 0 before it was asked for, and 1 when the
    /// system does not know.
    static LOWEST: Cell<usize> = const { Cell::new(0) };
}

/// Looks at the caller's stack before every guest call: about a nanosecond.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StackCheck {
    needed: usize,
}

impl StackCheck {
    pub fn new(max_wasm_stack: usize) -> Self {
        Self {
            needed: max_wasm_stack.saturating_add(MARGIN),
        }
    }

    /// An error if the thread is known to have too little stack left. On a stack that is not the
    /// thread's own (a fiber of the host's), nothing is known, and nothing is refused.
    #[inline]
    pub fn check(&self) -> Result<(), StackTooSmall> {
        let here = 0u8;
        let here = (&raw const here).addr();
        let lowest = match LOWEST.get() {
            0 => find_lowest(here),
            lowest => lowest,
        };
        let available = here.wrapping_sub(lowest);
        // Below the thread's stack, the difference wraps to something huge.
        if available < self.needed {
            return Err(StackTooSmall {
                available,
                needed: self.needed,
            });
        }
        Ok(())
    }
}

#[cold]
fn find_lowest(here: usize) -> usize {
    match stacker::remaining_stack() {
        // Below the thread's own stack: on another, of which nothing is known. Ask again next time.
        Some(0) => 1,
        Some(remaining) => {
            LOWEST.set(here.saturating_sub(remaining).max(1));
            LOWEST.get()
        }
        None => {
            LOWEST.set(1);
            1
        }
    }
}
