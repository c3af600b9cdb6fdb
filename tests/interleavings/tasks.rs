//! Tasks among threads: what is handed over reaches a task too, and one that gives up leaves nothing
//! behind. Code is warm in all of them: the threads that compile for tasks are not the model's.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use crate::explore::explore;
use crate::runtime::STACK;
use crate::state::Budget;
use crate::world::{FOR_EVER, Guest, Leased, Mark, World, definition, room_for, room_within};
use crate::{AcquireError, Limits, PoolBuilder};

/// A pool in which the code of `f` is warm, and an instance of group 1 idle, without a stack.
fn warm(seats: usize, set: impl FnOnce(PoolBuilder<Mark>) -> PoolBuilder<Mark>) -> (World, Guest) {
    let world = World::new(seats, set);
    let f = world.define("f", 1);
    world.serve(f.acquire(1).unwrap(), 1);
    (world, f)
}

/// As `World::serve`, as a task.
async fn serve(world: &World, mut lease: Leased<'_>, group: u64) -> i32 {
    world.begin(&mut lease, group);
    let version = lease.call_async(0).await.expect("the guest returns");
    world.end(lease);
    version
}

/// A task that wants room for its group, and a thread of its own to poll it.
fn wait_for_room(world: &World, f: &Guest, group: u64) {
    let lease = block_on(f.acquire_async_with(group, room_within(FOR_EVER))).unwrap();
    block_on(serve(world, lease, group));
}

/// Polls a few times, whether woken or not, then drops the future.
pub fn give_up<F: Future>(future: F) -> Option<F::Output> {
    let mut left = thread_rng().gen_range(0..4);
    let mut future = pin!(future);
    let polled = block_on(poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = future.as_mut().poll(context).map(Some);
        context.waker().wake_by_ref();
        polled
    }));
    if polled.is_none() {
        // Others may hand something over before it is dropped.
        thread::yield_now();
    }
    polled
}

/// Two tasks on one thread.
async fn both(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let mut done = [false; 2];
    poll_fn(|context| {
        done[0] = done[0] || a.as_mut().poll(context).is_ready();
        done[1] = done[1] || b.as_mut().poll(context).is_ready();
        if done == [true; 2] {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

fn stacks_charged(world: &World) -> u64 {
    world.pool.stats().budget(Budget::Stack).charged / STACK
}

#[test]
fn two_tasks_and_a_thread_and_one_seat() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    block_on(async {
                        for _ in 0..2 {
                            serve(&world, f.acquire_async(1).await.unwrap(), 1).await;
                        }
                    });
                });
            }
            for _ in 0..2 {
                world.serve(f.acquire(1).unwrap(), 1);
            }
        });
        assert_eq!(stacks_charged(&world), 1);
        world.finish(1);
    });
}

/// While one waits for the other, their thread must be free for the other.
#[test]
fn two_tasks_on_one_thread_and_one_seat() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder);
        let group = f.in_group(1);
        let task = async || {
            for _ in 0..2 {
                let lease = group.acquire_async().await.unwrap();
                shuttle::future::yield_now().await;
                serve(&world, lease, 1).await;
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| block_on(both(task(), task())));
            world.serve(f.acquire(1).unwrap(), 1);
        });
        world.finish(1);
    });
}

/// Somebody has the only seat; one of those who wait for it gives up.
fn a_task_gives_up(world: &World, f: &Guest) {
    let lease = f.acquire(1).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| drop(lease));
        scope.spawn(|| {
            if let Some(lease) = give_up(f.acquire_async(1)) {
                block_on(serve(world, lease.unwrap(), 1));
            }
        });
        scope.spawn(|| {
            let lease = block_on(f.acquire_async(1)).unwrap();
            block_on(serve(world, lease, 1));
        });
        world.serve(f.acquire(1).unwrap(), 1);
    });
}

