//! Growth: a guest in the middle of a call asks for more.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::pool::api::target::Target;
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::cold::reserve::Need;
use crate::pool::hot::entry::Entry;
use crate::pool::shared::{InstanceId, RequestId, Shared};
use crate::pool::wait::block_on::block_on;
use crate::pool::wait::policy::WaitPolicy;
use crate::runtime::GrowthAccount;
use crate::state::Amounts;

/// How long a growth waits for what other threads are destroying already.
const GROWTH_WAIT: Duration = Duration::from_secs(1);

/// Charges growth to the request that makes an instance, and to the instance when it is made.
pub(crate) struct Account<T: Send + 'static> {
    entry: Weak<Entry<T>>,
    grower: Grower<T>,
}

type Keepers<T> = (Arc<Entry<T>>, Arc<Shared<T>>);

enum Grower<T: Send + 'static> {
    /// The instance is being made: its start function grows it.
    Request(RequestId<T>),
    Instance {
        id: InstanceId<T>,
        seat: u32,
    },
}

impl<T: Send + 'static> Account<T> {
    pub fn of_request(entry: &Arc<Entry<T>>, id: RequestId<T>) -> Self {
        Self {
            entry: Arc::downgrade(entry),
            grower: Grower::Request(id),
        }
    }

    pub fn of_instance(entry: &Arc<Entry<T>>, id: InstanceId<T>, seat: usize) -> Self {
        let seat = u32::try_from(seat).expect("the core counts seats in 32 bits");
        Self {
            entry: Arc::downgrade(entry),
            grower: Grower::Instance { id, seat },
        }
    }

    /// `None` when the pool is gone.
    fn keepers(&self) -> Option<Keepers<T>> {
        let entry = self.entry.upgrade()?;
        let pool = entry.pool.upgrade()?;
        Some((entry, pool))
    }
}

impl<T: Send + 'static> Shared<T> {
    /// Reserves, evicting idle instances if that makes room; never waits for a lease.
    fn reserve_growth(
        &self,
        target: &Arc<Target>,
        request: RequestId<T>,
        amounts: Amounts,
    ) -> bool {
        let wait_policy = WaitPolicy::Instance(self.deadline(GROWTH_WAIT));
        let need = Need {
            request,
            target,
            amounts,
            // The guest sees −1: who holds what is nobody's to read.
            explained: false,
        };
        block_on(self.reserve(&need, wait_policy), &self.timekeeper).is_ok()
    }

    /// Nothing is evicted for what nobody waits for.
    fn is_for_spare(&self, grower: &Grower<T>) -> bool {
        match grower {
            Grower::Request(id) => self.with_state(|locked, _| locked.state.is_for_spare(*id)),
            Grower::Instance { .. } => false,
        }
    }

    /// Growth is always a request of its own: what its instance holds is never given back while it
    /// waits.
    fn grow(self: &Arc<Self>, target: &Arc<Target>, grower: &Grower<T>, more: Amounts) -> bool {
        let request = self.with_state(|locked, _| {
            let state = &mut locked.state;
            let has = match grower {
                Grower::Request(id) => state.held(*id),
                Grower::Instance { id, .. } => state.instance(*id).map(|i| i.charge.amounts()),
            };
            // What no eviction could make room for is refused before anything is planned: a guest may ask for
            // the impossible as often as it likes.
            let possible = has.is_some_and(|has| state.can_ever_hold(&has.saturating_add(&more)));
            let entry = match grower {
                Grower::Request(id) => state.entry_of(*id),
                Grower::Instance { id, .. } => state.instance(*id).map(|i| i.entry),
            };
            possible.then(|| state.begin_growth(entry))
        });
        let Some(request) = request else {
            return false;
        };
        let growth = RequestGuard::new(self, request);
        let granted = match self.is_for_spare(grower) {
            true => self.with_state(|locked, _| locked.state.reserve_for_spare(growth.id(), more)),
            false => self.reserve_growth(target, growth.id(), more),
        };
        if granted {
            self.with_state(|locked, cx| match grower {
                Grower::Request(id) => {
                    locked
                        .state
                        .grown_for_request(growth.id(), *id, &mut cx.out);
                }
                Grower::Instance { id, .. } => locked.state.grown(growth.id(), *id, cx),
            });
        }
        granted
    }
}

/// Charges what a throwaway instance takes to the request that it is made for, and that of its snapshot.
#[cfg(feature = "warm-up")]
pub(crate) struct ThrowawayAccount<T: Send + 'static> {
    pub pool: Arc<Shared<T>>,
    pub target: Arc<Target>,
    pub request: RequestId<T>,
}

#[cfg(feature = "warm-up")]
impl<T: Send + 'static> GrowthAccount for ThrowawayAccount<T> {
    fn charge(&self, more: Amounts) -> bool {
        let grower = Grower::Request(self.request);
        self.pool.grow(&self.target, &grower, more)
    }

    /// What the request holds too much is given back when the instance is gone.
    fn refund(&self, _: Amounts) {}

    fn relieve(&self, count: usize) -> bool {
        self.pool.relieve(count)
    }

    /// The warm-up fails: that is told, and not counted.
    fn refused(&self) {}

    /// It is no lease.
    fn is_stopped(&self) -> bool {
        false
    }
}

impl<T: Send + 'static> GrowthAccount for Account<T> {
    fn charge(&self, more: Amounts) -> bool {
        let Some((entry, pool)) = self.keepers() else {
            return false;
        };
        let granted = pool.grow(&entry.target, &self.grower, more);
        if !granted {
            pool.with_state(|locked, _| locked.state.count_growth_refusal(entry.id));
        }
        granted
    }

    fn refund(&self, less: Amounts) {
        if let Some((_, pool)) = self.keepers() {
            pool.with_state(|locked, cx| match self.grower {
                // What a request holds too much is given back when it ends.
                Grower::Request(_) => {}
                Grower::Instance { id, .. } => locked.state.shrink(id, less, cx),
            });
        }
    }

    fn relieve(&self, count: usize) -> bool {
        self.keepers()
            .is_some_and(|(_, pool)| !pool.is_for_spare(&self.grower) && pool.relieve(count))
    }

    fn refused(&self) {
        if let Some((entry, pool)) = self.keepers() {
            pool.with_state(|locked, cx| {
                locked.state.count_growth_refusal(entry.id);
                let is_current = match self.grower {
                    Grower::Request(_) => true,
                    Grower::Instance { id, .. } => locked.state.is_current(id),
                };
                if is_current {
                    locked.state.note_failure(entry.id, cx);
                }
            });
        }
    }

    fn is_stopped(&self) -> bool {
        let Grower::Instance { seat, .. } = self.grower else {
            return false;
        };
        let entry = self.entry.upgrade();
        entry.is_some_and(|entry| entry.slot(seat as usize).is_stopped())
    }
}
