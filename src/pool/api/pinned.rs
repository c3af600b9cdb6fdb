//! Functions whose code and one instance stay.

use crate::pool::api::definition::Definition;

impl Definition {
    /// Whether the compiled code of this function stays loaded, and one instance of it ready, although others need the room
    /// or nobody has used it for long. Default: no. [`Pool::replace`](crate::Pool::replace) may change it.
    ///
    /// Nothing is made ahead: what is pinned is there from its first use on, or from
    /// [`Pool::prepare`](crate::Pool::prepare), which brings the code. The one instance is that of whichever group is left when all
    /// others have gone; while any is leased, the idle ones go as ever.
    ///
    /// With [`Reuse::Pristine`](crate::Reuse::Pristine) the one instance may be the leased one, which nobody gets again: then what stays is
    /// the code.
    ///
    /// It goes all the same
    /// - for another instance of the same function;
    /// - for a group that stays within what is reserved for it ([`Share::reserve`](crate::Share::reserve)), when nothing else is
    ///   enough; and for its own group at a limit;
    /// - when limits are lowered so far, or the system refuses what the budgets grant, and nothing else is left;
    /// - when it is retired for another reason (a trap, [`PoolBuilder::max_lifetime`](crate::PoolBuilder::max_lifetime),
    ///   [`Self::max_uses`]), and by [`Pool::retain`](crate::Pool::retain), `replace`, `remove` and `close`.
    ///
    /// What is pinned is room that others never have: a request that lacks it is refused, and told so
    /// ([`BudgetExceeded::reserved`](crate::BudgetExceeded::reserved)). One that waits for room is refused at once if the code that is pinned
    /// leaves it none; instances may be leased, and it waits for them.
    ///
    /// ```
    /// use wasm_pool::{Definition, Limits, Pool};
    ///
    /// let pool: Pool = Pool::builder().limits(Limits::new().memory(200 << 10)).build()?;
    /// let wasm = wat::parse_str(r#"(module (memory 1) (func (export "f")))"#)?;
    /// let vital = pool.define::<(), ()>(Definition::new("vital").export("f").wasm(wasm.clone()).pinned(true))?;
    /// let other = pool.define::<(), ()>(Definition::new("other").export("f").wasm(wasm))?;
    /// vital.call("ops", ())?;
    /// for tenant in 0..100 {
    ///     other.call(tenant, ())?;
    /// }
    /// assert!(pool.stats().evictions > 0);
    /// assert_eq!(vital.acquire("ops")?.uses(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.limits.pinned = Some(pinned);
        self
    }
}
