//! What a function is.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wasmparser::FuncType;
use wasmtime::Engine;

use crate::artifacts::module_hash;
use crate::pool::api::define_error::DefineError;
use crate::pool::api::exported_func::Export;
use crate::pool::api::function_name::{check_name, join};
use crate::pool::api::function_type::FunctionType;
use crate::pool::api::imports::Imports;
use crate::pool::defined::{CompileHeap, InstanceLimits, Source, SourceParts, Warmed};
use crate::pool::function_settings::FunctionLimits;
use crate::runtime::{
    Facts, HostImports, ModuleLimits, OwnNeeds, Places, TypeText, gc_heap, inspect,
};
use crate::state::{Owner, signature};

/// A function to define: a name and argument types, the wasm it comes from, the export it calls.
///
/// ```
/// use wasm_pool::Definition;
/// # let bytes = vec![];
/// let definition = Definition::new("math.add")
///     .args(["bigint", "bigint"])
///     .wasm(bytes)
///     .export("add");
/// assert_eq!(definition.signature(), "math.add(bigint, bigint)");
/// ```
#[derive(Clone)]
pub struct Definition {
    name: Arc<str>,
    arguments: Arc<[String]>,
    wasm: Option<Arc<[u8]>>,
    export: Option<Arc<str>>,
    /// `None`: what the pool's linker has.
    imports: Option<Arc<dyn Any + Send + Sync>>,
    /// `None`: whatever the export has.
    ty: Option<FunctionType>,
    /// The export that instances are warmed up by.
    warm_up: Option<Arc<str>>,
    pub(super) limits: FunctionLimits,
    pub(super) owner: Option<Owner>,
    may_change_type: bool,
}

