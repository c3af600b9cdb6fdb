//! The straight road: define, call cold, call warm, close.

use wasm_pool::{Budget, Definition, Function, Limits, Pool};

const ADD: &[u8] = include_bytes!("../../examples/guests/prebuilt/math_add.wasm");

#[test]
fn a_second_call_finds_the_instance_of_the_first() {
    let pool = Pool::builder()
        .limits(Limits::new().memory(64 << 20).code(8 << 20))
        .no_housekeeper()
        .build()
        .unwrap();
    let add: Function<(i64, i64), i64> =
        pool.define(Definition::new("math.add").wasm(ADD)).unwrap();
    for n in 0..10 {
        assert_eq!(add.call(7, (n, 1)).unwrap(), n + 1);
    }
    let stats = pool.stats();
    assert_eq!((stats.misses, stats.hits, stats.compilations), (1, 9, 1));
    assert_eq!((stats.idle, stats.leased), (1, 0));
    let tenant = add.in_group(8);
    assert_eq!(tenant.call((1, 1)).unwrap(), 2);
    assert_eq!(pool.stats().misses, 2);
    pool.recount().unwrap();
    pool.close();
    for (budget, report) in pool.stats().budgets() {
        assert_eq!(report.charged, 0, "{budget}");
    }
    assert!(pool.stats().budget(Budget::Memory).peak > 0);
    assert!(tenant.call((1, 1)).is_err());
}
