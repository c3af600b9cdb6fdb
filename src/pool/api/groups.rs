//! Giving groups their shares: to all, to some, from the start or while the pool runs.

use crate::pool::api::build_error::BuildError;
use crate::pool::api::definition::Definition;
use crate::pool::api::group_key::AsGroup;
use crate::pool::api::share::{Share, ShareError};
use crate::pool::shared::Shared;
use crate::pool::{Pool, PoolBuilder};
use crate::state::{Budget, Group, Owner};

impl<T: Send + 'static> PoolBuilder<T> {
    /// Bytes of memory that the instances of each group may have together of which [`Pool::set_group`] has said nothing, as
    /// by [`Share::limit`]; `u64::MAX` for any number. Default: that; 64 MiB in [`Self::strangers`]. Each group with an entry has a record of its own
    /// then, and an acquire that makes an instance looks at its group's.
    ///
    /// ```
    /// use wasm_pool::{AcquireError, Definition, Function, Pool};
    ///
    /// let pool = Pool::builder().max_group_memory(100 << 10).build()?;
    /// let wasm = wat::parse_str(r#"(module (memory 1) (func (export "f")))"#)?;
    /// let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm))?;
    /// let held = f.acquire("greedy")?;
    /// let error = f.acquire("greedy").map(drop).unwrap_err();
    /// assert!(matches!(error, AcquireError::BudgetExceeded(short) if short.of_group));
    /// f.call("modest", ())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_group_memory(mut self, bytes: u64) -> Self {
        self.settings.group_terms.limits.set(Budget::Memory, bytes);
        self
    }

    /// The same for the fiber stacks of its tasks. Default: any number; 16 MiB in [`Self::strangers`].
    pub fn max_group_stack(mut self, bytes: u64) -> Self {
        self.settings.group_terms.limits.set(Budget::Stack, bytes);
        self
    }

    /// The same for the code that its calls use, in full, whoever uses it as well: a group that is at this limit answers for the code that it has
    /// not used for longest no more, and its own idle instances of that go (see [`Share::limit`]). Default: any amount.
    pub fn max_group_code(mut self, bytes: u64) -> Self {
        self.settings.group_terms.limits.set(Budget::Code, bytes);
        self
    }

    /// Instances that each group may have at once of which [`Pool::set_group`] has said nothing, as by
    /// [`Share::max_instances`]; `u32::MAX` for any number. Default: that.
    pub fn max_group_instances(mut self, count: u32) -> Self {
        self.settings.group_terms.counts.instances = count;
        self
    }

    /// Requests of it that may wait at once, as by [`Share::max_waiting`]; `u32::MAX` for any number. Default: that; 64 in
    /// [`Self::strangers`].
    pub fn max_group_waiting(mut self, count: u32) -> Self {
        self.settings.group_terms.counts.waiting = count;
        self
    }

    /// Compilations that may run for it at once, as by [`Share::max_compilations`]; `u32::MAX` for any number. Default:
    /// that.
    ///
    /// [`Self::build`] refuses 0, as [`BuildError::Share`].
    pub fn max_group_compilations(mut self, count: u32) -> Self {
        self.settings.group_terms.counts.compilations = count;
        self
    }

    /// Functions that may be defined on behalf of it, as by [`Share::max_definitions`]; `u32::MAX` for any number. Default: that; 64 in
    /// [`Self::strangers`].
    pub fn max_group_definitions(mut self, count: u32) -> Self {
        self.settings.group_terms.counts.definitions = count;
        self
    }

    /// What a group is given from the start, as by [`Pool::set_group`]; what was given to it before is replaced.
    ///
    /// What makes no sense is an error of [`Self::build`], [`BuildError::Share`].
    pub fn group(mut self, group: impl AsGroup, share: Share) -> Self {
        let group = group.key().to_group();
        let shares = &mut self.settings.shares;
        shares.retain(|(other, _)| *other != group);
        shares.push((group, share));
        self
    }
}

