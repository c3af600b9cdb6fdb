//! What a function is.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmparser::FuncType;
use wasmtime::Engine;

use crate::pool::api::define_error::DefineError;
use crate::pool::api::error::CallLimit;
use crate::pool::api::exported_func::Export;
use crate::pool::api::function_name::{check_name, join};
use crate::pool::api::function_type::FunctionType;
use crate::pool::api::imports::Imports;
use crate::pool::time::clock::nanos;
use crate::pool::time::timekeeper::Timekeeper;
use crate::runtime::{CallLimits, Facts, HostImports, TypeText, inspect};
use crate::state::{ModuleKey, signature};
use crate::sync::{AtomicU64, StaticCounter};

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
    fuel: Option<u64>,
    timeout: Option<Duration>,
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
            fuel: None,
            timeout: None,
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
    /// ([`DefineError::WrongSignature`]). For functions that are called with values: handles with wasm types
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

    /// Units of fuel for each lease of this function, instead of the pool's.
    pub fn fuel(mut self, units: u64) -> Self {
        self.fuel = Some(units);
        self
    }

    /// Wall-clock time for each lease of this function, instead of the pool's.
    pub fn call_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
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
            fuel: self.fuel,
            timeout: self.timeout,
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
    pub fuel: Option<u64>,
    pub timeout: Option<Duration>,
    pub may_change_type: bool,
}

/// A number for a function, or for imports, from 1. Of all pools: threads' tables are shared by all.
pub(crate) fn fresh_uid() -> u64 {
    static UIDS: StaticCounter = StaticCounter::new();
    UIDS.next()
}

/// What the pool keeps of a definition.
pub(crate) struct Defined {
    /// What every lease of it has of fuel and ticks.
    pub limits: CallLimits,
    /// Names the function among all functions of all pools; survives a `replace` by the same type.
    pub uid: u64,
    /// The `uid` of the function that was first defined and has become this one by `replace`.
    pub origin: u64,
    pub export: Arc<str>,
    pub declared: FuncType,
    /// The types of the handle that it was defined with, which are known to match.
    pub types: TypeId,
    /// Units of fuel of a lease, its own or the pool's; `None` for no limit.
    pub fuel: Option<u64>,
    /// Time of a lease, likewise.
    pub timeout: Option<Duration>,
    /// Hits of entries that are gone; survives `replace`.
    pub past_hits: Arc<AtomicU64>,
}

impl Defined {
    /// For reports about a lease that ran out of fuel.
    pub fn fuel_limit(&self) -> CallLimit {
        CallLimit::Fuel(self.fuel.unwrap_or(u64::MAX))
    }

    /// For reports about a lease that ran out of time.
    pub fn time_limit(&self) -> CallLimit {
        CallLimit::Time(self.timeout.unwrap_or(Duration::MAX))
    }

    /// When the time of a task's lease is over that begins now.
    pub fn end_of_time(&self, timekeeper: &Timekeeper) -> u64 {
        let time = self.timeout.map_or(u64::MAX, nanos);
        timekeeper.now().saturating_add(time)
    }
}

/// Bytes that a module is compiled from, what they declare, and what it is linked with; shared by every
/// function of it.
pub(crate) struct Source<T: 'static>(pub Arc<SourceParts<T>>);

pub(crate) struct SourceParts<T: 'static> {
    pub wasm: Arc<[u8]>,
    pub facts: Facts,
    pub imports: Arc<HostImports<T>>,
}

impl<T> Clone for Source<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What one instance may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InstanceLimits {
    pub memory: u64,
    pub table_elements: u64,
}

impl Parts {
    /// Reads the module's sections, and checks what can be checked without compiling it.
    pub fn inspect<S: sealed::Check, T: 'static>(
        &self,
        engine: &Engine,
        imports: &Arc<HostImports<T>>,
        limits: InstanceLimits,
    ) -> Result<(Source<T>, FuncType), DefineError> {
        let function = || self.signature.clone();
        let Some(wasm) = self.wasm.clone() else {
            return Err(DefineError::NoWasm { target: function() });
        };
        let mut facts = inspect(&wasm).map_err(|source| DefineError::Module {
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
            return Err(DefineError::WrongSignature {
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
        // Only this check needs them; the source may be kept for ten thousand modules.
        facts.forget_exports();
        let parts = SourceParts {
            wasm,
            facts,
            imports,
        };
        Ok((Source(Arc::new(parts)), declared))
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

impl<T: 'static> Source<T> {
    /// The module's identity: its bytes, hashed once, all that affects their compilation, and what it is
    /// linked with.
    pub fn key(&self, engine: &Engine) -> ModuleKey {
        let mut sha = Sha256::new();
        sha.update(&*self.0.wasm);
        let mut settings = Settings(Sha256::new());
        std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut settings);
        sha.update(settings.0.finalize());
        sha.update(self.0.imports.uid().to_le_bytes());
        sha.finalize().into()
    }
}

/// Hands what wasmtime hashes to SHA-256.
struct Settings(Sha256);

impl std::hash::Hasher for Settings {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        // Never asked: the digest is.
        0
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

/// The types of a handle whose function's types are known only at run time: called with
/// wasmtime's `Val`s.
#[derive(Debug, Clone, Copy)]
pub struct Dynamic;

/// The parameter and result types of a handle: wasm types, or [`Dynamic`] for both.
///
/// Implemented for what wasmtime's `TypedFunc` accepts; it cannot be implemented elsewhere.
pub trait Signature: sealed::Check + Export {}

impl<S: sealed::Check + Export> Signature for S {}

pub(crate) mod sealed {
    use wasmparser::FuncType;
    use wasmtime::{Engine, WasmParams, WasmResults};

    use crate::pool::Dynamic;
    use crate::runtime::matches_signature;

    pub trait Check: 'static {
        fn matches(engine: &Engine, declared: &FuncType) -> bool;
        fn describe() -> String;
    }

    impl<P: WasmParams + 'static, R: WasmResults + 'static> Check for (P, R) {
        fn matches(engine: &Engine, declared: &FuncType) -> bool {
            matches_signature::<P, R>(engine, declared)
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
