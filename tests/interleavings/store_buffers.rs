//! Plain stores that others see late: pointers as `src/pool/hot/owned_cell.rs` uses them, under a memory model
//! that can fail.
//!
//! A thread's plain stores go into its **store buffer**, in order. They become visible to others at some later step
//! of that thread (chosen at random), at the latest when it exchanges something or takes a lock, or at anybody's
//! heavy fence. Its own loads see them at once. So `store; load` may be seen as `load; store`, as on every machine.
//!
//! And since the compiler may exchange a store with a load that comes after it, a store is only **issued** by what
//! comes next of: a light fence, an exchange, a lock. A heavy fence of another thread makes visible what was issued,
//! and nothing else. Without a light fence, the owner's two accesses are in effect exchanged.
//!
//! An exhaustive search takes no random choices: there, stores are seen at once.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr as RealPtr;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::{AtomicBool, Ordering};

/// What of the protocol is left out, to see that the model finds it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    None,
    NoHeavyFence,
    /// The compiler exchanges the owner's two accesses.
    NoLightFence,
}

/// A store of one thread's that others do not see yet.
struct Pending {
    place: Arc<RealPtr<()>>,
    value: *mut (),
    issued: bool,
}

#[derive(Default)]
struct Buffers {
    /// By thread.
    pending: HashMap<usize, VecDeque<Pending>>,
    delay: bool,
}

// All threads of an execution are coroutines of one thread.
std::thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
    static MUTATION: Cell<Mutation> = const { Cell::new(Mutation::None) };
}

/// An execution begins.
pub fn begin(delay: bool, mutation: Mutation) {
    MUTATION.set(mutation);
    let pending = HashMap::new();
    BUFFERS.set(Buffers { pending, delay });
}

fn me() -> usize {
    shuttle::current::me().into()
}

fn see(pending: Pending) {
    pending.place.store(pending.value, Ordering::SeqCst);
}

/// All that this thread has stored is seen by everybody.
pub fn flush() {
    BUFFERS.with_borrow_mut(|buffers| {
        let own = buffers.pending.remove(&me());
        own.into_iter().flatten().for_each(see);
    });
}

/// Some of what this thread has stored is.
fn flush_some() {
    let due = BUFFERS.with_borrow(|buffers| {
        let own = buffers.pending.get(&me());
        own.map_or(0, VecDeque::len)
    });
    for _ in 0..due {
        if thread_rng().gen_bool(0.5) {
            return;
        }
        BUFFERS.with_borrow_mut(|buffers| {
            let own = buffers.pending.get_mut(&me());
            if let Some(oldest) = own.and_then(VecDeque::pop_front) {
                see(oldest);
            }
        });
    }
}

pub fn light_fence() {
    if MUTATION.get() == Mutation::NoLightFence {
        return;
    }
    BUFFERS.with_borrow_mut(|buffers| {
        let own = buffers.pending.entry(me()).or_default();
        own.iter_mut().for_each(|store| store.issued = true);
    });
}

pub fn heavy_fence() -> bool {
    flush();
    if MUTATION.get() != Mutation::NoHeavyFence {
        BUFFERS.with_borrow_mut(|buffers| {
            for pending in buffers.pending.values_mut() {
                let issued = pending.iter().take_while(|store| store.issued).count();
                pending.drain(..issued).for_each(see);
            }
        });
    }
    true
}

/// Flushes when its thread ends: whoever joins it sees all that it did.
struct AtTheEnd;

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        flush();
    }
}

shuttle::thread_local! {
    static AT_THE_END: AtTheEnd = const { AtTheEnd };
}

/// As the standard library's.
pub struct AtomicPtr<P> {
    point: AtomicBool,
    /// What others see.
    place: Arc<RealPtr<()>>,
    _of: PhantomData<fn() -> P>,
}

impl<P> AtomicPtr<P> {
    pub fn new(value: *mut P) -> Self {
        Self {
            point: AtomicBool::new(false),
            place: Arc::new(RealPtr::new(value.cast())),
            _of: PhantomData,
        }
    }

    pub fn load(&self, _: Ordering) -> *mut P {
        self.point.load(Ordering::SeqCst);
        let own = BUFFERS.with_borrow(|buffers| {
            let own = buffers.pending.get(&me())?;
            let here = |store: &&Pending| Arc::ptr_eq(&store.place, &self.place);
            own.iter().rev().find(here).map(|store| store.value)
        });
        let value = own.unwrap_or_else(|| self.place.load(Ordering::SeqCst));
        flush_some();
        value.cast()
    }

    pub fn store(&self, value: *mut P, _: Ordering) {
        self.point.load(Ordering::SeqCst);
        flush_some();
        let store = Pending {
            place: self.place.clone(),
            value: value.cast(),
            issued: false,
        };
        if !BUFFERS.with_borrow(|buffers| buffers.delay) {
            return see(store);
        }
        _ = AT_THE_END.try_with(|_| ());
        BUFFERS.with_borrow_mut(|buffers| {
            let own = buffers.pending.entry(me()).or_default();
            own.push_back(store);
        });
    }

    pub fn swap(&self, value: *mut P, _: Ordering) -> *mut P {
        self.point.load(Ordering::SeqCst);
        flush();
        self.place.swap(value.cast(), Ordering::SeqCst).cast()
    }
}
