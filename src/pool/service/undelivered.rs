//! What tasks have been handed and have not taken. An executor that is dropped may leak its tasks: whatever such
//! a task was handed before its deadline, and does not take by then, is taken back for the next.

use std::sync::Arc;

use crate::sync::Mutex;

/// Something that a task has been handed.
pub(crate) trait Delivery<P>: Send + Sync {
    /// Whether the task has taken it, or will never be handed it.
    fn is_taken(&self) -> bool;
    /// Takes it back, unless it has been taken. Never under a lock. Or says that this is too early, and after
    /// how many nanoseconds it is to be tried again.
    fn take_back(&self, pool: &P) -> Option<u64>;
}

pub(crate) struct Undelivered<P>(Mutex<List<P>>);

struct List<P> {
    /// With the deadlines, in nanoseconds on the pool's clock.
    deliveries: Vec<Due<P>>,
    /// When there are so many, those that were taken are sorted out.
    enough: usize,
}

type Due<P> = (u64, Arc<dyn Delivery<P>>);

/// Fewer are not sorted.
const FEW: usize = 64;

impl<P> Undelivered<P> {
    pub fn new() -> Self {
        Self(Mutex::new(List {
            deliveries: Vec::new(),
            enough: FEW,
        }))
    }

    /// This is to be taken back when its deadline has come.
    pub fn add(&self, deadline: u64, delivery: Arc<dyn Delivery<P>>) {
        let all = {
            let mut list = self.0.lock();
            list.deliveries.push((deadline, delivery));
            if list.deliveries.len() < list.enough {
                return;
            }
            std::mem::take(&mut list.deliveries)
        };
        // What was taken is dropped here, with host code in it: not under the lock.
        let (taken, undelivered): (Vec<_>, _) = all.into_iter().partition(|(_, p)| p.is_taken());
        drop(taken);
        let mut list = self.0.lock();
        list.enough = 2 * undelivered.len() + FEW;
        list.deliveries.extend(undelivered);
    }

    /// Takes out what is due.
    pub fn due(&self, now: u64) -> Vec<Arc<dyn Delivery<P>>> {
        let mut list = self.0.lock();
        let all = std::mem::take(&mut list.deliveries);
        let (due, later): (Vec<_>, _) = all.into_iter().partition(|(until, _)| *until <= now);
        list.deliveries = later;
        due.into_iter().map(|(_, delivery)| delivery).collect()
    }
}