#[test]
fn a_task_gives_up_while_the_instance_is_on_its_way() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder);
        a_task_gives_up(&world, &f);
        world.finish(1);
    });
}

#[test]
fn a_task_gives_up_while_the_seat_is_on_its_way() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder.max_uses(1));
        a_task_gives_up(&world, &f);
        world.finish(0);
    });
}

/// Nobody else waits who would pass on what was handed to them.
#[test]
fn all_tasks_give_up() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder);
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| drop(give_up(f.acquire_async(1))));
            }
            drop(lease);
        });
        world.serve(f.try_acquire(1).unwrap(), 1);
        world.finish(1);
    });
}

/// While the lease that they waited for goes on.
#[test]
fn tasks_that_gave_up_wait_no_more() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder.limits(room_for(1)));
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            // For its seat, and for its room.
            for group in [1, 1, 2] {
                let f = &f;
                scope.spawn(move || {
                    assert!(give_up(f.acquire_async_with(group, room_within(FOR_EVER))).is_none());
                });
            }
        });
        assert_eq!(world.pool.stats().waiting, 0);
        world.pool.recount().unwrap();
        drop(lease);
        world.finish(1);
    });
}

#[test]
fn a_deadline_comes_while_tasks_wait() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder);
        let lease = f.acquire(1).unwrap();
        let second = Duration::from_secs(1);
        let waiting = AtomicUsize::new(2);
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            for _ in 0..2 {
                scope.spawn(|| {
                    match block_on(f.acquire_async_with(1, room_within(second))) {
                        Ok(lease) => _ = block_on(serve(&world, lease, 1)),
                        Err(error) => assert!(matches!(error, AcquireError::Timeout { .. })),
                    }
                    waiting.fetch_sub(1, Ordering::Relaxed);
                });
            }
            world.clock.advance(second);
            // Without a housekeeper, the sweeps wake them.
            while waiting.load(Ordering::Relaxed) > 0 {
                world.pool.sweep();
                thread::yield_now();
            }
        });
        world.serve(f.try_acquire(1).unwrap(), 1);
        world.finish(1);
    });
}

#[test]
fn tasks_and_a_thread_wait_for_room() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder.limits(room_for(1)));
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            for group in [2, 3] {
                let (world, f) = (&world, &f);
                scope.spawn(move || wait_for_room(world, f, group));
            }
            world.serve(f.acquire_with(4, room_within(FOR_EVER)).unwrap(), 4);
        });
        world.finish(1);
    });
}

#[test]
fn a_task_gives_up_waiting_for_room() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder.limits(room_for(1)));
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            scope.spawn(|| {
                if let Some(lease) = give_up(f.acquire_async_with(2, room_within(FOR_EVER))) {
                    block_on(serve(&world, lease.unwrap(), 2));
                }
            });
            scope.spawn(|| wait_for_room(&world, &f, 3));
            world.serve(f.acquire_with(4, room_within(FOR_EVER)).unwrap(), 4);
        });
        world.finish(1);
    });
}

/// Who does not wait for room still waits for what is being destroyed, and may give that up too.
#[test]
fn a_task_gives_up_waiting_for_an_eviction() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder.limits(room_for(1)));
        thread::scope(|scope| {
            for group in [2, 3] {
                let (world, f) = (&world, &f);
                scope.spawn(move || match give_up(f.acquire_async(group)) {
                    Some(Ok(lease)) => _ = block_on(serve(world, lease, group)),
                    Some(Err(AcquireError::BudgetExceeded(_))) | None => {}
                    Some(Err(other)) => panic!("{other}"),
                });
            }
            wait_for_room(&world, &f, 4);
        });
        let idle = world.pool.stats().idle as u64;
        assert!(idle <= 1);
        world.serve(f.acquire(5).unwrap(), 5);
        world.finish(1);
    });
}

