//! What tasks have been handed and have not taken. An executor that is dropped may leak its tasks: whatever such
//! a task was handed before its deadline, and does not take by then, is taken back for the next.

use std::sync::Arc;

use crate::pool::shared::Shared;
use crate::sync::Mutex;

/// Something that a task has been handed.
pub(crate) trait Parcel<T: Send + 'static>: Send + Sync {
    /// Whether the task has taken it, or will never be handed it.
    fn is_collected(&self) -> bool;
    /// Takes it back, unless it has been collected. Never under a lock.
    fn take_back(&self, pool: &Shared<T>);
}

pub(crate) struct Unread<T: Send + 'static>(Mutex<List<T>>);

struct List<T: Send + 'static> {
    /// With the deadlines, in nanoseconds on the pool's clock.
    parcels: Vec<Due<T>>,
    /// When there are so many, those that were collected are sorted out.
    enough: usize,
}

type Due<T> = (u64, Arc<dyn Parcel<T>>);

/// Fewer are not worth a look.
const FEW: usize = 64;

impl<T: Send + 'static> Unread<T> {
    pub fn new() -> Self {
        Self(Mutex::new(List {
            parcels: Vec::new(),
            enough: FEW,
        }))
    }

    /// This is to be taken back when its deadline has come.
    pub fn add(&self, deadline: u64, parcel: Arc<dyn Parcel<T>>) {
        let all = {
            let mut list = self.0.lock();
            list.parcels.push((deadline, parcel));
            if list.parcels.len() < list.enough {
                return;
            }
            std::mem::take(&mut list.parcels)
        };
        // What is looked at may turn out to be dropped here, with host code in it: not under the lock.
        let (collected, unread): (Vec<_>, _) = all.into_iter().partition(|(_, p)| p.is_collected());
        drop(collected);
        let mut list = self.0.lock();
        list.enough = 2 * unread.len() + FEW;
        list.parcels.extend(unread);
    }

    /// Takes out what is due.
    pub fn due(&self, now: u64) -> Vec<Arc<dyn Parcel<T>>> {
        let mut list = self.0.lock();
        let all = std::mem::take(&mut list.parcels);
        let (due, later): (Vec<_>, _) = all.into_iter().partition(|(until, _)| *until <= now);
        list.parcels = later;
        due.into_iter().map(|(_, parcel)| parcel).collect()
    }
}
