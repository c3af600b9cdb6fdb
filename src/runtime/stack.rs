//! What a call needs of the stack that it is made on.
//!
//! Wasmtime lets a guest use `max_wasm_stack` bytes below the host's frame, whether the stack has them
//! or not; on a stack that has less, a fault ends the process. So every way into a guest checks first.
//!
//! A thread may be on its own stack, on a fiber's that the pool has made, on a segment that `stacker`
//! has put in, or on one that nobody here knows. The first two are remembered: the one is there for as
//! long as the thread is, the other is forgotten when its fiber is left. Segments are asked for each
//! time, since another may take the place of one that is gone.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use super::raw;
use super::stack_quota::StackQuota;
use crate::sync::thread_local;

/// Host frames that may run above the guest's deepest one: signal handling, host functions.
const MARGIN: usize = 128 << 10;
/// What the pool and wasmtime need to begin something for a task: its guest has a stack of its own.
const TASK_FRAMES: usize = 64 << 10;

/// Too little is left of the stack for a guest call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct StackTooSmall {
    /// Bytes left on the stack that the call was made on.
    pub available: usize,
    /// Bytes a call needs: the engine's `max_wasm_stack` and 128 KiB for the host's own frames; as a
    /// task, on a stack of its own, 64 KiB for what begins it.
    pub needed: usize,
}

impl fmt::Display for StackTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { available, needed } = self;
        write!(
            f,
            "{available} bytes of stack are left and a guest call may need {needed}: give the thread a \
             larger stack (or a task, by async_stack_size), or the engine a smaller max_wasm_stack"
        )
    }
}

impl std::error::Error for StackTooSmall {}

/// Where a stack lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StackBounds {
    low: usize,
    /// 0 if it is not known.
    size: usize,
}

impl StackBounds {
    const UNKNOWN: Self = Self { low: 0, size: 0 };

    pub fn new(range: Range<usize>) -> Self {
        Self {
            low: range.start,
            size: range.len(),
        }
    }

    pub fn start(&self) -> usize {
        self.low
    }

    pub fn end(&self) -> usize {
        self.low + self.size
    }

    /// Bytes from its lower end to `here`, if that is on it.
    #[inline]
    pub fn below(&self, here: usize) -> Option<usize> {
        let below = here.wrapping_sub(self.low);
        (below < self.size).then_some(below)
    }
}

thread_local! {
    /// A stack that this thread is or was on: its own, or one of a quota that is open.
    static CURRENT: Cell<StackBounds> = const { Cell::new(StackBounds::UNKNOWN) };
    /// The thread's own; `None` before it was asked for.
    static OWN: Cell<Option<StackBounds>> = const { Cell::new(None) };
}

/// Looks at the stack before every guest call: about a nanosecond.
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

    /// Before a guest is called on this stack. An error if too little of it is known to be left; on
    /// a stack that nobody knows (a fiber of the host's), nothing is refused.
    #[inline]
    pub fn check(&self) -> Result<(), StackTooSmall> {
        has_room(self.needed)
    }

    /// Calls a guest where there may be too little stack for it: then on a segment of `stacker`'s, as long as it
    /// takes.
    #[cfg(feature = "warm-up")]
    pub fn with_room<R>(&self, call: impl FnOnce() -> R) -> R {
        match self.check() {
            Ok(()) => call(),
            Err(_) => stacker::grow(self.needed.saturating_add(MARGIN), call),
        }
    }

    /// Before something is begun for a task, whose guest will run on a stack of its own.
    #[inline]
    pub fn check_for_task(&self) -> Result<(), StackTooSmall> {
        has_room(TASK_FRAMES)
    }
}

#[inline]
fn has_room(needed: usize) -> Result<(), StackTooSmall> {
    let here = 0u8;
    let here = (&raw const here).addr();
    let available = match CURRENT.with(Cell::get).below(here) {
        Some(available) => available,
        None => find_stack(here).unwrap_or(usize::MAX),
    };
    if available < needed {
        return Err(StackTooSmall { available, needed });
    }
    Ok(())
}

/// Finds the stack that `here` is on, and what is left of it.
#[cold]
fn find_stack(here: usize) -> Option<usize> {
    let own = own();
    let known = Some(own).filter(|own| own.below(here).is_some());
    let known = known.or_else(|| StackQuota::open_stack(here));
    if let Some(stack) = known {
        CURRENT.with(|current| current.set(stack));
        return stack.below(here);
    }
    let left = stacker::remaining_stack().filter(|left| *left > 0)?;
    // If stacker speaks of the thread's own stack, this is one that it does not know.
    let is_of_own = own.below(here.saturating_sub(left)).is_some();
    (!is_of_own).then_some(left)
}

fn own() -> StackBounds {
    OWN.with(|own| {
        own.get().unwrap_or_else(|| {
            let found = raw::own_stack().map_or(StackBounds::UNKNOWN, StackBounds::new);
            own.set(Some(found));
            found
        })
    })
}

/// What is remembered now, to be put back by [`remember`] when what comes next is over.
pub(super) fn remembered() -> StackBounds {
    CURRENT.with(Cell::get)
}

pub(super) fn remember(stack: StackBounds) {
    CURRENT.with(|current| current.set(stack));
}

/// The stack will not be there any more.
pub(super) fn forget(stack: StackBounds) {
    if remembered() == stack {
        remember(StackBounds::UNKNOWN);
    }
}
