//! A process that is forked off has one thread, and slots of threads that are gone.

use std::panic::catch_unwind;
use std::sync::mpsc;
use std::thread;

use crate::alone;
use crate::common::*;

/// What `child` says in a process that is forked off: whether it returns, and does not panic or die.
#[allow(unsafe_code, reason = "nothing safe forks")]
fn succeeds_forked_off(child: impl FnOnce() + std::panic::UnwindSafe) -> bool {
    // SAFETY: the child ends without returning, and takes no lock that another thread of this test may hold: they are
    // parked. (glibc's allocator may be used after a fork.)
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    if pid == 0 {
        let ended_well = catch_unwind(child).is_ok();
        // SAFETY: it ends this process, without destructors, which would wait for threads that it does not have.
        unsafe { libc::_exit(i32::from(!ended_well)) };
    }
    let mut status = 0;
    // SAFETY: it is this process's child, and nobody else waits for it.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    waited == pid && status == 0
}

#[test]
fn a_forked_process_takes_back_the_slots_of_threads_that_it_does_not_have() {
    let _alone = alone();
    let pool = one_at_a_time().max_instances_per_entry(2).build().unwrap();
    let f = counter(&pool);
    let calls = 20;
    let own_slot_of = |group: u64| {
        let called: Vec<i64> = (0..calls).map(|_| f.call(group, ()).unwrap()).collect();
        assert_eq!(called.last(), Some(&calls));
    };
    let (owns, owned) = mpsc::channel();
    let (ends, ended) = mpsc::channel::<()>();
    // This thread goes on in the child; the other, which is between two calls, does not.
    own_slot_of(1);
    thread::scope(|scope| {
        scope.spawn(move || {
            own_slot_of(2);
            owns.send(()).unwrap();
            let _ = ended.recv();
        });
        owned.recv().unwrap();
        let forked = succeeds_forked_off(std::panic::AssertUnwindSafe(|| {
            assert_eq!(f.call(1, ()).unwrap(), calls + 1, "its own instance");
            assert_eq!(
                f.call(2, ()).unwrap(),
                calls + 1,
                "that of a thread that is gone"
            );
            let stats = check(&pool);
            assert_eq!((stats.idle, stats.leased), (2, 0));
            assert_eq!(pool.retain(|_| false), 2);
            assert_eq!(check(&pool).idle, 0);
            assert_eq!(f.call(2, ()).unwrap(), 1, "a new one");
            pool.remove("state.next").unwrap();
            assert_eq!(check(&pool).idle, 0);
        }));
        assert!(forked);
        // And this process has noticed nothing.
        assert_eq!(f.call(1, ()).unwrap(), calls + 1);
        assert_eq!(f.call(2, ()).unwrap(), calls + 1);
        drop(ends);
    });
    check(&pool);
}
