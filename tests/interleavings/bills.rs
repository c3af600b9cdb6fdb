//! Bills: what leases count without the lock, and what is read of it under the lock meanwhile.

use std::time::Duration;

use shuttle::thread;

use crate::explore::explore;
use crate::world::World;
use crate::{Billing, Bills, Budget};

const MOMENT: Duration = Duration::from_nanos(1000);

/// Somebody looks, whatever goes on: nothing was leased for longer than it was held, and sums are sums.
fn look(world: &World) -> Bills {
    let bills = *world.pool.stats().bills.expect("there are bills");
    for bill in bills
        .groups
        .iter()
        .map(|of| &of.bill)
        .chain([&bills.other_groups])
    {
        let (held, leased) = (bill.held(Budget::Memory), bill.leased(Budget::Memory));
        assert!(leased <= held, "leased {leased} of {held}");
    }
    let of_groups = bills.groups.iter().map(|of| of.bill.calls).sum::<u64>();
    let of_functions = bills.functions.iter().map(|of| of.bill.calls).sum::<u64>();
    let gone = (bills.other_groups.calls, bills.other_functions.calls);
    assert_eq!(of_groups + gone.0, of_functions + gone.1);
    bills
}

fn leases_beside_looks(evict: bool) {
    let world = World::new(2, |builder| builder.billing(Billing::new().kept_groups(0)));
    let f = world.define("f", 1);
    thread::scope(|scope| {
        for group in [1, 2] {
            let (f, world) = (&f, &world);
            scope.spawn(move || {
                for _ in 0..2 {
                    let mut lease = f.acquire(group).unwrap();
                    world.clock.advance(MOMENT);
                    lease.call(0).unwrap();
                    drop(lease);
                    world.clock.advance(MOMENT);
                }
            });
        }
        look(&world);
        if evict {
            world.pool.retain(|_| false);
            world.clock.advance(MOMENT);
        }
        look(&world);
    });
    let bills = look(&world);
    assert_eq!(bills.total.calls, 4);
    assert_eq!(bills.total.hits + bills.total.misses, 4);
    let held = bills.total.held(Budget::Memory);
    world.clock.advance(MOMENT);
    world.close();
    let bills = look(&world);
    assert_eq!(bills.total.calls, 4);
    assert!(bills.total.held(Budget::Memory) >= held);
}

#[test]
fn whoever_looks_at_bills_sees_no_lease_that_was_longer_than_its_instance() {
    explore(|| leases_beside_looks(false));
}

#[test]
fn what_is_evicted_beside_leases_leaves_its_counts_with_the_pool() {
    explore(|| leases_beside_looks(true));
}

/// The lease of one thread, looked at again and again: each of its moments is counted once.
#[test]
fn a_lease_is_counted_once_whoever_looks_and_when() {
    explore(|| {
        let world = World::new(1, |builder| builder.billing(Billing::new()));
        let f = world.define("f", 1).in_group(1);
        drop(f.acquire().unwrap());
        let bytes = u128::from(world.pool.stats().budget(Budget::Memory).charged);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    let lease = f.acquire().unwrap();
                    world.clock.advance(MOMENT);
                    drop(lease);
                }
            });
            look(&world);
            look(&world);
        });
        let leased = look(&world).total.leased(Budget::Memory);
        assert_eq!(leased, bytes * 2 * MOMENT.as_nanos());
    });
}
