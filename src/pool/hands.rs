//! The shell's hands: idle instances that it took out of their slots, under the lock.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::pool::api::error::Asker;
use crate::pool::hot::entry::{Entry, Live};
use crate::pool::shared::{InstanceId, Kept};
use crate::state::{Slots, Stamp};

/// An instance, and whose it is.
pub(crate) struct Held<T: Send + 'static> {
    pub asker: Arc<Asker>,
    pub live: Box<Live<T>>,
}

pub(crate) struct Hands<T: Send + 'static> {
    held: HashMap<InstanceId<T>, Held<T>>,
    /// Whether what cannot be claimed is watched.
    watch: bool,
}

impl<T: Send + 'static> Hands<T> {
    pub fn new() -> Self {
        Self {
            held: HashMap::new(),
            watch: false,
        }
    }

    /// From now on, an instance that cannot be claimed is asked to report when its lease ends. So at
    /// the last look before a sleep each instance is either in hand, or will be heard of.
    pub fn watch_what_is_leased(&mut self) {
        self.watch = true;
    }

    pub fn hold(&mut self, entry: &Entry<T>, live: Box<Live<T>>) {
        let asker = entry.asker.clone();
        self.held.insert(live.id, Held { asker, live });
    }

    pub fn take(&mut self, id: InstanceId<T>) -> Option<Held<T>> {
        self.held.remove(&id)
    }
}

impl<T: Send + 'static> Slots<Kept<T>> for Hands<T> {
    fn claim(&mut self, entry: &Arc<Entry<T>>, seat: usize, id: InstanceId<T>) -> bool {
        let slot = entry.slot(seat);
        loop {
            match slot.claim() {
                Some(live) => {
                    debug_assert!(live.id == id, "a seat's instance lies in its slot");
                    self.hold(entry, live);
                    return true;
                }
                None if !self.watch || slot.watch() => return false,
                // Its lease ended just now.
                None => {}
            }
        }
    }

    fn restore(&mut self, entry: &Arc<Entry<T>>, seat: usize, id: InstanceId<T>) {
        if let Some(held) = self.take(id) {
            entry.slot(seat).restore(held.live);
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

    fn add_seats(&mut self, entry: &Arc<Entry<T>>, count: usize) {
        entry.add_seats(count);
    }
}
