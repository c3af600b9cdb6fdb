//! C-R6: who waits for room.

use super::*;

// C-R6 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_r6_eight_tenants_are_all_served_in_turn() {
    // Each needs 32 MiB, all told.
    const PAGES: u32 = 511;
    let (pool, _, left) = pool(memory(64 << 20));
    let f = define_with_pages(&pool, "f", PAGES);
    let (served, is_served) = mpsc::channel();
    let next = || {
        is_served
            .recv_timeout(30 * SECOND)
            .expect("somebody is served")
    };
    let mut tenants = Vec::new();
    let mut order = Vec::new();
    for tenant in 0..8_u64 {
        let (release, released) = mpsc::channel::<()>();
        let (f, served) = (f.clone(), served.clone());
        let thread = thread::spawn(move || {
            let mut lease = f.acquire_with(tenant, room_within(LONG)).unwrap();
            assert_eq!(lease.call(()).unwrap(), 1);
            served.send(tenant).unwrap();
            released.recv().unwrap();
        });
        tenants.push(Some((release, thread)));
        match tenant {
            0 | 1 => order.push(next()),
            _ => wait_for_waiters(&pool, tenant as usize - 1),
        }
    }
    for turn in 0..8 {
        let (release, thread) = tenants[order[turn] as usize].take().unwrap();
        release.send(()).unwrap();
        thread.join().unwrap();
        if turn < 6 {
            order.push(next());
        }
    }
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7], "first come, first served");
    assert_eq!(left.groups(), groups(0..6));
    let stats = check(&pool);
    assert_eq!((stats.misses, stats.refusals, stats.waiting), (8, 0, 0));
}

/// Waits for room in another thread, and sends its number when it has it.
fn waits_for_room(
    pool: &Pool,
    f: &F,
    group: u64,
    timeout: Duration,
) -> thread::JoinHandle<Result<(), AcquireError>> {
    let f = f.clone();
    let waiting = pool.stats().waiting;
    let thread = thread::spawn(move || f.acquire_with(group, room_within(timeout)).map(drop));
    wait_for_waiters(pool, waiting + 1);
    thread
}

#[test]
fn c_r6_a_deadline_ends_the_wait_for_room() {
    let (pool, clock, _) = pool(memory(instance_bytes(1)));
    let f = define_with_pages(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    let before = charges(&pool);
    let waiter = waits_for_room(&pool, &f, 2, 5 * SECOND);
    clock.advance(5 * SECOND - Duration::from_nanos(1));
    assert_eq!((pool.stats().waiting, waiter.is_finished()), (1, false));
    clock.advance(Duration::from_nanos(1));
    let error = waiter.join().unwrap().unwrap_err();
    let AcquireError::Timeout {
        waited,
        waiting_for,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*waited, *waiting_for), (5 * SECOND, WaitingFor::Room));
    assert_eq!(
        error.to_string(),
        format!(
            "f() in group 2 waited 5s for room in a budget: f() in group 2 needs {need} bytes of \
             the memory budget, which has {need}: {need} are charged, and evicting everything idle \
             would free 0. The other {need} are in use: try again later, or raise the limit. Held by f() in \
             group 1: {need} in use",
            need = instance_bytes(1)
        )
    );
    assert_eq!(charges(&pool), before);
    drop(lease);
    check_idle(&pool, 1);
}

#[test]
fn c_r6_what_can_never_fit_fails_at_once() {
    let (pool, _, left) = pool(memory(instance_bytes(4)));
    let (f, big) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "big", 4),
    );
    f.call(1, ()).unwrap();
    pool.set_limits(memory(instance_bytes(3))).unwrap();
    is_refused(big.acquire_with(1, room_within(LONG)));
    assert_eq!((left.take(), pool.stats().idle), (vec![], 1));
}

#[test]
fn c_r6_what_can_never_fit_does_not_even_queue() {
    let (pool, _, _) = pool(memory(instance_bytes(4)));
    let (f, big) = (
        define_with_pages(&pool, "f", 3),
        define_with_pages(&pool, "big", 4),
    );
    pool.set_limits(memory(instance_bytes(3))).unwrap();
    let lease = f.acquire(1).unwrap();
    let waiter = waits_for_room(&pool, &f, 2, LONG);
    is_refused(big.acquire_with(1, room_within(LONG)));
    drop(lease);
    waiter.join().unwrap().unwrap();
    check_idle(&pool, 1);
}

#[test]
fn c_r6_acquire_waits_for_room_only_if_told_to() {
    let (builder, clock, _) = builder(memory(instance_bytes(1)));
    let pool = builder
        .wait_for_room(true)
        .wait_timeout(3 * SECOND)
        .build()
        .unwrap();
    let f = define_with_pages(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    is_refused(f.try_acquire(2));
    let waiter = thread::spawn({
        let f = f.clone();
        move || f.acquire(2).map(drop)
    });
    wait_for_waiters(&pool, 1);
    clock.advance(3 * SECOND);
    let error = waiter.join().unwrap().unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error}");
    drop(lease);
    check_idle(&pool, 1);
}

#[test]
fn c_r6_a_newcomer_does_not_overtake() {
    in_time(|| {
        let (pool, _, _) = pool(memory(instance_bytes(3)));
        let (small, big) = (
            define_with_pages(&pool, "small", 1),
            define_with_pages(&pool, "big", 3),
        );
        let lease = small.acquire(1).unwrap();
        let first = waits_for_room(&pool, &big, 1, LONG);
        // There is room for this one, but it came later and is as patient.
        let second = waits_for_room(&pool, &small, 2, LONG);
        assert!(!second.is_finished());
        drop(lease);
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
        check_idle(&pool, 1);
    });
}

#[test]
fn c_r6_who_gives_up_lets_the_next_in() {
    in_time(|| {
        let (pool, clock, _) = pool(memory(instance_bytes(3)));
        let (small, big) = (
            define_with_pages(&pool, "small", 1),
            define_with_pages(&pool, "big", 3),
        );
        let lease = small.acquire(1).unwrap();
        let first = waits_for_room(&pool, &big, 1, SECOND);
        let second = waits_for_room(&pool, &small, 2, LONG);
        clock.advance(SECOND);
        assert!(first.join().unwrap().is_err());
        second.join().unwrap().unwrap();
        drop(lease);
        check_idle(&pool, 2);
    });
}

#[test]
fn c_r6_idle_instances_are_evicted_before_anybody_waits() {
    let (pool, _, left) = pool(memory(instance_bytes(1)));
    let f = define_with_pages(&pool, "f", 1);
    f.call(1, ()).unwrap();
    drop(f.acquire_with(2, room_within(Duration::ZERO)).unwrap());
    assert_eq!(left.groups(), groups([1]));
    check_idle(&pool, 1);
}

#[test]
fn c_r6_a_tenant_that_never_rests_starves_nobody() {
    // Room for one instance; each call of the busy tenant takes about a millisecond.
    let pool = Pool::builder()
        .limits(memory(2 << 20))
        .no_housekeeper()
        .build()
        .unwrap();
    let definition = Definition::new("spin").wasm(guest("rogue_spin"));
    let spin: Function<i64, i64> = pool.define(definition).unwrap();
    spin.call(1, 1).unwrap();
    let stop = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Refused while the other has the room.
                let _ = spin.call(1, 500_000);
            }
        });
        let outcome = spin.acquire_with(2, room_within(5 * SECOND)).map(drop);
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    outcome.unwrap();
    check(&pool);
}
