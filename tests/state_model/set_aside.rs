//! What is held until the pool is gone: charged like all else, never evicted, and in nobody's way when a pool ends.

use crate::pool::{NONE, Pool};
use crate::state::{Budget, Policy, ReserveOutcome};

#[test]
fn what_is_set_aside_is_charged_and_stays() {
    let mut pool = Pool::new(
        Policy::CostAware,
        &[(Budget::Memory, 10), (Budget::Mappings, 10)],
    );
    assert!(
        !pool.state.set_aside(&NONE.memory(11)),
        "more than there is"
    );
    assert_eq!(*pool.state.ledger().charged(), NONE);
    assert!(pool.state.set_aside(&NONE.memory(3).mappings(4)));
    assert!(pool.state.set_aside(&NONE.memory(1)));
    let aside = NONE.memory(4).mappings(4);
    assert_eq!(pool.state.recount(), Ok(()));
    assert_eq!(*pool.state.ledger().charged(), aside);
    assert!(pool.state.can_ever_hold(&NONE.memory(6).mappings(6)));
    assert!(!pool.state.can_ever_hold(&NONE.memory(7)));
    assert!(!pool.state.can_ever_hold(&NONE.mappings(7)));
    let (refused, _) = pool.ask(NONE.memory(7));
    let ReserveOutcome::Refused(short) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((short.charged, short.evictable), (4, 0));
    assert_eq!(pool.ask(NONE.memory(6)).0, ReserveOutcome::Granted);
    pool.state.close(&mut pool.cx);
    pool.destroy();
    assert_eq!(pool.state.recount(), Ok(()));
    assert!(pool.state.is_drained());
    assert_eq!(*pool.state.ledger().charged(), aside);
}
