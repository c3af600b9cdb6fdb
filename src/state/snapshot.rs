//! Everything, as of one instant.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::records::amounts::{Budget, PerBudget};
use super::records::arena::Id;
use super::records::functions::{Function, FunctionCounts};
use super::records::group::Group;
use super::records::instances::InstanceId;
use super::{EntryId, State, Types};

/// Counts and sums, all of the same instant.
pub struct Snapshot<H: Types> {
    pub limits: PerBudget<u64>,
    pub charged: PerBudget<u64>,
    pub peak: PerBudget<u64>,
    pub overdraft: PerBudget<u64>,
    pub functions: Vec<FunctionSnapshot<H>>,
    pub entries: Vec<EntrySnapshot<H>>,
    pub instances: usize,
    pub dying: usize,
    pub modules_loaded: usize,
    pub totals: FunctionCounts,
    pub modules_known: usize,
    pub code_dropped: u64,
    pub compiling: usize,
    pub waiting: usize,
    pub refusals: u64,
    pub closed: bool,
}

pub struct FunctionSnapshot<H: Types> {
    pub id: Id<Function<H>>,
    pub name: Arc<str>,
    pub arguments: Arc<str>,
    pub definition: H::Definition,
    pub counts: FunctionCounts,
    pub pinned: bool,
    pub code_loaded: bool,
    /// Bytes of its module's code, now or when it was last loaded.
    pub code_bytes: u64,
}

pub struct EntrySnapshot<H: Types> {
    pub id: EntryId<H>,
    pub function: Id<Function<H>>,
    pub group: Group,
    pub handle: H::Entry,
    pub waiting: usize,
    /// Seat, instance, bytes of memory charged, nanoseconds since the clock's origin when it was made.
    pub instances: Vec<(usize, InstanceId<H>, u64, u64)>,
}

impl<H: Types> State<H> {
    pub fn snapshot(&self) -> Snapshot<H> {
        let entries: Vec<_> = self
            .entries
            .iter()
            .map(|(id, _)| self.entry_snapshot(id))
            .collect();
        let followers: usize = self.modules.iter().map(|(_, m)| m.followers.len()).sum();
        let seats: usize = entries.iter().map(|entry| entry.waiting).sum();
        Snapshot {
            limits: *self.ledger.limits(),
            charged: PerBudget::from_fn(|b| self.ledger.charged().get(b)),
            peak: *self.ledger.peak(),
            overdraft: self.ledger.overdraft(),
            functions: self
                .functions
                .iter()
                .map(|(id, f)| self.function_snapshot(id, f))
                .collect(),
            instances: self.instances.len(),
            dying: self.dying.len(),
            modules_loaded: self.loaded_modules(),
            totals: self.totals,
            modules_known: self.modules.len(),
            code_dropped: self.code_dropped,
            compiling: self.compile_turns.taken(),
            waiting: seats
                + followers
                + self.room_queue.len()
                + self.awaiting_frees.len()
                + self.compile_turns.len(),
            refusals: self.refused,
            closed: self.closed,
            entries,
        }
    }

    fn function_snapshot(&self, id: Id<Function<H>>, f: &Function<H>) -> FunctionSnapshot<H> {
        let module = &self.modules[f.module];
        FunctionSnapshot {
            id,
            name: f.name.clone(),
            arguments: f.arguments.clone(),
            definition: f.definition.clone(),
            counts: f.counts,
            pinned: f.terms.pinned,
            code_loaded: module.is_loaded(),
            code_bytes: module.code_bytes.unwrap_or(0),
        }
    }

    fn entry_snapshot(&self, id: EntryId<H>) -> EntrySnapshot<H> {
        let entry = &self.entries[id];
        let instances = entry.taken().map(|(seat, id)| {
            let instance = &self.instances[id];
            let bytes = instance.charge.amounts().get(Budget::Memory);
            (seat, id, bytes, instance.created_at)
        });
        EntrySnapshot {
            id,
            function: entry.function,
            group: entry.group.clone(),
            handle: entry.handle.clone(),
            waiting: entry.queue.len(),
            instances: instances.collect(),
        }
    }
}