impl Definition {
    /// A function of this name, without arguments so far. A name has 1 to 512 bytes, without white
    /// space, control characters, parentheses and commas: others are refused when it is defined.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            arguments: Arc::default(),
            wasm: None,
            export: None,
            imports: None,
            ty: None,
            warm_up: None,
            limits: FunctionLimits::default(),
            owner: None,
            may_change_type: false,
        }
    }

    /// The types of the arguments, as the host spells them: `bigint`, `decimal(10, 2)`,
    /// `map<text, frozen<list<int>>>`. Functions of one name with other argument types are other
    /// functions.
    ///
    /// Spaces matter only between two words. A type has 1 to 512 bytes, and all together 8 KiB at
    /// most; brackets match, a comma stands only within them, and there are no control characters:
    /// others are refused when the function is defined.
    pub fn args<S: AsRef<str>>(mut self, types: impl IntoIterator<Item = S>) -> Self {
        let types: Vec<_> = types.into_iter().map(|t| t.as_ref().to_owned()).collect();
        self.arguments = types.into();
        self
    }

    /// The module, in WebAssembly's binary format. The same bytes under two names are one module;
    /// pass an `Arc<[u8]>` to share them.
    pub fn wasm(mut self, bytes: impl Into<Arc<[u8]>>) -> Self {
        self.wasm = Some(bytes.into());
        self
    }

    /// The export to call. Without one, the last part of the name: `add` of `math.add`.
    pub fn export(mut self, name: impl Into<Arc<str>>) -> Self {
        self.export = Some(name.into());
        self
    }

    /// The wasm type that the export must have: another is refused when the function is defined
    /// ([`DefineError::WrongType`]). For functions that are called with values: handles with wasm types
    /// are checked anyway.
    ///
    /// The pool cannot derive it from [`Self::args`]. Those are types of the host's, and how they are
    /// passed is between the host and the guest: a string is two parameters (pointer and length) or one
    /// (packed), a null none or a flag, a row perhaps a single pointer for all columns.
    pub fn ty(mut self, ty: FunctionType) -> Self {
        self.ty = Some(ty);
        self
    }

    /// What the module imports, made by [`Pool::imports`](crate::Pool::imports) of the pool that it is
    /// defined in. Without it, what the pool's linker has.
    ///
    /// Modules of the same bytes with other imports are other modules: compiled, mapped and charged
    /// apart. Share [`Imports`] among all definitions that can have the same.
    pub fn imports<T: Send + 'static>(mut self, imports: &Imports<T>) -> Self {
        self.imports = Some(imports.erased());
        self
    }

    /// Runs this export, `() -> ()`, once, in an instance that is thrown away, and lets every instance of the function
    /// begin with what the memories and globals of that one held then: an interpreter builds its tables once, and
    /// not in each instance. (Feature `warm-up`.)
    ///
    /// It is run by whoever needs the module's code first, before that is compiled, and only then: not by
    /// [`Pool::define`](crate::Pool::define), and not again while the code is loaded. In a pool with
    /// [`Artifacts`](crate::Artifacts), the snapshot is an artifact, and so is its code: whoever finds them, in this process
    /// or another, runs neither the export nor the compiler. (Without any, the export is run again when code is needed
    /// that was evicted.) A start function, and `_initialize` (a reactor's, by the convention of WASI), are run before it, and are not there
    /// any more in the module that instances are made of; all other exports are. The host's store data and
    /// [`PoolBuilder::on_create`](crate::PoolBuilder::on_create) have no part in it: hooks are called for each instance
    /// that is made from the snapshot, as ever.
    ///
    /// All of it is charged: the throwaway instance as any other, with its code, which is compiled as well; the snapshot
    /// as initial data of the module, which instances share until they write to it. It has as much fuel and
    /// time as a lease of the function, and may grow its memory as far as an instance may. The same bytes, warmed up
    /// by another export or not at all, are another module.
    ///
    /// Some things cannot be in a snapshot. Refused are, when the function is defined, modules that import memories,
    /// tables or globals, and exports of other types; and by the first acquire
    /// ([`ModuleError::WarmUp`](crate::ModuleError::WarmUp)), modules with instructions that change tables or drop
    /// passive segments, with mutable globals that hold references, and those that call an import meanwhile, or are
    /// refused memory.
    ///
    /// ```
    /// use wasm_pool::{Definition, Function, Pool};
    ///
    /// let wasm = wat::parse_str(
    ///     r#"(module (memory 1)
    ///         (func (export "fill") (i32.store (i32.const 8) (i32.const 42)))
    ///         (func (export "get") (result i32) (i32.load (i32.const 8))))"#,
    /// )?;
    /// let pool = Pool::builder().build()?;
    /// let get: Function<(), i32> =
    ///     pool.define(Definition::new("get").wasm(wasm).warm_up("fill"))?;
    /// assert_eq!(get.call("tenant", ())?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "warm-up")]
    pub fn warm_up(mut self, export: impl Into<Arc<str>>) -> Self {
        self.warm_up = Some(export.into());
        self
    }

    /// Units of fuel for each lease of this function, instead of the pool's.
    pub fn fuel(mut self, units: u64) -> Self {
        self.limits.fuel = Some(units);
        self
    }

    /// Wall-clock time for each lease of this function, instead of the pool's.
    pub fn call_timeout(mut self, limit: Duration) -> Self {
        self.limits.timeout = Some(limit);
        self
    }

    /// Bytes of linear memory, and of its GC heap, that an instance of this function may grow to, at most what the pool lets
    /// any instance have ([`PoolBuilder::max_instance_memory`](crate::PoolBuilder::max_instance_memory)); more is
    /// [`DefineError::Limits`], and so is zero. A module that declares more is refused when it is
    /// defined, one that its warm-up has made larger when it is acquired; growth beyond it is refused to the guest, and
    /// counts for a quarantine.
    ///
    /// ```
    /// use wasm_pool::{Definition, Pool};
    ///
    /// let pool: Pool = Pool::builder().build()?;
    /// let wasm = wat::parse_str(
    ///     r#"(module (memory 1) (func (export "grow") (result i32) (memory.grow (i32.const 1))))"#,
    /// )?;
    /// let small = Definition::new("small").export("grow").wasm(wasm).max_memory(128 << 10);
    /// let grow = pool.define::<(), i32>(small)?;
    /// assert_eq!(grow.call("tenant", ())?, 1);
    /// assert_eq!(grow.call("tenant", ())?, -1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.limits.max_memory = Some(bytes);
        self
    }

    /// Leases that an instance of this function may have, instead of the pool's
    /// ([`PoolBuilder::max_uses`](crate::PoolBuilder::max_uses)): the last one destroys it. Zero is
    /// [`DefineError::Limits`]. See [`Self::reuse`] for instances that are leased but once.
    pub fn max_uses(mut self, uses: u64) -> Self {
        self.limits.max_uses = Some(uses);
        self
    }

    /// Instances of this function that each group may have at once, leased and idle, at most what the pool lets any function have
    /// ([`PoolBuilder::max_instances_per_entry`](crate::PoolBuilder::max_instances_per_entry)); more is
    /// [`DefineError::Limits`], and so is zero. An acquire beyond it waits, as one beyond the pool's does. With 1, a
    /// guest is never run twice at once for a group.
    ///
    /// [`Pool::replace`](crate::Pool::replace) may change it: leases that are too many then end as they please, those too that are
    /// being made for somebody, and no other acquire gets an instance until they are few enough.
    ///
    /// ```
    /// use wasm_pool::{AcquireError, Definition, Pool};
    ///
    /// let pool: Pool = Pool::builder().build()?;
    /// let wasm = wat::parse_str(r#"(module (func (export "f")))"#)?;
    /// let f = pool.define::<(), ()>(Definition::new("f").wasm(wasm).max_instances(1))?;
    /// let lease = f.acquire("tenant")?;
    /// let refused = f.try_acquire("tenant");
    /// assert!(matches!(refused, Err(AcquireError::WouldBlock { .. })));
    /// drop(lease);
    /// assert!(f.try_acquire("tenant").is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_instances(mut self, count: u64) -> Self {
        self.limits.max_instances = Some(count);
        self
    }

    /// How long an instance of this function may be idle, instead of the pool's
    /// ([`PoolBuilder::idle_timeout`](crate::PoolBuilder::idle_timeout)); `None` for any time. It is evicted by the first sweep after
    /// that, in whole milliseconds: sweeps are as far apart as the pool's own timeouts ask for, at most a second, and with the
    /// pool's coarse clock an instance may stay for as long again. 49 days and more are for ever. Room for others evicts it as ever.
    ///
    /// Each sweep looks at all instances of such functions, and passes over those that stay longer than others.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wasm_pool::{Definition, Function, ManualClock, Pool};
    ///
    /// let clock = ManualClock::new();
    /// let pool = Pool::builder().clock(clock.clone()).no_housekeeper().build()?;
    /// let wasm = wat::parse_str(r#"(module (func (export "f")))"#)?;
    /// let rare = Definition::new("rare").export("f").wasm(wasm).idle_timeout(Duration::from_secs(3600));
    /// let rare: Function<(), ()> = pool.define(rare)?;
    /// rare.call("tenant", ())?;
    /// clock.advance(Duration::from_secs(60));
    /// pool.sweep();
    /// assert_eq!(pool.stats().idle, 1, "others go after five seconds");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.limits.idle_timeout = Some(timeout.into());
        self
    }

    /// Says that this definition may give its function other wasm types, when it replaces another:
    /// without it, [`Pool::replace`](crate::Pool::replace) refuses that. Handles with the old types
    /// then get [`AcquireError::TypeChanged`](crate::AcquireError::TypeChanged).
    pub fn allow_type_change(mut self) -> Self {
        self.may_change_type = true;
        self
    }

    /// Name and argument types, as errors and reports spell them.
    pub fn signature(&self) -> String {
        let as_given = |_| self.arguments.join(", ").into();
        let arguments = join(&self.arguments).unwrap_or_else(as_given);
        signature(&self.name, &arguments)
    }

    pub(crate) fn into_parts(self) -> Result<Parts, DefineError> {
        let named = check_name(&self.name).and_then(|()| join(&self.arguments));
        let arguments = named.map_err(|source| DefineError::Name {
            target: shown(&self.signature()),
            source,
        })?;
        let export = self.export.unwrap_or_else(|| {
            let last = self.name.rsplit('.').next().unwrap_or(&self.name);
            last.into()
        });
        Ok(Parts {
            signature: signature(&self.name, &arguments).into(),
            name: self.name,
            arguments,
            wasm: self.wasm,
            export,
            imports: self.imports,
            ty: self.ty,
            warm_up: self.warm_up,
            limits: self.limits,
            owner: self.owner,
            may_change_type: self.may_change_type,
        })
    }
}

