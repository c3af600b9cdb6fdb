//! Evicting what is idle: one by one as room is needed, and by the housekeeper.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use wasm_pool::{Budget, Definition, Dynamic, Function, Limits, ManualClock, Pool};
use wasmtime::{Instance, Module, Store};

use super::{ADD, SOUNDEX, Subject, by_hand};

/// Instances idle in one pool, each in a group of its own, on a clock that stands still.
struct Idle {
    pool: Pool,
    function: Function<Dynamic, Dynamic>,
    clock: ManualClock,
}

const TIMEOUT: Duration = Duration::from_secs(60);

impl Idle {
    fn new(name: &str, guest: &[u8]) -> Self {
        let clock = ManualClock::new();
        let pool = Pool::builder()
            .limits(Limits::new().with(Budget::Mappings, None))
            .clock(clock.clone())
            .no_housekeeper()
            .max_instances_per_entry(1)
            .idle_timeout(TIMEOUT)
            .build()
            .expect("a plain pool");
        let definition = Definition::new(name).wasm(guest);
        let function = pool.define(definition).expect("a good guest");
        Self {
            pool,
            function,
            clock,
        }
    }

    /// Of a guest without a memory: ten thousand memories are nearly all the mappings that a process
    /// may have.
    fn without_memory() -> Self {
        Self::new("math.add", ADD)
    }

    fn fill(&self, groups: std::ops::Range<u64>) {
        groups.for_each(|group| drop(self.function.acquire(group).expect("room")));
    }
}

/// So many instances idle, and one more; each lowering of the limit by one instance's memory evicts
/// the one that was used least recently.
pub fn one_by_one(count: u64) -> Duration {
    let idle = Idle::new("text.soundex", SOUNDEX);
    idle.fill(0..count + 1);
    let charged = idle.pool.stats().budget(Budget::Memory).charged;
    let each = charged / (count + 1);
    let began = Instant::now();
    for left in (1..=count).rev() {
        let limits = Limits::new()
            .with(Budget::Mappings, None)
            .memory(left * each);
        idle.pool
            .set_limits(limits)
            .expect("a limit that makes sense");
    }
    let took = began.elapsed();
    assert_eq!(idle.pool.stats().evictions, count);
    took
}

/// The baseline: dropping as many stores.
pub fn stores_dropped(count: u64) -> Duration {
    let stores: Vec<_> = stores(SOUNDEX).take(count as usize).collect();
    let began = Instant::now();
    stores.into_iter().for_each(drop);
    began.elapsed()
}

fn stores(guest: &[u8]) -> impl Iterator<Item = Box<Store<()>>> + use<> {
    let engine = by_hand::engine();
    let module = Module::new(&engine, guest).expect("the guest compiles");
    std::iter::repeat_with(move || {
        let mut store = Store::new(&engine, ());
        Instance::new(&mut store, &module, &[]).expect("the guest imports nothing");
        Box::new(store)
    })
}

/// Sweeps over 10,000 idle instances, of which 1 % have expired each time.
pub fn sweeps() -> Subject {
    const COUNT: u64 = 10_000;
    const EXPIRED: u64 = COUNT / 100;
    let idle = Idle::without_memory();
    // A hundred groups of instances, each used a little later than the one before.
    let step = TIMEOUT / 100;
    for hundred in 0..100 {
        idle.clock.advance(step);
        idle.fill(hundred * EXPIRED..(hundred + 1) * EXPIRED);
    }
    let mut next = COUNT;
    Subject::new("sweep over 10,000 idle, 1 % of them expired", move |n| {
        let mut took = Duration::ZERO;
        for _ in 0..n {
            let before = idle.pool.stats().evictions;
            idle.clock.advance(step);
            let began = Instant::now();
            idle.pool.sweep();
            took += began.elapsed();
            assert_eq!(idle.pool.stats().evictions - before, EXPIRED);
            idle.fill(next..next + EXPIRED);
            next += EXPIRED;
        }
        took
    })
}

/// A sweep that finds nothing to do.
pub fn idle_sweeps() -> Subject {
    let idle = Idle::without_memory();
    idle.fill(0..10_000);
    Subject::repeats("sweep over 10,000 idle, none expired", move || {
        idle.pool.sweep();
    })
}

/// The baseline of a sweep: dropping the hundred oldest of 10,000 stores.
pub fn hundred_stores_dropped() -> Subject {
    let mut new = stores(ADD);
    let mut kept: VecDeque<_> = new.by_ref().take(10_000).collect();
    Subject::new("100 of 10,000 stores dropped", move |n| {
        let mut took = Duration::ZERO;
        for _ in 0..n {
            let began = Instant::now();
            kept.drain(..100).for_each(drop);
            took += began.elapsed();
            kept.extend(new.by_ref().take(100));
        }
        took
    })
}
