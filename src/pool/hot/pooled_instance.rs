//! An instance with its place in the pool.

use std::sync::Arc;

use crate::pool::defined::Defined;
use crate::pool::shared::InstanceId;
use crate::runtime::Instance;

/// An instance with its place in the pool. In this order for the same reason as `Entry`.
#[repr(C)]
pub(crate) struct PooledInstance<T: Send + 'static> {
    /// The control word under which it may be leased.
    pub control: u64,
    pub seat: usize,
    pub uses: u64,
    pub instance: Instance<T>,
    pub id: InstanceId<T>,
    pub defined: Arc<Defined>,
    /// Nanoseconds since the clock's origin.
    pub created_at: u64,
}

impl<T: Send + 'static> PooledInstance<T> {
    /// Whether its first lease is its last one.
    #[inline(always)]
    pub fn is_leased_once(&self) -> bool {
        self.defined.max_uses <= 1
    }

    /// Whether this lease was its last one.
    #[inline(always)]
    pub fn is_used_up(&self) -> bool {
        self.uses >= self.defined.max_uses
    }
}
