//! Hostile modules, one after the other and several at once, beside good tenants.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wasm_pool::{Budget, Dynamic, Function};

#[allow(dead_code, reason = "of the example, which uses all of it")]
#[path = "../../examples/strangers/memory.rs"]
mod host_memory;

use crate::common::child::is_child;
use crate::common::hostile::nth;
use crate::common::*;
use crate::{alone, builder, children, helper, memory};

/// Bytes for compiling.
const COMPILE: u64 = 256 << 20;
/// For one compilation.
const TIME: Duration = Duration::from_secs(2);

/// `WASM_POOL_STRANGERS` sets their number.
fn count() -> u64 {
    let set = std::env::var("WASM_POOL_STRANGERS").ok();
    set.map_or(60, |count| count.parse().expect("it is a number"))
}

#[test]
fn strangers_hurt_nobody_but_themselves() {
    // While the child runs as well: it is a process of this one's, and others count those.
    let _alone = alone();
    // Of further arenas glibc gives back what is free between blocks, and not what is free behind the last.
    let test = "strangers::strangers_hurt_nobody_but_themselves";
    if !is_child(test, "export MALLOC_ARENA_MAX=1") {
        return;
    }
    let (done, watched) = (AtomicBool::new(false), AtomicU64::new(0));
    // No stranger may have all that there is for compiling.
    let process = (helper().time_limit(TIME))
        .first_cap(16 << 20)
        .max_cap(COMPILE / 2);
    let pool = builder(COMPILE, process)
        .max_compilations(3)
        .build()
        .unwrap();
    let before = charges(&pool);
    let this = std::process::id();
    let resident = || ["RssAnon:", "RssFile:"].map(|kind| memory(this, kind).unwrap());
    // What was freed goes back when glibc is asked; of other allocators this cannot know.
    let resident_after_asking = || {
        host_memory::give_back();
        resident()
    };
    let (mut at_first, mut longest) = ([0; 2], Duration::ZERO);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let held = children()
                    .into_iter()
                    .filter_map(|child| memory(child, "RssAnon:"));
                watched.fetch_max(held.sum(), Ordering::Relaxed);
                thread::park_timeout(Duration::from_millis(1));
            }
        });
        let good = scope.spawn(|| {
            let mut answer = 0;
            while !done.load(Ordering::Relaxed) {
                answer += 1;
                let f = define(&pool, "good", answering(answer));
                assert_eq!(f.call("good", ()).unwrap(), answer);
                pool.remove("good").unwrap();
            }
            answer
        });
        for n in 0..count() {
            let (kind, wasm) = nth(n, 60_000);
            let began = Instant::now();
            let definition = wasm_pool::Definition::new("stranger")
                .wasm(wasm)
                .export("f");
            if let Ok(f) = pool.define::<Dynamic, Dynamic>(definition) {
                let outcome = f.prepare();
                longest = longest.max(began.elapsed());
                if let Err(error) = outcome {
                    assert!(
                        !matches!(error, wasm_pool::AcquireError::Timeout { .. }),
                        "{kind:?}: {error}"
                    );
                }
                pool.remove("stranger").unwrap();
            }
            if n == 20 {
                at_first = resident_after_asking();
            }
        }
        done.store(true, Ordering::Relaxed);
        let answers = good.join().unwrap();
        assert!(answers > 0);
        println!("{} modules; {answers} good ones beside them", count());
    });
    let stats = check(&pool);
    println!(
        "{:?}, {} crashes, longest {longest:?}",
        stats.compiler_kills, stats.compiler_crashes
    );
    println!(
        "charged to compile at most {}, held by processes at most {}",
        stats.budget(Budget::Compile).peak,
        watched.load(Ordering::Relaxed)
    );
    let grown = |now: [u64; 2]| [0, 1].map(|kind| now[kind].saturating_sub(at_first[kind]));
    let (unasked, grown) = (grown(resident()), grown(resident_after_asking()));
    println!(
        "grown by {grown:?} bytes of its own, and of files; before the allocator was asked, by {unasked:?}"
    );
    if cfg!(target_env = "gnu") {
        assert!(grown[0] <= 1 << 20, "{grown:?}");
    }
    assert!(watched.load(Ordering::Relaxed) <= COMPILE);
    pool.sweep();
    assert_eq!(charges(&pool), before);
    let _: Option<Function> = None;
}
