//! Charges a guest's memory before the guest has it.

use wasmtime::ResourceLimiter;

use super::sizes;
use super::system::{Relief, is_scarce, refused_by_system};
use crate::state::Amounts;

/// Where an instance gets more when what was reserved for it is used up. Called by the guest in the
/// middle of `memory.grow`, so it may evict others but must not wait for a lease.
pub(crate) trait GrowthAccount: Send + Sync {
    fn charge(&self, more: Amounts) -> bool;
    fn refund(&self, less: Amounts);
    /// The system refuses: evicts some that are idle; whether there were any.
    fn relieve(&self, count: usize) -> bool;
    /// A cap of the instance itself refused: only counted.
    fn refused(&self);
    /// Whether the lease that the instance is in is to stop, as somebody has said who does not hold it.
    fn is_stopped(&self) -> bool;
}

/// What an instance asked for and did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{requested} bytes of memory, and an instance may have {limit}")]
    Memory { requested: u64, limit: u64 },
    #[error("a table of {requested} elements, and a table may have {limit}")]
    Table { requested: u64, limit: u64 },
    #[error("{requested} bytes more than its module declares, and the memory budget has no room")]
    Budget { requested: u64 },
}

/// The limiter of one store. Every byte of linear memory, table and GC heap is charged before
/// wasmtime takes it; a refusal makes `memory.grow` return −1.
pub(crate) struct Meter {
    account: Box<dyn GrowthAccount>,
    /// Bytes one instance's memories may have together.
    max_memory: u64,
    /// Tables cannot have more than 32 bits of them.
    max_table_elements: u32,
    /// What may still be evicted for this instance when the system refuses to let it grow.
    relief: Relief,
    /// Reserved for what the module declares, and not asked for yet.
    prepaid: u64,
    /// Bytes charged for memories.
    memory: u64,
    /// Bytes charged for tables.
    tables: u64,
    /// The growth that wasmtime has been allowed last, in case it fails.
    granted: u64,
    /// Boxed: few meters ever refuse anything.
    refusal: Option<Box<Refusal>>,
}

impl Meter {
    pub fn new(
        account: Box<dyn GrowthAccount>,
        max_memory: u64,
        max_table_elements: u64,
        prepaid: u64,
    ) -> Self {
        Self {
            account,
            max_memory,
            max_table_elements: u32::try_from(max_table_elements).unwrap_or(u32::MAX),
            relief: Relief::default(),
            prepaid,
            memory: 0,
            tables: 0,
            granted: 0,
            refusal: None,
        }
    }

    /// Of a store that nothing is made in.
    pub fn closed() -> Self {
        Self::new(Box::new(Nobody), 0, 0, 0)
    }

    /// From now on growth is charged to this account, and what was reserved and not needed is
    /// given back. Returns what was needed: the bytes of memories and tables.
    pub fn rebind(&mut self, account: Box<dyn GrowthAccount>) -> u64 {
        self.account = account;
        self.prepaid = 0;
        self.held()
    }

    /// Whether somebody who does not hold the instance's lease has said that it is to stop.
    pub fn is_stopped(&self) -> bool {
        self.account.is_stopped()
    }

    pub fn held(&self) -> u64 {
        self.memory + self.tables
    }

    /// Bytes of linear memory (and GC heap) charged.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.as_deref().copied()
    }

    /// Whether the system had no memory for growth that was granted here.
    #[cfg(feature = "warm-up")]
    pub fn was_refused_by_system(&self) -> bool {
        self.relief.is_used()
    }

    fn take(&mut self, bytes: u64) -> bool {
        let from_prepaid = bytes.min(self.prepaid);
        if !self.account_for(bytes - from_prepaid) {
            self.refusal = Some(Box::new(Refusal::Budget { requested: bytes }));
            return false;
        }
        self.prepaid -= from_prepaid;
        true
    }

    fn account_for(&mut self, bytes: u64) -> bool {
        bytes == 0 || self.account.charge(Amounts::ZERO.memory(bytes))
    }

    fn refuse(&mut self, refusal: Refusal) -> wasmtime::Result<bool> {
        self.refusal = Some(Box::new(refusal));
        self.account.refused();
        Ok(false)
    }
}

/// Grants nothing.
struct Nobody;

impl GrowthAccount for Nobody {
    fn charge(&self, _: Amounts) -> bool {
        false
    }

    fn relieve(&self, _: usize) -> bool {
        false
    }

    fn refund(&self, _: Amounts) {}

    fn refused(&self) {}

    fn is_stopped(&self) -> bool {
        false
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.granted = 0;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let delta = desired.saturating_sub(current) as u64;
        let requested = self.memory.saturating_add(delta);
        if requested > self.max_memory {
            return self.refuse(Refusal::Memory {
                requested,
                limit: self.max_memory,
            });
        }
        let granted = self.take(delta);
        if granted {
            self.memory += delta;
            self.granted = delta;
        }
        Ok(granted)
    }

    /// After consent, only the system can still refuse; before it, nothing calls this: memories
    /// with pages of their own size are not admitted.
    ///
    /// Wasmtime does not try again; but the guest may, and then finds room that was made for it.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        let granted = std::mem::take(&mut self.granted);
        self.memory -= granted;
        self.account.refund(Amounts::ZERO.memory(granted));
        if refused_by_system(&error).as_ref().is_some_and(is_scarce)
            && let Some(count) = self.relief.next()
        {
            self.account.relieve(count);
        }
        Ok(())
    }

    /// What a table's growth fails on after consent (its maximum) is checked here, so that
    /// `table_grow_failed` has nothing to give back.
    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = u64::from(self.max_table_elements);
        // A place that was made for as many as the limit says has that as its maximum: then the limit refuses.
        if maximum.is_some_and(|maximum| desired > maximum && (maximum as u64) < limit) {
            return Ok(false);
        }
        if desired as u64 > limit {
            return self.refuse(Refusal::Table {
                requested: desired as u64,
                limit,
            });
        }
        let delta = sizes::table_bytes(desired.saturating_sub(current) as u64);
        let granted = self.take(delta);
        if granted {
            self.tables += delta;
        }
        Ok(granted)
    }
}
