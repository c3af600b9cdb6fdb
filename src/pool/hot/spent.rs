//! Where an instance that is leased once is left when its lease ends: its holder goes on, and the recycler (or whoever
//! takes the pool's lock next) ends it.
//!
//! # Nobody waits beside it
//!
//! Who waits for an instance, or for room, has told the entry or the slot so, under the pool's lock, before it looks into
//! this queue, under the same lock. The end of a lease looks at entry and slot, leaves its instance here, and
//! looks at both once more. The queue's own lock orders the two: if the instance came first, who waits finds it; if it
//! came second, its second look sees what was told, and it takes the pool's lock, where the queue is emptied.

use crate::sync::Mutex;

/// More than so many are not left here: whoever comes then ends its instance itself.
const MOST: usize = 256;
/// So many wake a recycler that only naps.
const MANY: usize = 16;

/// Instances (`I`) whose one lease has ended.
pub(crate) struct Spent<I> {
    queue: Mutex<Queue<I>>,
}

struct Queue<I> {
    instances: Vec<I>,
    recycler: Recycler,
}

/// What the recycler does.
#[derive(Clone, Copy, PartialEq)]
enum Recycler {
    /// There is none: nothing is left here.
    Absent,
    Works,
    /// It looks again in a moment.
    Naps,
    /// It waits to be woken.
    Sleeps,
}

/// What an instance was left for.
pub(crate) enum Left {
    ToRecycler,
    /// It has to be woken.
    ToSleeper,
}

impl<I> Spent<I> {
    pub fn new() -> Self {
        Self {
            queue: Mutex::new(Queue {
                instances: Vec::new(),
                recycler: Recycler::Absent,
            }),
        }
    }

    /// There is a recycler from now on.
    pub fn open(&self) {
        self.queue.lock().recycler = Recycler::Works;
    }

    /// There is none any more; what is here stays to be taken.
    pub fn close(&self) {
        self.queue.lock().recycler = Recycler::Absent;
    }

    pub fn is_open(&self) -> bool {
        self.queue.lock().recycler != Recycler::Absent
    }

    /// Leaves an instance here; gives it back if that cannot be.
    pub fn leave(&self, spent: I) -> Result<Left, I> {
        let mut queue = self.queue.lock();
        if queue.recycler == Recycler::Absent || queue.instances.len() >= MOST {
            return Err(spent);
        }
        queue.instances.push(spent);
        let wakes = match queue.recycler {
            Recycler::Absent | Recycler::Works => false,
            Recycler::Naps => queue.instances.len() >= MANY,
            Recycler::Sleeps => true,
        };
        if !wakes {
            return Ok(Left::ToRecycler);
        }
        queue.recycler = Recycler::Works;
        Ok(Left::ToSleeper)
    }

    /// Takes out all that are here.
    pub fn take(&self) -> Vec<I> {
        self.queue.lock().instances.drain(..).collect()
    }

    /// The recycler has nothing to do. False if something was left here just now.
    pub fn begin_rest(&self, is_long: bool) -> bool {
        let mut queue = self.queue.lock();
        let may_rest = queue.instances.is_empty();
        if may_rest && queue.recycler != Recycler::Absent {
            queue.recycler = match is_long {
                true => Recycler::Sleeps,
                false => Recycler::Naps,
            };
        }
        may_rest
    }

    /// Whether the recycler sleeps: it does not any more, and has to be told.
    pub fn wake_sleeper(&self) -> bool {
        let mut queue = self.queue.lock();
        let sleeps = queue.recycler == Recycler::Sleeps;
        if sleeps {
            queue.recycler = Recycler::Works;
        }
        sleeps
    }

    pub fn end_rest(&self) {
        let mut queue = self.queue.lock();
        if queue.recycler != Recycler::Absent {
            queue.recycler = Recycler::Works;
        }
    }
}
