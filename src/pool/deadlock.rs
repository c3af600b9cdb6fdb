//! Who waits for whom: a host function that leases again must not wait for itself.

use hashbrown::HashMap;

use crate::pool::shared::{EntryId, State};

/// The entry that each thread waits for an instance of. Only under the lock.
pub(crate) struct Blocked<T: Send + 'static> {
    waits_for: HashMap<u64, EntryId<T>>,
}

impl<T: Send + 'static> Blocked<T> {
    pub fn new() -> Self {
        Self {
            waits_for: HashMap::new(),
        }
    }

    pub fn begin(&mut self, thread: u64, entry: EntryId<T>) {
        self.waits_for.insert(thread, entry);
    }

    pub fn end(&mut self, thread: u64) {
        self.waits_for.remove(&thread);
    }

    /// Whether every instance that could end a wait for `entry` is in a call that `thread` makes, or that a thread makes
    /// which waits, directly or through others, for what `thread` holds. Then nobody would ever
    /// wake it. An instance that is leased but in no call says nothing: its lease may end.
    pub fn would_wait_for_itself(&self, state: &State<T>, thread: u64, entry: EntryId<T>) -> bool {
        let mut visited = vec![entry];
        self.all_wait_for(state, thread, entry, &mut visited)
    }

    fn all_wait_for(
        &self,
        state: &State<T>,
        thread: u64,
        entry: EntryId<T>,
        visited: &mut Vec<EntryId<T>>,
    ) -> bool {
        let awaited = state.awaited_seats(entry);
        // With none, it has been served, or told that it will not be.
        !awaited.is_empty()
            && awaited
                .into_iter()
                .all(|(entry, seat)| match entry.slot(seat).calling() {
                    0 => false,
                    caller if caller == thread => true,
                    caller => self.waits_for.get(&caller).is_some_and(|next| {
                        // An entry that is being looked at already adds no way out.
                        if visited.contains(next) {
                            return true;
                        }
                        visited.push(*next);
                        self.all_wait_for(state, thread, *next, visited)
                    }),
                })
    }
}
