//! `src/pool/hot/owned_cell.rs` alone: on this machine's memory and compiler, with heavy fences and without, and
//! under miri (`.ci/miri`). `tests/owned_cell_model.rs` runs it under a memory model.
//!
//! `WASM_POOL_LITMUS_SECONDS` sets how long each litmus test runs.
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    reason = "it includes the library's sources, and uses some of them"
)]

#[path = "../../src/sync.rs"]
mod sync;
#[path = "../../src/pool"]
mod pool {
    pub mod hot {
        pub mod owned_cell;
        pub mod thread;
    }
}

mod slot;

use std::hint;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use pool::hot::owned_cell::{Found, OwnedCell};
use pool::hot::thread::become_owner;
use slot::Slot;
use sync::has_heavy_fences;

/// The one thread of a slot leases from it, the other wants to know when a lease ends.
fn ask_again_and_again(slot: &Slot) -> [u64; 2] {
    let (mut idle, mut leased) = (0_u64, 0);
    while !slot.over.load(Ordering::Relaxed) {
        // The other comes to own it again.
        (0..idle.wrapping_mul(31) % 300).for_each(|_| hint::spin_loop());
        if !slot.ask() {
            idle += 1;
            continue;
        }
        leased += 1;
        // That lease has ended by now, or is the next to end.
        let ended = slot.ended.load(Ordering::Acquire);
        while slot.notifies.load(Ordering::Acquire) && !slot.over.load(Ordering::Relaxed) {
            assert!(
                slot.ended.load(Ordering::Acquire) == ended
                    || !slot.notifies.load(Ordering::Acquire),
                "nobody reported the end of a lease"
            );
            hint::spin_loop();
        }
    }
    [idle, leased]
}

fn seconds() -> Duration {
    let seconds = std::env::var("WASM_POOL_LITMUS_SECONDS");
    let seconds = seconds.map_or(1.0, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs_f64(if cfg!(miri) { 0.01 } else { seconds })
}

/// Each pair of accesses that could overtake one another meets the other side's.
#[test]
fn nothing_is_taken_twice_and_every_end_is_reported() {
    let slot = Slot::new();
    let asked = thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            while began.elapsed() < seconds() && !thread::panicking() {
                (0..100).for_each(|_| slot.lease(true));
            }
            slot.over.store(true, Ordering::Relaxed);
        });
        let asker = scope.spawn(|| {
            struct Over<'a>(&'a Slot);
            impl Drop for Over<'_> {
                fn drop(&mut self) {
                    self.0.over.store(true, Ordering::Relaxed);
                }
            }
            let _over = Over(&slot);
            ask_again_and_again(&slot)
        });
        asker.join().expect("every end is reported")
    });
    println!(
        "{} leases; [found idle, found leased]: {asked:?}; heavy fences: {}",
        slot.ended.load(Ordering::Relaxed),
        has_heavy_fences()
    );
    slot.finish();
}

/// Three threads lease from two slots, and own them by turns.
#[test]
fn slots_change_hands() {
    let slots = [Slot::new(), Slot::new()];
    thread::scope(|scope| {
        for from in 0..3 {
            let slots = &slots;
            scope.spawn(move || {
                let began = Instant::now();
                let mut round = from;
                while began.elapsed() < seconds() {
                    round += 1;
                    (0..round % 7).for_each(|_| slots[round / 7 % 2].lease(round % 3 > 0));
                }
            });
        }
    });
    slots.iter().for_each(Slot::finish);
}

/// On one thread no fence is needed, so that miri runs this as well.
#[test]
fn an_owner_takes_and_puts_and_is_revoked() {
    let cell = OwnedCell::new();
    cell.put_shared(Box::new(String::from("kept")));
    let Found::Shared(value) = cell.take() else {
        panic!("it lies there");
    };
    assert!(cell.is_empty());
    cell.lend(become_owner().expect("this thread is not ending"));
    for _ in 0..3 {
        let value = match cell.take() {
            Found::Own(value) => value,
            Found::Nothing => value.clone(),
            Found::Shared(_) | Found::Revoked => panic!("it has an owner"),
        };
        assert!(cell.put(value) && !cell.is_empty());
    }
    // What ends elsewhere lies beside what is its own, and is found there.
    let Found::Own(value) = cell.take() else {
        panic!("it was put here");
    };
    thread::scope(|scope| _ = scope.spawn(|| assert!(cell.put(value))));
    let Found::Shared(value) = cell.take() else {
        panic!("it was put there");
    };
    assert!(cell.put(value));
    OwnedCell::revoke(iter::once(&cell));
    assert!(!cell.has_owner());
    let Found::Shared(value) = cell.take() else {
        panic!("it was moved");
    };
    assert!(cell.put(value));
    cell.take_shared().map(drop).expect("it is shared now");
    cell.put_shared(Box::default());
}

/// A thread has ended with a value in its cell, another with a cell that it lent to nobody.
#[test]
fn what_ended_threads_leave_is_found() {
    let slot = Arc::new(Slot::new());
    let leases = slot.clone();
    let lease = move || (0..3).for_each(|_| leases.lease(true));
    thread::spawn(lease).join().unwrap();
    assert_eq!(slot.cell.has_owner(), has_heavy_fences());
    slot.lease(false);
    assert!(!slot.cell.has_owner());
    slot.finish();
}