#[test]
fn the_pool_closes_over_tasks_that_wait() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder.limits(room_for(1)));
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            // For its seat, and for its room.
            for group in [1, 2] {
                let (world, f) = (&world, &f);
                scope.spawn(move || {
                    match block_on(f.acquire_async_with(group, room_within(FOR_EVER))) {
                        Ok(lease) => _ = block_on(serve(world, lease, group)),
                        Err(error) => assert!(matches!(error, AcquireError::Closed { .. })),
                    }
                });
            }
            scope.spawn(|| drop(give_up(f.acquire_async(1))));
            world.pool.close();
        });
        world.close();
    });
}

#[test]
fn a_pool_that_closes_waits_for_the_leases_of_tasks() {
    explore(|| {
        let (world, f) = warm(2, |builder| builder);
        thread::scope(|scope| {
            for group in [1, 1, 2] {
                let (world, f) = (&world, &f);
                scope.spawn(move || match block_on(f.acquire_async(group)) {
                    Ok(lease) => _ = block_on(serve(world, lease, group)),
                    Err(error) => assert!(matches!(error, AcquireError::Closed { .. })),
                });
            }
            assert!(world.pool.close_and_drain(FOR_EVER));
            let stats = world.pool.stats();
            assert!(stats.budgets().all(|(_, report)| report.charged == 0));
        });
        world.close();
    });
}

fn one_stack(seats: usize) -> (World, Guest) {
    warm(seats, |builder| builder.limits(Limits::new().stack(STACK)))
}

/// Whoever comes second evicts the other's instance, or waits until it may.
#[test]
fn two_tasks_and_one_stack() {
    explore(|| {
        let (world, f) = one_stack(1);
        thread::scope(|scope| {
            for group in [2, 3] {
                let (world, f) = (&world, &f);
                scope.spawn(move || {
                    for _ in 0..2 {
                        wait_for_room(world, f, group);
                    }
                });
            }
        });
        assert_eq!(stacks_charged(&world), 1);
        world.finish(world.pool.stats().idle as u64);
    });
}

/// Instances that threads have made have no stacks: a task that finds one must get one first.
#[test]
fn two_tasks_want_the_one_stack_for_instances_without() {
    explore(|| {
        let (world, f) = one_stack(1);
        world.serve(f.acquire(2).unwrap(), 2);
        thread::scope(|scope| {
            for group in [1, 2] {
                let (world, f) = (&world, &f);
                scope.spawn(move || wait_for_room(world, f, group));
            }
            world.serve(f.acquire(1).unwrap(), 1);
        });
        assert_eq!(stacks_charged(&world), 1);
        world.finish(world.pool.stats().idle as u64);
    });
}

#[test]
fn tasks_give_up_waiting_for_a_stack() {
    explore(|| {
        let (world, f) = one_stack(1);
        let lease = block_on(f.acquire_async(1)).unwrap();
        world.serve(f.acquire(2).unwrap(), 2);
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            // For an instance that is there, and for one that is not.
            for group in [2, 3] {
                let f = &f;
                scope.spawn(move || {
                    drop(give_up(f.acquire_async_with(group, room_within(FOR_EVER))));
                });
            }
            wait_for_room(&world, &f, 4);
        });
        assert!(stacks_charged(&world) <= 1);
        wait_for_room(&world, &f, 5);
        world.finish(world.pool.stats().idle as u64);
    });
}

/// Nothing else makes room for a second stack.
#[test]
fn a_raised_stack_budget_serves_a_task_that_waits() {
    explore(|| {
        let (world, f) = one_stack(1);
        let lease = block_on(f.acquire_async(1)).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| wait_for_room(&world, &f, 2));
            scope.spawn(|| drop(give_up(f.acquire_async_with(3, room_within(FOR_EVER)))));
            let two = Limits::new().stack(2 * STACK);
            world.pool.set_limits(two).unwrap();
        });
        drop(lease);
        world.finish(2);
    });
}

