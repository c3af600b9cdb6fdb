//! What whoever waits for the pool is told, or handed.

use crate::pool::hot::pooled_instance::PooledInstance;
use crate::pool::service::undelivered::Delivery;
use crate::pool::shared::{RequestId, Shared, Signal};
use crate::pool::wait::waiter::{self, Message};

pub(crate) enum Wakeup<T: Send + 'static> {
    Instance(Box<PooledInstance<T>>),
    Signal(Signal<T>),
}

pub(crate) type Waiter<T> = waiter::Waiter<Wakeup<T>>;

impl<T: Send + 'static> Message for Wakeup<T> {
    type Request = RequestId<T>;

    fn too_late() -> Self {
        Self::Signal(Signal::Late)
    }
}

impl<T: Send + 'static> Delivery<Shared<T>> for Waiter<T> {
    fn is_taken(&self) -> bool {
        self.is_empty()
    }

    fn take_back(&self, pool: &Shared<T>) -> Option<u64> {
        if let Some(undelivered) = Waiter::take_back(self) {
            pool.redirect(undelivered);
            if let Some(request) = self.request() {
                pool.with_state(|locked, cx| locked.state.abandon(request, &mut cx.out));
            }
        }
        None
    }
}
