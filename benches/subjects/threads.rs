//! Two threads at once; times are per operation of one thread.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use wasm_pool::Pool;

use super::{Subject, by_hand, pool, pool_of, sums};

/// Both threads do their work at once; the mean of what they took. `work` is told which thread it
/// is and how often; it is run a little before, to be warm.
pub fn two(name: &'static str, work: impl Fn(usize, u64) -> Duration + Sync + 'static) -> Subject {
    Subject::new(name, move |n| {
        let barrier = Barrier::new(2);
        let run = |thread| {
            work(thread, n.min(1000));
            barrier.wait();
            work(thread, n)
        };
        let (a, b) = thread::scope(|scope| {
            let other = scope.spawn(|| run(1));
            (run(0), other.join().expect("no panic"))
        });
        (a + b) / 2
    })
}

fn held_by_each() -> [Mutex<by_hand::Held>; 2] {
    [(); 2].map(|()| Mutex::new(by_hand::instance()))
}

/// The baseline: each thread calls an instance of its own.
pub fn bare() -> Subject {
    let held = held_by_each();
    two("bare calls", move |thread, n| {
        let mut held = held[thread].lock().expect("no panic");
        sums(n, &mut |a, b| held.bare(a, b))
    })
}

pub fn by_hand() -> Vec<Subject> {
    let vec = by_hand::MutexVec::new(2);
    let queue = by_hand::Queue::new(2);
    let map = by_hand::LockedMap::new([("math.add", 0), ("math.add", 1)]);
    vec![
        two("Mutex<Vec> of 2", move |_, n| {
            sums(n, &mut |a, b| vec.call(a, b))
        }),
        two("ArrayQueue of 2", move |_, n| {
            sums(n, &mut |a, b| queue.call(a, b))
        }),
        two(
            "RwLock<HashMap<_, Arc<Mutex>>>, 2 keys",
            move |thread, n| sums(n, &mut |a, b| map.call(("math.add", thread as u64), a, b)),
        ),
    ]
}

pub fn different_entries() -> Subject {
    let (_, add) = pool();
    let groups = [add.in_group(0), add.in_group(1)];
    two("2 entries, resolved", move |thread, n| {
        let group = &groups[thread];
        sums(n, &mut |a, b| group.call((a, b)).expect("adds"))
    })
}

pub fn different_keys() -> Subject {
    let (_, add) = pool();
    two("2 entries, by function and group", move |thread, n| {
        sums(n, &mut |a, b| {
            add.call(thread as u64, (a, b)).expect("adds")
        })
    })
}

/// One entry; as many instances as threads.
pub fn one_entry() -> Subject {
    let (_, add) = pool_of(Pool::builder().max_instances_per_entry(2));
    let group = add.in_group(0);
    two("1 entry with 2 instances", move |_, n| {
        sums(n, &mut |a, b| group.call((a, b)).expect("adds"))
    })
}

/// One instance for two threads: every call waits for the other's, or overtakes it.
pub fn one_instance() -> Vec<Subject> {
    let (_, add) = pool_of(Pool::builder().max_instances_per_entry(1));
    let group = add.in_group(0);
    let held = Mutex::new(by_hand::instance());
    vec![
        two("Mutex<Instance>, 1 for both", move |_, n| {
            sums(n, &mut |a, b| held.lock().expect("no panic").call(a, b))
        }),
        two("1 entry with 1 instance", move |_, n| {
            sums(n, &mut |a, b| group.call((a, b)).expect("adds"))
        }),
    ]
}

/// What two threads that share one instance wait for it, at the median, at p99, and at most.
pub struct Waits {
    pub median: Duration,
    pub p99: Duration,
    pub longest: Duration,
}

fn waits(n: u64, call: impl Fn(i64) + Sync) -> Waits {
    let barrier = Barrier::new(2);
    let one = || {
        barrier.wait();
        let times = (0..n as i64).map(|i| {
            let began = Instant::now();
            call(i);
            began.elapsed()
        });
        times.collect::<Vec<_>>()
    };
    let mut times = thread::scope(|scope| {
        let other = scope.spawn(one);
        let mut times = one();
        times.extend(other.join().expect("no panic"));
        times
    });
    times.sort();
    Waits {
        median: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
        longest: times[times.len() - 1],
    }
}

/// Of the pool, first come first served, and of a mutex, which is not.
pub fn waits_for_one_instance(n: u64) -> [Waits; 2] {
    let (_, add) = pool_of(Pool::builder().max_instances_per_entry(1));
    let group = add.in_group(0);
    let held = Mutex::new(by_hand::instance());
    [
        waits(n, |i| {
            group.call((i, 1)).expect("adds");
        }),
        waits(n, |i| {
            held.lock().expect("no panic").call(i, 1);
        }),
    ]
}

/// A cache line to the other thread and back: two-thread figures depend on how near the machine's
/// processors happen to be.
pub fn round_trip() -> Subject {
    Subject::new("cache line, there and back", |n| {
        let ball = Arc::new(AtomicU64::new(0));
        let other = ball.clone();
        let returns = thread::spawn(move || {
            for i in 0..n {
                while other.load(Ordering::Acquire) != 2 * i + 1 {
                    spin_loop();
                }
                other.store(2 * i + 2, Ordering::Release);
            }
        });
        let began = Instant::now();
        for i in 0..n {
            ball.store(2 * i + 1, Ordering::Release);
            while ball.load(Ordering::Acquire) != 2 * i + 2 {
                spin_loop();
            }
        }
        let took = began.elapsed();
        returns.join().expect("no panic");
        took
    })
}