/// What may be too long to read, or not be readable at all.
fn shown(text: &str) -> Arc<str> {
    let short: String = text.chars().take(64).collect();
    short.escape_debug().to_string().into()
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition")
            .field("signature", &self.signature())
            .field("export", &self.export)
            .field("wasm_bytes", &self.wasm.as_ref().map(|wasm| wasm.len()))
            .finish()
    }
}

pub(crate) struct Parts {
    pub signature: Arc<str>,
    pub name: Arc<str>,
    pub arguments: Arc<str>,
    pub wasm: Option<Arc<[u8]>>,
    pub export: Arc<str>,
    pub imports: Option<Arc<dyn Any + Send + Sync>>,
    pub ty: Option<FunctionType>,
    pub warm_up: Option<Arc<str>>,
    pub limits: FunctionLimits,
    pub owner: Option<Owner>,
    pub may_change_type: bool,
}

impl Parts {
    /// Reads the module's sections, and checks what can be checked without compiling it.
    pub fn inspect<S: sealed::Check, T: 'static>(
        &self,
        engine: &Engine,
        imports: &Arc<HostImports<T>>,
        limits: InstanceLimits,
        modules: &ModuleLimits,
        places: Option<&Places>,
    ) -> Result<(Source<T>, FuncType), DefineError> {
        let function = || self.signature.clone();
        let Some(wasm) = self.wasm.clone() else {
            return Err(DefineError::NoWasm { target: function() });
        };
        let mut facts = inspect(&wasm, modules).map_err(|source| DefineError::Module {
            target: function(),
            source,
        })?;
        let declared = facts.export(&self.export);
        let Some(declared) = declared else {
            return Err(DefineError::MissingExport {
                target: function(),
                export: self.export.to_string(),
                available: facts.describe_exports(),
            });
        };
        let is_other = |ty: &&FunctionType| **ty != FunctionType::declared(declared);
        let expected = match self.ty.as_ref().filter(is_other) {
            Some(ty) => Some(ty.to_string()),
            None => (!S::matches(engine, declared)).then(S::describe),
        };
        if let Some(expected) = expected {
            return Err(DefineError::WrongType {
                target: function(),
                export: self.export.to_string(),
                found: TypeText(declared).to_string(),
                expected,
            });
        }
        let imports = self.imports(imports)?;
        let own = imports
            .check(&wasm)
            .map_err(|source| DefineError::Imports {
                target: function(),
                source,
            })?;
        let declared = declared.clone();
        self.check_warm_up(&facts, own == OwnNeeds::default())?;
        let collects = gc_heap(engine, &facts).is_some();
        let lack = places.and_then(|places| places.lack(&facts, collects));
        facts.add_own(&own);
        if facts.memory_bytes > limits.memory {
            return Err(DefineError::MemoryTooLarge {
                target: function(),
                requested: facts.memory_bytes,
                limit: limits.memory,
            });
        }
        if facts.largest_table > limits.table_elements {
            return Err(DefineError::TableTooLarge {
                target: function(),
                requested: facts.largest_table,
                limit: limits.table_elements,
            });
        }
        if let Some(lack) = lack {
            return Err(DefineError::NoPlace {
                target: function(),
                what: lack.what,
                needed: lack.needed,
                there: lack.there,
            });
        }
        // Only this check needs them; the source may be kept for ten thousand modules.
        facts.forget_exports();
        let parts = SourceParts {
            hash: module_hash(&wasm),
            wasm,
            facts,
            imports,
            warm_up: self.warm_up.clone(),
            compile_heap: CompileHeap::default(),
            warmed: Warmed::default(),
        };
        Ok((Source(Arc::new(parts)), declared))
    }

    /// Whether there is an export to warm up by, as far as the module's sections say.
    fn check_warm_up(
        &self,
        facts: &Facts,
        imports_functions_only: bool,
    ) -> Result<(), DefineError> {
        let Some(export) = &self.warm_up else {
            return Ok(());
        };
        let Some(ty) = facts.export(export) else {
            return Err(DefineError::MissingExport {
                target: self.signature.clone(),
                export: export.to_string(),
                available: facts.describe_exports(),
            });
        };
        let reason = if !ty.params().is_empty() || !ty.results().is_empty() {
            format!(
                "export {export:?} is {}, and must be () -> ()",
                TypeText(ty)
            )
        } else if &*self.export == "_initialize" {
            "it calls `_initialize`, which runs before the snapshot and is not there after it"
                .into()
        } else if !imports_functions_only {
            "it imports a memory, a table or a global, which no snapshot can hold".into()
        } else {
            return Ok(());
        };
        let target = self.signature.clone();
        Err(DefineError::WarmUp { target, reason })
    }

    /// The definition's imports, or else the pool's.
    fn imports<T: 'static>(
        &self,
        pools: &Arc<HostImports<T>>,
    ) -> Result<Arc<HostImports<T>>, DefineError> {
        let Some(own) = &self.imports else {
            return Ok(pools.clone());
        };
        match own.clone().downcast::<HostImports<T>>() {
            Ok(own) if Engine::same(own.engine(), pools.engine()) => Ok(own),
            _ => Err(DefineError::ForeignImports {
                target: self.signature.clone(),
            }),
        }
    }
}

