//! What a configuration does to a builder.

use super::{Config, File, FileLimits, FileModuleLimits, Preset};
use crate::pool::api::build_error::LimitsError;
use crate::pool::api::builder::PoolBuilder;
use crate::pool::api::function_name::FunctionName;
use crate::pool::api::limits::Limits;
use crate::runtime::{ModuleLimit, ModuleLimits};
use crate::state::Budget;

impl<T: Send + 'static> PoolBuilder<T> {
    /// All that a [`Config`] says: each of its keys is a call of the method of that name, and its limits are each
    /// set apart. What it does not name stays as it was; what is set after it wins. Its functions' settings are for
    /// definitions that say nothing themselves, [`Pool::replace`](crate::Pool::replace) included; an engine of the
    /// pool's own then counts fuel, or looks at the time, if any function needs it. Its artifacts are opened when the pool is
    /// built: see [`Config::artifact_settings`].
    pub fn config(self, config: &Config) -> Self {
        let mut builder = config.0.apply(self);
        if let Some(artifacts) = config.artifact_settings() {
            builder.artifact_settings = Some(artifacts.clone());
        }
        builder
    }
}

/// Sets what is said.
fn with<B, V>(builder: B, value: Option<V>, set: impl FnOnce(B, V) -> B) -> B {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

/// More than a machine can address is refused when the pool is built.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl File {
    fn apply<T: Send + 'static>(&self, builder: PoolBuilder<T>) -> PoolBuilder<T> {
        let f = self;
        let b = with(builder, f.preset, |b, preset| match preset {
            Preset::Scylla => b.scylla(),
            Preset::Strangers => b.strangers(),
        });
        let b = with(b, f.name.as_deref(), |b, name| b.name(name));
        let b = with(b, f.policy, |b, policy| b.policy(policy));
        let b = with(b, f.max_instance_memory, |b, n| b.max_instance_memory(n.0));
        let b = with(b, f.max_idle_memory, |b, n| b.max_idle_memory(n.0));
        let b = with(b, f.max_table_elements, |b, n| b.max_table_elements(n.0));
        let b = with(b, f.max_instances_per_entry, |b, n| {
            b.max_instances_per_entry(size(n.0))
        });
        let b = with(b, f.max_compilations, |b, n| b.max_compilations(size(n.0)));
        let b = with(b, f.max_group_memory, |b, n| b.max_group_memory(n.0));
        let b = with(b, f.max_group_stack, |b, n| b.max_group_stack(n.0));
        let b = with(b, f.max_group_code, |b, n| b.max_group_code(n.0));
        let b = with(b, f.max_group_instances, |b, n| {
            b.max_group_instances(n.few())
        });
        let b = with(b, f.max_group_waiting, |b, n| b.max_group_waiting(n.few()));
        let b = with(b, f.max_group_compilations, |b, n| {
            b.max_group_compilations(n.few())
        });
        let b = with(b, f.max_group_definitions, |b, n| {
            b.max_group_definitions(n.few())
        });
        let b = with(b, f.max_uses, |b, n| b.max_uses(n.0));
        let b = with(b, f.reuse, |b, reuse| b.reuse(reuse));
        let b = with(b, f.max_spares, |b, n| b.max_spares(size(n.0)));
        let b = with(b, f.max_lifetime, |b, t| b.max_lifetime(t.0));
        let b = with(b, f.idle_timeout, |b, t| b.idle_timeout(t.0));
        let b = with(b, f.code_idle_timeout, |b, t| b.code_idle_timeout(t.0));
        let b = with(b, f.wait_timeout, |b, t| b.wait_timeout(t.0));
        let b = with(b, f.wait_for_room, |b, wait| b.wait_for_room(wait));
        let b = with(b, f.compile_cooldown, |b, t| b.compile_cooldown(t.0));
        let b = with(b, f.fuel, |b, n| b.fuel(n.0));
        let b = with(b, f.fuel_yield_interval, |b, n| b.fuel_yield_interval(n.0));
        let b = with(b, f.call_timeout, |b, t| b.call_timeout(t.0));
        let b = with(b, f.epoch_tick, |b, t| b.epoch_tick(t.0));
        let b = with(b, f.cancellable_calls, |b, can| b.cancellable_calls(can));
        let b = with(b, f.async_stack_size, |b, n| b.async_stack_size(size(n.0)));
        let b = with(b, f.max_wasm_stack, |b, n| b.max_wasm_stack(size(n.0)));
        let mut b = with(b, f.backtraces, |b, collect| b.backtraces(collect));
        if let Some(quarantine) = &f.quarantine {
            b = b.quarantine(quarantine.quarantine());
        }
        if let Some(billing) = &f.billing {
            b = b.billing(billing.billing());
        }
        if let Some(allocator) = &f.pooling_allocator {
            b = b.pooling_allocator(allocator.allocator());
        }
        if let Some(compiler) = &f.compiler {
            b = b.compile_in(compiler.process());
        }
        b.settings.limits = f.limits.apply(b.settings.limits);
        b.settings.modules = f.module_limits.apply(b.settings.modules);
        for (name, group) in &f.groups {
            b = b.group(name, group.share());
        }
        for (key, settings) in &f.functions {
            if let Some((name, arguments)) = FunctionName::from(key).parts() {
                let functions = &mut b.settings.functions;
                functions.set(name, arguments, settings.settings());
            }
        }
        b
    }

    /// No builder could ever build a pool with this, whatever else it is told: but what it is told after this.
    pub(super) fn check_limits(&self) -> Result<(), LimitsError> {
        // Of limits that have a default, others may be set in code.
        let unlimited = Limits::new().with(Budget::Mappings, None);
        let mut builder = self.apply(PoolBuilder::new(|_, _| ()).limits(unlimited));
        if self.max_wasm_stack.is_none() {
            // The least, in favour of `async_stack_size`: another may be set in code.
            builder = builder.max_wasm_stack(1);
        }
        builder.checked_limits()?;
        builder.validate_stack_size()
    }
}

