//! Who waits for whom: a host function that leases again must not wait for itself.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::pool::hot::entry::Entry;

/// The entry that each thread waits for an instance of. Only under the lock.
pub(crate) struct Blocked<T: Send + 'static> {
    waits_for: HashMap<u64, Arc<Entry<T>>>,
}

impl<T: Send + 'static> Blocked<T> {
    pub fn new() -> Self {
        Self {
            waits_for: HashMap::new(),
        }
    }

    pub fn begin(&mut self, thread: u64, entry: Arc<Entry<T>>) {
        self.waits_for.insert(thread, entry);
    }

    pub fn end(&mut self, thread: u64) {
        self.waits_for.remove(&thread);
    }

    /// Whether every instance of `entry` is in a call that `thread` makes, or that a thread makes
    /// which waits, directly or through others, for what `thread` holds. Then nobody would ever
    /// wake it. An instance that is leased but in no call says nothing: its lease may end.
    pub fn would_wait_for_itself(&self, thread: u64, entry: &Arc<Entry<T>>) -> bool {
        let mut visited = vec![Arc::as_ptr(entry)];
        self.all_wait_for(thread, entry, &mut visited)
    }

    fn all_wait_for(
        &self,
        thread: u64,
        entry: &Arc<Entry<T>>,
        visited: &mut Vec<*const Entry<T>>,
    ) -> bool {
        entry.slots().all(|slot| match slot.calling() {
            0 => false,
            caller if caller == thread => true,
            caller => self.waits_for.get(&caller).is_some_and(|next| {
                // An entry that is being looked at already adds no way out.
                if visited.contains(&Arc::as_ptr(next)) {
                    return true;
                }
                visited.push(Arc::as_ptr(next));
                self.all_wait_for(thread, next, visited)
            }),
        })
    }
}
