//! Processes that stand still, are killed, or are left behind.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use wasm_pool::{AcquireError, CallError, CompilerError, ModuleError, Pool};

use crate::common::*;
use crate::{alone, builder, children, children_of, define_bomb, descriptors, helper, memory};

fn signal(process: u32, signal: &str) {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {process}")])
        .status();
    assert!(sent.unwrap().success());
}

/// The process of the only compilation that goes on, when it has one.
pub fn compiling(pool: &Pool) -> u32 {
    let process = || {
        let list = pool.stats().compilations_in_flight;
        assert!(list.len() < 2, "{list:?}");
        list.first().and_then(|compilation| compilation.process)
    };
    until(|| process().is_some());
    process().unwrap()
}

#[test]
fn a_process_that_stands_still_ends_with_its_time() {
    let _alone = alone();
    let process = helper()
        .time_limit(Duration::from_millis(500))
        .first_cap(1 << 30);
    let pool = builder(8 << 30, process).build().unwrap();
    let f = define_bomb(&pool);
    thread::scope(|scope| {
        let call = scope.spawn(|| f.call(1, ()));
        signal(compiling(&pool), "STOP");
        let error = call.join().unwrap().unwrap_err();
        let CallError::Acquire(AcquireError::Module { source, .. }) = &error else {
            panic!("{error}");
        };
        assert!(matches!(**source, ModuleError::TooSlow { .. }), "{source}");
    });
    assert_eq!(check(&pool).compiler_kills.time, 1);
}

#[test]
fn a_process_that_others_kill_is_no_fault_of_its_module() {
    let _alone = alone();
    let pool = builder(8 << 30, helper().first_cap(1 << 30))
        .build()
        .unwrap();
    let before = charges(&pool);
    let f = define_bomb(&pool);
    for died in 1..3 {
        thread::scope(|scope| {
            let call = scope.spawn(|| f.call(1, ()));
            signal(compiling(&pool), "KILL");
            let error = call.join().unwrap().unwrap_err();
            assert!(error.is_retryable(), "{error}");
            let CallError::Acquire(AcquireError::Module { source, .. }) = &error else {
                panic!("{error}");
            };
            let ModuleError::Process(CompilerError::Died { signal: by, .. }) = &**source else {
                panic!("{source}");
            };
            assert_eq!(*by, Some(9));
        });
        assert_eq!(check(&pool).compiler_crashes, died, "the next tries again");
        assert_eq!(charges(&pool), before);
    }
}

/// All of its threads have ended, though nobody has waited for it yet.
fn is_dead(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let threads = fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count);
    threads <= 1 && (status.is_empty() || status.contains("State:\tZ"))
}

#[test]
fn processes_that_wait_and_die_are_replaced() {
    let _alone = alone();
    let pool = builder(256 << 20, helper().warm(2)).build().unwrap();
    for answer in 0..4 {
        for child in children() {
            signal(child, "KILL");
            until(|| is_dead(child));
        }
        let f = define(&pool, &format!("f{answer}"), answering(answer));
        assert_eq!(f.call(1, ()).unwrap(), answer);
    }
    assert_eq!(check(&pool).compilations, 4);
}

#[test]
fn nothing_is_left_of_pools_and_their_processes() {
    let _alone = alone();
    let before = descriptors();
    for jobs in [1, 3] {
        for round in 0..5 {
            let process = helper().warm(2).max_jobs(jobs);
            let pool = builder(256 << 20, process).build().unwrap();
            for answer in 0..5 {
                let f = define(
                    &pool,
                    &format!("f{answer}"),
                    answering(100 * round + answer),
                );
                assert_eq!(f.call(1, ()).unwrap(), 100 * round + answer);
            }
            assert!(children().len() <= 2, "{:?}", children());
            pool.close();
            assert_eq!(children().len(), 0);
            check_empty(&pool);
        }
    }
    assert_eq!(descriptors(), before);
}

#[test]
fn a_process_that_does_several_jobs_is_one_process() {
    let _alone = alone();
    let pool = builder(256 << 20, helper().max_jobs(4)).build().unwrap();
    let first = children();
    for answer in 0..4 {
        assert_eq!(children(), first, "before job {answer}");
        let f = define(&pool, &format!("f{answer}"), answering(answer));
        // Larger ones need a process that has not been given a lower limit yet; these are alike.
        assert_eq!(f.call(1, ()).unwrap(), answer);
    }
    let f = define(&pool, "last", answering(9));
    assert_eq!(f.call(1, ()).unwrap(), 9);
    assert_ne!(children(), first);
}

#[test]
fn a_process_has_nothing_of_this_one_but_its_socket() {
    let _alone = alone();
    let pool = builder(256 << 20, helper()).build().unwrap();
    let child = *children().first().unwrap();
    // It has said that it is ready, so it has closed what it had.
    let open: Vec<_> = fs::read_dir(format!("/proc/{child}/fd"))
        .unwrap()
        .map(|fd| fd.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(open.len(), 3, "{open:?}");
    let environment = fs::read(format!("/proc/{child}/environ")).unwrap();
    let variables = environment
        .split(|byte| *byte == 0)
        .filter(|v| !v.is_empty());
    assert_eq!(variables.count(), 2);
    let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"));
    assert!(
        status.contains("Seccomp:\t2"),
        "this machine's kernel has it"
    );
    assert!(memory(child, "RssAnon:").unwrap() < 16 << 20);
    drop(pool);
}

/// The host, in a process of its own: it compiles a bomb until it is killed.
#[test]
fn no_process_outlives_a_host_that_is_killed() {
    const TEST: &str = "children::no_process_outlives_a_host_that_is_killed";
    if child::runs(TEST) {
        let pool = builder(8 << 30, helper().warm(3).first_cap(1 << 30))
            .build()
            .unwrap();
        let _ = define_bomb(&pool).call(1, ());
        return;
    }
    let _alone = alone();
    for stopped in [false, true] {
        let mut host = child::command(TEST).spawn().unwrap();
        until(|| children_of(host.id()).len() == 4);
        let orphans = children_of(host.id());
        if stopped {
            for orphan in &orphans {
                signal(*orphan, "STOP");
            }
        }
        host.kill().unwrap();
        host.wait().unwrap();
        // A process that is dead and that nobody has waited for has no memory.
        until(|| {
            orphans
                .iter()
                .all(|orphan| memory(*orphan, "VmSize:").is_none())
        });
    }
}
