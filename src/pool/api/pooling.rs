//! Places for instances, made ahead: the setting, and what it makes of others.

use wasmtime::Engine;

use crate::pool::api::build_error::{BuildError, LimitsError};
use crate::pool::api::builder::PoolBuilder;
use crate::pool::api::limits::{LARGEST, Limits, check_at_most};
use crate::pool::defined::InstanceLimits;
use crate::pool::settings::Settings;
use crate::runtime::{INSTANCE_OVERHEAD, MAPPINGS_PER_MODULE, Places, PoolingAllocator, Unfit};
use crate::state::{Amounts, Budget};

/// As many as a process has address space for.
const MOST_INSTANCES: u64 = 32_000;
/// Memories and tables, as many as [`ModuleLimits::new`](crate::ModuleLimits::new) lets a module have.
const MOST_PER_INSTANCE: u64 = 100;

impl<T: Send + 'static> PoolBuilder<T> {
    /// The pool's own engine has places for instances, made by wasmtime's pooling allocator when the pool is built. To make an
    /// instance, and to destroy it, then takes a fraction of the time, and maps nothing; a pool whose leases are
    /// of instances that nobody used before ([`Self::reuse`]) gains most.
    ///
    /// - There are no more instances at once than places: [`Limits::instances`](crate::Limits::instances) is lowered to that.
    /// - What the places take as such is charged from the start, until the pool is gone (not until it is closed): 6 mappings for
    ///   each, 4 more for each further memory, and what they keep resident; and so for eight more. An instance is charged its memories, as ever; a table takes
    ///   whole pages.
    /// - A memory has up to [`Self::max_instance_memory`], and at most 4 GiB. Modules with more memories or tables than a place has
    ///   are refused when they are defined ([`DefineError::NoPlace`](crate::DefineError::NoPlace)). What is made for an instance to
    ///   import ([`Pool::imports`](crate::Pool::imports)) is made on demand.
    /// - Fiber stacks lie in places, too, as many as there are instances. A host function that calls its guest again as a task takes a
    ///   second one, which is charged to nobody here, and is the place of another's: who calls guests from host functions of tasks
    ///   makes more places than it needs. Where they lie is looked up in `/proc/self/maps`; where that cannot be read, calls within
    ///   tasks do not know what is left of their stacks.
    ///
    /// An engine of the host's own ([`Self::engine`]) has its own allocator. If that is a pooling one, what it keeps is charged in
    /// the same way. Default: instances are made on demand.
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

    /// The places make sense, the pool's own or those of the host's engine; and what follows from them holds, for
    /// instances and for the budgets.
    pub(super) fn checked_places(&mut self) -> Result<(), LimitsError> {
        let settings = &mut self.settings;
        if let Some(allocator) = settings.allocator {
            let (instances, memories, tables) = allocator.counts();
            let [memories, tables] = [memories, tables].map(u64::from);
            let field = "pooling_allocator.instances";
            check_at_most(field, instances.into(), MOST_INSTANCES)?;
            check_at_most("pooling_allocator.memories", memories, MOST_PER_INSTANCE)?;
            // There may be none.
            check_at_most("pooling_allocator.tables", tables.max(1), MOST_PER_INSTANCE)?;
            let InstanceLimits {
                memory,
                table_elements,
            } = settings.instance;
            settings.places = Some(Places::planned(allocator, memory, table_elements));
        } else {
            settings.places = self.engine.as_ref().and_then(Places::of);
        }
        let Some(places) = settings.places else {
            return Ok(());
        };
        settings.limits = settings.within_places(settings.limits);
        let most = places
            .max_memory
            .saturating_mul(places.memories_per_instance.into());
        let largest = self.max_instance_memory.unwrap_or(0).min(most);
        settings.limits.validate_places(&places.amounts(), largest)
    }

    /// What is brought by the host keeps what the pool promises.
    pub(super) fn check_engine(engine: &Engine) -> Result<(), BuildError> {
        match Places::unfit(engine) {
            Some(Unfit { setting, why }) => Err(BuildError::UnfitAllocator { setting, why }),
            None => Ok(()),
        }
    }
}

impl Settings {
    /// No more instances than there are places, where each instance has one.
    pub fn within_places(&self, limits: Limits) -> Limits {
        match self.places.and_then(|places| places.instances) {
            Some(places) => {
                let places = u64::from(places);
                let instances = limits.get(Budget::Instances).unwrap_or(places);
                limits.instances(instances.min(places))
            }
            None => limits,
        }
    }
}

impl Limits {
    /// What the places take leaves room for an instance with so much memory, and its module.
    pub(crate) fn validate_places(&self, places: &Amounts, memory: u64) -> Result<(), LimitsError> {
        let memory = memory.saturating_add(INSTANCE_OVERHEAD);
        for (budget, instance) in [
            (Budget::Memory, memory),
            (Budget::Stack, 0),
            (Budget::Mappings, MAPPINGS_PER_MODULE),
            (Budget::Total, memory),
            (Budget::Mapped, 0),
        ] {
            let value = self.get(budget).unwrap_or(u64::MAX);
            let needed = places.get(budget).saturating_add(instance);
            if value < needed || needed > LARGEST {
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
