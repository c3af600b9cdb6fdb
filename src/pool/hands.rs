//! The shell's hands: idle instances that it took out of their slots, under the lock.

use std::sync::Arc;

use hashbrown::HashMap;

use super::entry::{Entry, Parked};
use super::shared::{InstanceId, Kept};
use crate::state::{Slots, Stamp};

pub(crate) struct Hands<T: Send + 'static> {
    held: HashMap<InstanceId<T>, Box<Parked<T>>>,
}

impl<T: Send + 'static> Hands<T> {
    pub fn new() -> Self {
        Self {
            held: HashMap::new(),
        }
    }

    pub fn hold(&mut self, id: InstanceId<T>, parked: Box<Parked<T>>) {
        self.held.insert(id, parked);
    }

    pub fn take(&mut self, id: InstanceId<T>) -> Option<Box<Parked<T>>> {
        self.held.remove(&id)
    }
}

impl<T: Send + 'static> Slots<Kept<T>> for Hands<T> {
    fn claim(&mut self, entry: &Arc<Entry<T>>, seat: usize, id: InstanceId<T>) -> bool {
        match entry.slot(seat).claim() {
            Some(parked) => {
                self.hold(id, parked);
                true
            }
            None => false,
        }
    }

    fn restore(&mut self, entry: &Arc<Entry<T>>, seat: usize, id: InstanceId<T>) {
        if let Some(parked) = self.take(id) {
            entry.slot(seat).restore(parked);
        }
    }

    fn last_used(&self, entry: &Arc<Entry<T>>, seat: usize) -> Stamp {
        entry.slot(seat).last_used()
    }

    fn watch(&mut self, entry: &Arc<Entry<T>>, seat: usize) -> bool {
        entry.slot(seat).watch()
    }

    fn set_waited(&mut self, entry: &Arc<Entry<T>>, waited: bool) {
        entry.set_flag(waited);
    }

    fn set_version(&mut self, entry: &Arc<Entry<T>>, version: u64) {
        entry.set_version(version);
    }

    fn set_closed(&mut self, entry: &Arc<Entry<T>>) {
        entry.close();
    }

    fn is_forgotten(&self, entry: &Arc<Entry<T>>) -> bool {
        Arc::strong_count(entry) == 1
    }
}
