//! Requests that wait for room never wait for each other, and never sleep beside room.

use std::thread;
use std::time::Duration;

use crate::common::{check, check_empty, guest, memory_module};
use wasm_pool::{Definition, Function, Limits, Pool};

/// Longer than anything here takes: who waits as long was forgotten.
const FOR_EVER: Duration = Duration::from_secs(20);

/// Each thread leases its function so often, for its group, on a pool that is too small for all.
fn take_turns(pool: &Pool, leases: &[(&Function, u64)], rounds: usize) {
    thread::scope(|scope| {
        for (function, group) in leases {
            scope.spawn(move || {
                for _ in 0..rounds {
                    drop(
                        function
                            .acquire_with(*group, crate::common::room_within(FOR_EVER))
                            .unwrap(),
                    );
                    thread::yield_now();
                }
            });
        }
    });
    assert_eq!(check(pool).waiting, 0);
    pool.close();
    check_empty(pool);
}

fn pool(limits: Limits) -> Pool {
    Pool::builder()
        .idle_timeout(None)
        .limits(limits)
        .no_housekeeper()
        .build()
        .unwrap()
}

fn define(pool: &Pool, name: &str, wasm: Vec<u8>, export: &str) -> Function {
    let definition = Definition::new(name).wasm(wasm).export(export);
    pool.define(definition).unwrap()
}

#[test]
fn two_modules_with_room_for_one_instance() {
    let pool = pool(Limits::new().memory(1_600_000));
    let markdown = define(&pool, "markdown", guest("text_markdown"), "markdown");
    let json = define(&pool, "json", guest("json_extract"), "extract");
    take_turns(&pool, &[(&markdown, 1), (&json, 1)], 20);
}

#[test]
fn two_modules_with_room_for_the_code_of_one() {
    let pool = pool(Limits::new().code(100_000));
    let sha = define(&pool, "sha", guest("hash_sha256"), "sha256");
    let soundex = define(&pool, "soundex", guest("text_soundex"), "soundex");
    take_turns(&pool, &[(&sha, 1), (&soundex, 1)], 10);
}

#[test]
fn two_groups_with_room_for_one_instance() {
    let pool = pool(Limits::new().memory(100_000));
    let f = define(&pool, "f", memory_module(1, 0), "f");
    take_turns(&pool, &[(&f, 1), (&f, 2)], 300);
}

#[test]
fn pinned_code_and_memory_under_one_total() {
    // Code of both and one instance fit, or one instance and its code, but not all.
    let pool = pool(Limits::new().total(4_300_000 + 90_000));
    let f = define(&pool, "f", memory_module(1, 0), "f");
    let g = define(&pool, "g", memory_module(1, 1), "f");
    let h = define(&pool, "h", memory_module(1, 2), "f");
    take_turns(&pool, &[(&f, 1), (&g, 1), (&h, 1), (&f, 2)], 50);
}
