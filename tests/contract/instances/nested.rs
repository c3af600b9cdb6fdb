//! C-I7: leases within leases.

use super::*;

// C-I7 ─────────────────────────────────────────────────────────────────────────────────────────────

type Nested = Function<i32, i32>;

/// Calls the host with its argument, and returns what the host says.
const NESTED: &str = r#"(module (import "host" "again" (func $again (param i32) (result i32)))
    (memory 1)
    (func (export "f") (param i32) (result i32) (call $again (local.get 0))))"#;

const DEADLOCK: i32 = -1;
const TIMEOUT: i32 = -2;
const NO_ROOM: i32 = -3;

fn code(error: &AcquireError) -> i32 {
    match error {
        AcquireError::Deadlock { .. } => DEADLOCK,
        AcquireError::Timeout { .. } => TIMEOUT,
        AcquireError::BudgetExceeded(_) => NO_ROOM,
        other => panic!("{other}"),
    }
}

/// A pool whose guests call `again` with what their host function is given.
fn nesting(
    seats: usize,
    again: impl Fn(&[Nested], i32) -> i32 + Send + Sync + 'static,
) -> (Pool, Vec<Nested>) {
    nesting_in(
        Pool::builder()
            .max_instances_per_entry(seats)
            .no_housekeeper(),
        NESTED,
        again,
    )
}

fn nesting_in(
    builder: PoolBuilder,
    text: &str,
    again: impl Fn(&[Nested], i32) -> i32 + Send + Sync + 'static,
) -> (Pool, Vec<Nested>) {
    let cell: Arc<OnceLock<Vec<Nested>>> = Arc::default();
    let functions = cell.clone();
    let host = move |_: Caller<'_, StoreData<()>>, n: i32| again(functions.get().unwrap(), n);
    let pool = builder
        .imports(move |linker| linker.func_wrap("host", "again", host).map(drop))
        .build()
        .unwrap();
    let define = |name| {
        let definition = Definition::new(name).export("f").wasm(wat(text));
        pool.define(definition).unwrap()
    };
    let functions = ["a", "b", "c"].map(define).to_vec();
    cell.set(functions.clone()).unwrap();
    (pool, functions)
}

/// Leases the function once more, `depth` times in a row; returns the depth that it came to.
fn deeper(f: &Nested, depth: i32) -> i32 {
    match f.acquire(1) {
        _ if depth == 0 => 0,
        Ok(mut lease) => match lease.call(depth - 1).unwrap() {
            error if error < 0 => error,
            inner => inner + 1,
        },
        Err(error) => code(&error),
    }
}

#[test]
fn c_i7_a_lease_within_its_own_lease_is_an_error_when_there_is_no_other() {
    in_time(|| {
        let (pool, functions) = nesting(1, |functions, depth| deeper(&functions[0], depth));
        assert_eq!(functions[0].call(1, 1).unwrap(), DEADLOCK);
        assert_eq!(
            functions[0].call(1, 0).unwrap(),
            0,
            "the instance is as good as before"
        );
        let stats = check(&pool);
        assert_eq!((stats.misses, stats.waiting, stats.idle), (1, 0, 1));
    });
}

#[test]
fn c_i7_it_gets_another_instance_when_there_is_one() {
    in_time(|| {
        let (pool, functions) = nesting(2, |functions, depth| deeper(&functions[0], depth));
        assert_eq!(functions[0].call(1, 1).unwrap(), 1);
        assert_eq!(functions[0].call(1, 2).unwrap(), DEADLOCK);
        assert_eq!(check(&pool).idle, 2);
    });
}

#[test]
fn c_i7_the_error_says_what_happened() {
    in_time(|| {
        let said: Arc<OnceLock<String>> = Arc::default();
        let says = said.clone();
        let (_pool, functions) = nesting(1, move |functions, _| {
            let error = functions[0].acquire(1).unwrap_err();
            says.set(error.to_string()).unwrap();
            0
        });
        functions[0].call(1, 0).unwrap();
        assert_eq!(
            said.get().unwrap(),
            "a() in group 1 would wait for itself: all its instances are in calls that wait for \
             this one"
        );
    });
}