/// The types that a handle calls its function with.
#[derive(Clone, Copy)]
pub(crate) struct HandleTypes {
    pub matches: fn(&Engine, &FuncType) -> bool,
    pub describe: fn() -> String,
}

impl HandleTypes {
    pub fn of<S: sealed::Check>() -> Self {
        Self {
            matches: S::matches,
            describe: S::describe,
        }
    }
}

/// The parameter and result types of a handle: wasm types, or [`Dynamic`](crate::Dynamic) for both.
///
/// Implemented for what wasmtime's `TypedFunc` accepts; it cannot be implemented elsewhere.
pub trait CallTypes: sealed::Check + Export {}

impl<S: sealed::Check + Export> CallTypes for S {}

pub(crate) mod sealed {
    use wasmparser::FuncType;
    use wasmtime::{Engine, WasmParams, WasmResults};

    use crate::pool::api::dynamic::Dynamic;
    use crate::runtime::matches_types;

    pub trait Check: 'static {
        fn matches(engine: &Engine, declared: &FuncType) -> bool;
        fn describe() -> String;
    }

    impl<P: WasmParams + 'static, R: WasmResults + 'static> Check for (P, R) {
        fn matches(engine: &Engine, declared: &FuncType) -> bool {
            matches_types::<P, R>(engine, declared)
        }

        fn describe() -> String {
            let (params, results) = (std::any::type_name::<P>(), std::any::type_name::<R>());
            format!("{params} -> {results}")
        }
    }

    impl Check for (Dynamic, Dynamic) {
        fn matches(_: &Engine, _: &FuncType) -> bool {
            true
        }

        fn describe() -> String {
            "any function".into()
        }
    }
}
