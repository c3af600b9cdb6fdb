//! Whether instances are leased again.

use crate::pool::api::builder::PoolBuilder;
use crate::pool::api::definition::Definition;
use crate::state::Reuse;

impl<T: Send + 'static> PoolBuilder<T> {
    /// Whether instances are leased again; a definition may say otherwise. Default: [`Reuse::Warm`].
    ///
    /// With [`Reuse::Pristine`] each lease has an instance that nobody has used, whatever [`Self::max_uses`] says. When it
    /// ends well, a thread of the pool's destroys the instance and makes the next one, a **spare**, so that a lease costs
    /// little more than a warm one as long as spares last, and what an instance costs after that. (Without a housekeeper,
    /// the end of the lease destroys the instance, and [`Pool::sweep`](crate::Pool::sweep) makes spares.)
    ///
    /// A spare is an idle instance: charged, in [`Stats::idle`](crate::Stats::idle), and the first to go when room is needed.
    /// None is made but of loaded code, and in room that is free. How many a function has of them for a group follows its
    /// leases: twice as many, up to [`Self::max_spares`], whenever a lease has found none; and fewer by those that nobody needed
    /// for as long as an instance may be idle.
    ///
    /// The host's data is made and dropped on that thread, and start functions and [`Self::on_create`] run there, outside of any
    /// executor: what needs one cannot be made ahead. A spare that cannot be made is not tried again before a lease has found none.
    /// [`Self::on_recycle`] is not called, and [`Self::max_idle_memory`] does not matter to spares.
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.settings.reuse = reuse;
        self
    }

    /// Spares that a function may have for each group, with [`Reuse::Pristine`]; 0 for none. They are among the instances that
    /// it may have at all. Default: 8.
    pub fn max_spares(mut self, count: usize) -> Self {
        self.settings.max_spares = count;
        self
    }
}

impl Definition {
    /// Whether instances of this function are leased again, instead of what the pool says
    /// ([`PoolBuilder::reuse`]). [`Pool::replace`](crate::Pool::replace) may change it.
    ///
    /// ```
    /// use wasm_pool::{Definition, Pool, Reuse};
    ///
    /// let pool: Pool = Pool::builder().build()?;
    /// let wasm = wat::parse_str(
    ///     r#"(module (global $calls (mut i32) (i32.const 0))
    ///         (func (export "count") (result i32)
    ///             (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    ///             (global.get $calls)))"#,
    /// )?;
    /// let count = Definition::new("count").wasm(wasm).reuse(Reuse::Pristine);
    /// let count = pool.define::<(), i32>(count)?;
    /// assert_eq!((count.call("tenant", ())?, count.call("tenant", ())?), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.limits.reuse = Some(reuse);
        self
    }
}