#[test]
fn c_i7_a_way_back_through_another_function_is_seen() {
    in_time(|| {
        // a → b → a
        let (pool, functions) = nesting(1, |functions, step| match step {
            2 => functions[1].call(1, 1).unwrap(),
            1 => deeper(&functions[0], 1),
            _ => 0,
        });
        assert_eq!(functions[0].call(1, 2).unwrap(), DEADLOCK);
        assert_eq!(check(&pool).idle, 2);
    });
}

#[test]
fn c_i7_another_group_is_not_waited_for() {
    in_time(|| {
        let (pool, functions) = nesting(1, |functions, group| match group {
            9 => 9,
            _ => functions[0].call(group as u64 + 1, group + 1).unwrap(),
        });
        assert_eq!(functions[0].call(1, 1).unwrap(), 9);
        assert_eq!(check(&pool).idle, 9);
    });
}

/// Threads hold one instance each, and want that of the next: one of them learns that it cannot
/// have it; then the others get theirs.
fn ring(threads: usize) {
    let all = Arc::new(Barrier::new(threads));
    let meet = all.clone();
    let (pool, functions) = nesting(1, move |functions, step| {
        let wanted = step as usize % 10;
        if step >= 10 {
            return 1;
        }
        meet.wait();
        match functions[wanted].acquire(1) {
            Ok(mut lease) => lease.call(10).unwrap(),
            Err(error) => code(&error),
        }
    });
    let outcomes: Vec<i32> = thread::scope(|scope| {
        let start = |n: usize| {
            let f = &functions[n];
            let next = (n + 1) % threads;
            scope.spawn(move || f.call(1, next as i32).unwrap())
        };
        let threads: Vec<_> = (0..threads).map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(
        outcomes.iter().filter(|o| **o == DEADLOCK).count(),
        1,
        "{outcomes:?}"
    );
    assert_eq!(
        outcomes.iter().filter(|o| **o == 1).count(),
        threads - 1,
        "{outcomes:?}"
    );
    let stats = check(&pool);
    assert_eq!((stats.waiting, stats.leased), (0, 0));
}

#[test]
fn c_i7_two_threads_that_cross_both_end() {
    in_time(|| (0..20).for_each(|_| ring(2)));
}

#[test]
fn c_i7_three_threads_in_a_ring_all_end() {
    in_time(|| (0..20).for_each(|_| ring(3)));
}

#[test]
fn c_i7_two_threads_within_the_same_function_both_end() {
    in_time(|| {
        let both = Arc::new(Barrier::new(2));
        let (pool, functions) = nesting(2, move |functions, step| {
            if step == 1 {
                both.wait();
            }
            deeper(&functions[0], step)
        });
        let outcomes = thread::scope(|scope| {
            let f = &functions[0];
            let one = scope.spawn(move || f.call(1, 1).unwrap());
            let two = scope.spawn(move || f.call(1, 1).unwrap());
            let mut both = [one.join().unwrap(), two.join().unwrap()];
            both.sort_unstable();
            both
        });
        assert_eq!(outcomes, [DEADLOCK, 1]);
        assert_eq!(check(&pool).waiting, 0);
    });
}

#[test]
fn c_i7_a_lease_in_another_threads_hands_is_waited_for() {
    in_time(|| {
        let (pool, functions) = nesting(1, |_, n| n);
        let lease = functions[0].acquire(1).unwrap();
        let (release, released) = mpsc::channel();
        let holder = thread::spawn(move || {
            let mut lease: Lease<'static, i32, i32> = lease;
            assert_eq!(lease.call(5).unwrap(), 5);
            released.recv().unwrap();
        });
        let waker = thread::spawn({
            let pool = pool.clone();
            move || {
                wait_for_waiters(&pool, 1);
                release.send(()).unwrap();
            }
        });
        assert_eq!(functions[0].call(1, 6).unwrap(), 6);
        holder.join().unwrap();
        waker.join().unwrap();
        assert_eq!(check(&pool).blocks, 1);
    });
}

#[test]
fn c_i7_a_call_on_another_thread_is_waited_for_even_by_who_leased_it() {
    in_time(|| {
        let (inside, is_inside) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let (inside, may_go) = (Mutex::new(inside), Mutex::new(may_go));
        let (pool, functions) = nesting(1, move |_, n| {
            if n == 5 {
                inside.lock().unwrap().send(()).unwrap();
                may_go.lock().unwrap().recv().unwrap();
            }
            n
        });
        let mut lease = functions[0].acquire(1).unwrap();
        let caller = thread::spawn(move || lease.call(5).unwrap());
        is_inside.recv().unwrap();
        let waker = thread::spawn({
            let pool = pool.clone();
            move || {
                wait_for_waiters(&pool, 1);
                go.send(()).unwrap();
            }
        });
        assert_eq!(functions[0].call(1, 6).unwrap(), 6);
        assert_eq!(caller.join().unwrap(), 5);
        waker.join().unwrap();
        check(&pool);
    });
}

#[test]
fn c_i7_a_lease_outside_of_any_call_may_still_end() {
    let (pool, functions) = nesting(1, |_, n| n);
    let held = functions[0].acquire(1).unwrap();
    let error = functions[0]
        .acquire_with(1, room_within(Duration::ZERO))
        .unwrap_err();
    assert_eq!(
        code(&error),
        TIMEOUT,
        "another thread might get the lease and drop it"
    );
    drop(held);
    check(&pool);
}

#[test]
fn c_i7_a_lease_that_finds_no_room_beside_its_own_caller_is_refused_at_once() {
    in_time(|| {
        let limits = Limits::new().memory(100 << 10);
        let builder = Pool::builder().limits(limits).no_housekeeper();
        let (pool, functions) = nesting_in(builder, NESTED, |functions, n| match n {
            1 => deeper(&functions[1], 1),
            n => n,
        });
        assert_eq!(functions[0].call(1, 1).unwrap(), NO_ROOM);
        assert_eq!(functions[0].call(1, 5).unwrap(), 5);
        check(&pool);
    });
}

#[test]
fn c_i7_a_start_function_that_needs_its_own_instance_is_an_error() {
    in_time(|| {
        let text = r#"(module (import "host" "again" (func $again (param i32) (result i32)))
            (global $said (mut i32) (i32.const 0))
            (func $start (global.set $said (call $again (i32.const 1)))) (start $start)
            (func (export "f") (param i32) (result i32) (global.get $said)))"#;
        let builder = Pool::builder()
            .max_instances_per_entry(1)
            .wait_timeout(2 * SECOND)
            .no_housekeeper();
        let (_pool, functions) = nesting_in(builder, text, |functions, depth| {
            deeper(&functions[0], depth)
        });
        assert_eq!(functions[0].call(1, 0).unwrap(), DEADLOCK);
    });
}

#[test]
fn c_i7_a_lease_kept_after_its_host_function_panicked_is_in_no_call() {
    let pool = Pool::builder()
        .max_instances_per_entry(1)
        .no_housekeeper()
        .imports(|linker| {
            let panics = || -> () { panic!("host") };
            linker.func_wrap("host", "panics", panics).map(|_| ())
        })
        .build()
        .unwrap();
    let text = r#"(module (import "host" "panics" (func $p)) (func (export "f") call $p))"#;
    let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wat(text))).unwrap();
    let mut lease = f.acquire(1).unwrap();
    let call = AssertUnwindSafe(|| lease.call(()));
    assert!(catch_unwind(call).is_err());
    // Held, and in no call: to wait for it is pointless here, but not waiting for oneself.
    let error = f.acquire_with(1, room_within(Duration::ZERO)).unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error}");
    assert!(lease.is_broken());
    drop(lease);
    assert_eq!(check(&pool).leased, 0);
}