/// A task has the last handle, or its lease has outlived it.
#[test]
fn the_last_handle_goes_before_a_task_ends() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder);
        let mut lease = block_on(f.acquire_async(1)).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                // Closed, or not yet.
                let _ = block_on(lease.call_async(0));
                drop(lease);
            });
            scope.spawn(move || drop(give_up(f.acquire_async(1))));
            scope.spawn(move || drop(world));
        });
    });
}

/// As with threads: what begins after the replacement never runs old code.
#[test]
fn a_function_is_replaced_while_tasks_lease_it() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder);
        // Its new code is warm as well.
        let g = world.define("g", 2);
        world.serve(g.acquire(1).unwrap(), 1);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2 {
                        let late = world.is_over();
                        let lease = block_on(f.acquire_async(1)).unwrap();
                        let late = late || lease.data().late;
                        let version = block_on(serve(&world, lease, 1));
                        assert!(version == 2 || !late, "an old version");
                    }
                });
            }
            scope.spawn(|| drop(give_up(f.acquire_async(1))));
            let replace = || world.pool.replace::<i32, i32>(definition("f", 2)).unwrap();
            drop(replace());
            world.turn_over();
            assert_eq!(world.serve(f.acquire(1).unwrap(), 1), 2);
        });
        let stats = world.pool.stats();
        assert_eq!((stats.modules_loaded, stats.modules_known), (1, 1));
        world.finish(stats.idle as u64);
    });
}

#[test]
fn a_function_is_removed_while_tasks_wait_for_it() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| match block_on(f.acquire_async(1)) {
                    Ok(lease) => _ = block_on(serve(&world, lease, 1)),
                    Err(error) => assert!(matches!(error, AcquireError::Removed { .. })),
                });
            }
            scope.spawn(|| drop(give_up(f.acquire_async(1))));
            world.pool.remove("f").unwrap();
        });
        world.finish(0);
    });
}

/// Polls it so often, then forgets it without dropping it, as an executor does that is dropped.
fn leak(future: impl Future) {
    let mut future = Box::pin(future);
    let polls = thread_rng().gen_range(1..3);
    let is_over = block_on(poll_fn(|context| {
        let mut is_over = false;
        for _ in 0..polls {
            is_over = is_over || future.as_mut().poll(context).is_ready();
        }
        Poll::Ready(is_over)
    }));
    if !is_over {
        std::mem::forget(future);
    }
}

/// What a leaked task was handed, or waits for, goes to who has no deadline.
fn others_are_served(world: &World, f: &Guest, groups: [u64; 2]) {
    let lease = f.acquire(1).unwrap();
    let second = Duration::from_secs(1);
    let waiting = AtomicUsize::new(groups.len());
    thread::scope(|scope| {
        scope.spawn(|| drop(lease));
        scope.spawn(|| leak(f.acquire_async_with(groups[0], room_within(second))));
        for group in groups {
            let waiting = &waiting;
            scope.spawn(move || {
                let lease = block_on(f.acquire_async_with(group, room_within(FOR_EVER))).unwrap();
                block_on(serve(world, lease, group));
                waiting.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while waiting.load(Ordering::Relaxed) > 0 {
            world.clock.advance(second);
            world.pool.sweep();
            thread::yield_now();
        }
    });
    world.clock.advance(second);
    world.pool.sweep();
}

#[test]
fn a_leaked_task_is_handed_an_instance() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder);
        others_are_served(&world, &f, [1, 1]);
        world.serve(f.try_acquire(1).unwrap(), 1);
        world.finish(1);
    });
}

#[test]
fn a_leaked_task_is_handed_a_seat() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder.max_uses(1));
        others_are_served(&world, &f, [1, 1]);
        world.finish(0);
    });
}

#[test]
fn a_leaked_task_waits_for_room() {
    explore(|| {
        let (world, f) = warm(1, |builder| builder.limits(room_for(1)));
        others_are_served(&world, &f, [2, 3]);
        world.finish(1);
    });
}