impl Definition {
    /// On whose behalf it is defined: it counts among the functions that this group may have defined
    /// ([`Share::max_definitions`]), until it is removed, or replaced by one that names another owner. A replacement that names none leaves
    /// the owner as it was. Who may call it is another thing: any group, as ever.
    ///
    /// ```
    /// use wasm_pool::{DefineError, Definition, Pool};
    ///
    /// let pool: Pool = Pool::builder().max_group_definitions(1).build()?;
    /// let wasm = wat::parse_str(r#"(module (func (export "f")))"#)?;
    /// let function = |name: &'static str| Definition::new(name).export("f").wasm(wasm.clone()).owner("tenant");
    /// pool.define::<(), ()>(function("tenant.a"))?;
    /// let refused = pool.define::<(), ()>(function("tenant.b")).map(drop);
    /// assert!(matches!(refused, Err(DefineError::TooMany { limit: 1, .. })));
    /// pool.remove("tenant.a")?;
    /// pool.define::<(), ()>(function("tenant.b"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn owner(mut self, group: impl AsGroup) -> Self {
        let group = group.key().to_group();
        let answers = false;
        self.owner = Some(Owner { group, answers });
        self
    }

    /// As [`Self::owner`]; and what the function takes counts in this group's share, in place of the groups' that call it. So a
    /// tenant that brings a function, and does not call it, has what others' calls of it take within its own reservation, limits,
    /// weight and counts ([`Pool::set_group`]); and where each function is to have a share of its own, it is named after it:
    ///
    /// ```
    /// use wasm_pool::{AcquireError, Budget, Definition, Function, Pool, Share};
    ///
    /// let pool: Pool = Pool::builder().build()?;
    /// pool.set_group("f", Share::new().limit(Budget::Memory, 200_000))?;
    /// let wasm = wat::parse_str(r#"(module (memory 2) (func (export "f")))"#)?;
    /// let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm).accountable("f"))?;
    /// let _lease = f.acquire("alice")?;
    /// let Err(AcquireError::BudgetExceeded(error)) = f.acquire("bob") else { panic!() };
    /// assert!(error.of_group);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Instances are not shared across groups for that. Bills ([`PoolBuilder::billing`]) name who has called, and in reports and
    /// refusals that list who holds what it is the calling group that holds. A replacement that says neither this nor `owner` leaves both as they were; one
    /// that changes in whose share the function counts is another function of the same name: what was leased of the old one ends
    /// in the old one's share.
    pub fn accountable(mut self, group: impl AsGroup) -> Self {
        let group = group.key().to_group();
        let answers = true;
        self.owner = Some(Owner { group, answers });
        self
    }
}

impl<T: Send + 'static> Pool<T> {
    /// Gives a group its share of the budgets from now on, in place of what it had; [`Share::new`] takes it away. The
    /// group need not have been used before. Groups that are never named here have nothing reserved, and the limits
    /// that the builder gives to all ([`PoolBuilder::max_group_memory`] and the others).
    ///
    /// Takes the pool's lock for a look at every pair of function and group; leases cost what they did. While
    /// anything is reserved, making room looks at what it may not take, and a sweep at every group that is named here.
    ///
    /// ```
    /// use wasm_pool::{Budget, Definition, Function, Limits, Pool, Share};
    ///
    /// let pool = Pool::builder().limits(Limits::new().memory(1 << 20)).build()?;
    /// pool.set_group("quiet", Share::new().reserve(Budget::Memory, 256 << 10))?;
    /// let wasm = wat::parse_str(r#"(module (memory 1) (func (export "f")))"#)?;
    /// let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm))?;
    /// f.call("quiet", ())?;
    /// // Others take what they can get, again and again, but not this instance.
    /// for tenant in 0..100 {
    ///     f.call(tenant, ())?;
    /// }
    /// assert!(pool.stats().evictions > 0);
    /// assert_eq!(f.acquire("quiet")?.uses(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ShareError`], and nothing changes: most often, more would be reserved in all than there is. (Limits that are
    /// lowered later are not compared.)
    pub fn set_group(&self, group: impl AsGroup, share: Share) -> Result<(), ShareError> {
        self.shared.set_group(&group.key().to_group(), share)
    }
}

impl<T: Send + 'static> Shared<T> {
    /// What the builder was told of groups.
    pub(super) fn set_groups(&self) -> Result<(), BuildError> {
        if self.settings.group_terms.counts.compilations == 0 {
            return Err(BuildError::Share(ShareError::NoCompilations));
        }
        let shares = self.settings.shares.iter();
        let mut set = shares.map(|(group, share)| self.set_group(group, *share));
        set.try_for_each(|set| set.map_err(BuildError::Share))
    }

    fn set_group(&self, group: &Group, share: Share) -> Result<(), ShareError> {
        share.validate()?;
        let set = self.with_state(|locked, cx| (locked.state).set_share(group, share.terms(), cx));
        set.map_err(|over| ShareError::Overcommitted {
            group: group.clone(),
            budget: over.budget,
            requested: over.requested,
            reserved: over.reserved,
            limit: over.limit,
        })
    }
}
