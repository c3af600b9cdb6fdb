//! Places for instances, made ahead: the setting, and what it makes of others.

use crate::pool::api::build_error::LimitsError;
use crate::pool::api::builder::PoolBuilder;
use crate::pool::api::limits::{Limits, check_at_most};
use crate::pool::settings::Settings;
use crate::runtime::{INSTANCE_OVERHEAD, ModuleLimit, Places, PoolingAllocator};
use crate::state::{Amounts, Budget};

/// As many as a process has address space for.
const MOST_INSTANCES: u64 = 1 << 15;
/// Memories and tables, as many as [`ModuleLimits::new`](crate::ModuleLimits::new) lets a module have.
const MOST_PER_INSTANCE: u64 = 100;
/// What wasmtime sets aside for a memory.
const LARGEST_MEMORY: u64 = 4 << 30;

impl<T: Send + 'static> PoolBuilder<T> {
    /// The pool's own engine has places for instances, made by wasmtime's pooling allocator when the pool is built. To make an
    /// instance, and to destroy it, then takes a fraction of the time, and maps nothing; a pool whose leases are
    /// of instances that nobody used before ([`Self::reuse`]) gains most.
    ///
    /// - There are no more instances at once than places: [`Limits::instances`](crate::Limits::instances) is lowered to that.
    /// - What the places take as such is charged from the start, until the pool is gone (not until it is closed): 6 mappings for
    ///   each, 4 more for each further memory, and what they keep resident. An instance is charged its memories, as ever.
    /// - A memory has up to [`Self::max_instance_memory`], and at most 4 GiB. Modules with more memories or tables than a place has
    ///   are refused when they are defined. What is made for an instance to import ([`Pool::imports`](crate::Pool::imports)) is
    ///   made on demand.
    /// - Fiber stacks lie in places, too. A host function that calls its guest again as a task takes a second one, which is
    ///   not charged here; at most as many as there are places.
    ///
    /// Not with an engine of the host's own ([`Self::engine`]), which has its allocator. Default: instances are made on demand.
    ///
    /// ```
    /// use wasm_pool::{Budget, Definition, Function, Pool, PoolingAllocator, Reuse};
    ///
    /// let pool = Pool::builder()
    ///     .pooling_allocator(PoolingAllocator::for_instances(100).keep_resident(64 << 10))
    ///     .reuse(Reuse::Pristine)
    ///     .build()?;
    /// let wasm = wat::parse_str(r#"(module (memory 1) (func (export "f")))"#)?;
    /// let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm))?;
    /// f.call("tenant", ())?;
    /// assert_eq!(pool.limits().get(Budget::Instances), Some(100));
    /// assert!(pool.stats().budget(Budget::Memory).charged >= 100 * (64 << 10));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pooling_allocator(mut self, allocator: impl Into<Option<PoolingAllocator>>) -> Self {
        self.settings.allocator = allocator.into();
        self
    }

    /// The allocator makes sense, and what follows from it holds: for instances, for modules, and for the budgets.
    pub(super) fn checked_allocator(&mut self) -> Result<(), LimitsError> {
        let settings = &mut self.settings;
        let Some(allocator) = settings.allocator else {
            return Ok(());
        };
        let (instances, memories, tables) = allocator.counts();
        let (memories, tables) = (u64::from(memories), u64::from(tables));
        let field = "pooling_allocator.instances";
        check_at_most(field, instances.into(), MOST_INSTANCES)?;
        check_at_most("pooling_allocator.memories", memories, MOST_PER_INSTANCE)?;
        // There may be none.
        check_at_most("pooling_allocator.tables", tables.max(1), MOST_PER_INSTANCE)?;
        settings.instance.memory = settings.instance.memory.min(LARGEST_MEMORY);
        settings.instance.counts_gc_heaps = true;
        for (limit, count) in [
            (ModuleLimit::Memories, memories),
            (ModuleLimit::Tables, tables),
        ] {
            let count = settings.modules.get(limit).min(count);
            settings.modules = settings.modules.with(limit, count);
        }
        settings.limits = settings.within_places(settings.limits);
        let places = settings.places().map(|places| places.amounts());
        settings.limits.validate_places(&places.unwrap_or_default())
    }
}

impl Settings {
    /// Where instances lie, if that is made ahead.
    pub fn places(&self) -> Option<Places> {
        self.allocator.map(|allocator| Places {
            allocator,
            max_memory: self.instance.memory,
            table_elements: self.instance.table_elements,
        })
    }

    /// No more instances than there are places.
    pub fn within_places(&self, limits: Limits) -> Limits {
        match self.allocator {
            Some(allocator) => {
                let places = u64::from(allocator.counts().0);
                let instances = limits.get(Budget::Instances).unwrap_or(places);
                limits.instances(instances.min(places))
            }
            None => limits,
        }
    }
}

impl Limits {
    /// What the places take leaves room for an instance.
    fn validate_places(&self, places: &Amounts) -> Result<(), LimitsError> {
        for (budget, instance) in [
            (Budget::Memory, INSTANCE_OVERHEAD),
            (Budget::Mappings, 0),
            (Budget::Total, INSTANCE_OVERHEAD),
        ] {
            let value = self.get(budget).unwrap_or(u64::MAX);
            let needed = places.get(budget).saturating_add(instance);
            if value < needed {
                return Err(LimitsError::NeverFits {
                    field: budget.name(),
                    value,
                    what: "an instance beside all places of the pooling allocator",
                    needed,
                });
            }
        }
        Ok(())
    }
}