impl FileLimits {
    fn apply(&self, limits: Limits) -> Limits {
        let said = [
            (Budget::Memory, self.memory.map(|limit| limit.0)),
            (Budget::Code, self.code.map(|limit| limit.0)),
            (Budget::Compile, self.compile.map(|limit| limit.0)),
            (Budget::Stack, self.stack.map(|limit| limit.0)),
            (Budget::Mappings, self.mappings.map(|limit| limit.0)),
            (Budget::Total, self.total.map(|limit| limit.0)),
            (Budget::Mapped, self.mapped.map(|limit| limit.0)),
            (Budget::Instances, self.instances.map(|limit| limit.0)),
        ];
        let said = said.into_iter();
        said.fold(limits, |limits, (budget, limit)| match limit {
            Some(limit) => limits.with(budget, limit),
            None => limits,
        })
    }
}

impl FileModuleLimits {
    fn apply(&self, limits: ModuleLimits) -> ModuleLimits {
        use ModuleLimit as M;
        let bytes = [
            (M::WasmBytes, self.wasm_bytes),
            (M::BodyBytes, self.body_bytes),
        ];
        let bytes = bytes.map(|(limit, said)| (limit, said.map(|limit| limit.0)));
        let counts = [
            (M::Types, self.types),
            (M::Imports, self.imports),
            (M::Functions, self.functions),
            (M::Tables, self.tables),
            (M::Memories, self.memories),
            (M::Globals, self.globals),
            (M::Exports, self.exports),
            (M::Segments, self.segments),
            (M::Locals, self.locals),
            (M::Nesting, self.nesting),
            (M::BrTableEntries, self.br_table_entries),
        ];
        let counts = counts.map(|(limit, said)| (limit, said.map(|limit| limit.0)));
        let said = bytes.into_iter().chain(counts);
        said.fold(limits, |limits, (limit, said)| match said {
            Some(most) => limits.with(limit, most.unwrap_or(u64::MAX)),
            None => limits,
        })
    }
}
