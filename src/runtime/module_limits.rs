//! Limits on what a module may have, so that nobody compiles what nobody should.

use std::fmt;

/// Something of a module that [`ModuleLimits`] limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ModuleLimit {
    /// Bytes of wasm.
    WasmBytes,
    /// Types.
    Types,
    /// Imports.
    Imports,
    /// Functions of its own.
    Functions,
    /// Tables of its own.
    Tables,
    /// Memories of its own.
    Memories,
    /// Globals of its own.
    Globals,
    /// Exports.
    Exports,
    /// Data segments and element segments together.
    Segments,
    /// Bytes of one function's body.
    BodyBytes,
    /// Locals of one function, without its parameters.
    Locals,
    /// Blocks, loops and ifs that are open at once in one function.
    Nesting,
    /// Entries of all `br_table`s of one function.
    BrTableEntries,
}

impl ModuleLimit {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::WasmBytes,
        Self::Types,
        Self::Imports,
        Self::Functions,
        Self::Tables,
        Self::Memories,
        Self::Globals,
        Self::Exports,
        Self::Segments,
        Self::BodyBytes,
        Self::Locals,
        Self::Nesting,
        Self::BrTableEntries,
    ];

    /// Its name, as settings have it: `wasm_bytes`.
    pub fn name(self) -> &'static str {
        match self {
            Self::WasmBytes => "wasm_bytes",
            Self::Types => "types",
            Self::Imports => "imports",
            Self::Functions => "functions",
            Self::Tables => "tables",
            Self::Memories => "memories",
            Self::Globals => "globals",
            Self::Exports => "exports",
            Self::Segments => "segments",
            Self::BodyBytes => "body_bytes",
            Self::Locals => "locals",
            Self::Nesting => "nesting",
            Self::BrTableEntries => "br_table_entries",
        }
    }

    /// In the order of `ALL`.
    fn place(self) -> usize {
        self as usize
    }
}

impl fmt::Display for ModuleLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WasmBytes => "bytes of wasm",
            Self::Types => "types",
            Self::Imports => "imports",
            Self::Functions => "functions",
            Self::Tables => "tables",
            Self::Memories => "memories",
            Self::Globals => "globals",
            Self::Exports => "exports",
            Self::Segments => "data and element segments",
            Self::BodyBytes => "bytes of body",
            Self::Locals => "locals",
            Self::Nesting => "blocks in each other",
            Self::BrTableEntries => "entries of br_tables",
        })
    }
}

/// Limits on what a module may have. They are checked when it is defined, replaced or precompiled, before anything
/// is compiled, in one pass that allocates in proportion to nothing that is over its limit.
///
/// ```
/// use wasm_pool::{ModuleLimit, ModuleLimits};
/// let limits = ModuleLimits::strict().with(ModuleLimit::Nesting, 100);
/// assert_eq!(limits.get(ModuleLimit::Nesting), 100);
/// assert!(limits.get(ModuleLimit::BodyBytes) < ModuleLimits::new().get(ModuleLimit::BodyBytes));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleLimits([u64; ModuleLimit::ALL.len()]);

impl Default for ModuleLimits {
    fn default() -> Self {
        Self::new()
    }
}

impl ModuleLimits {
    /// For wasm that the pool has made itself, of what has passed.
    #[cfg(feature = "warm-up")]
    pub(crate) const NONE: Self = Self([u64::MAX; ModuleLimit::ALL.len()]);

    /// Generous: what programs of tens of megabytes have passes. Most are what wasmtime itself takes at most.
    pub fn new() -> Self {
        Self([
            256 << 20, // bytes of wasm
            1_000_000, // types
            1_000_000, // imports
            1_000_000, // functions
            100,       // tables
            100,       // memories
            1_000_000, // globals
            1_000_000, // exports
            200_000,   // segments
            7_654_321, // bytes of a body
            50_000,    // locals
            20_000,    // nesting
            7_654_321, // entries of br_tables
        ])
    }

    /// For modules of strangers: what an ordinary plug-in has passes, and what is dear to compile does not. See
    /// [`PoolBuilder::strangers`](crate::PoolBuilder::strangers).
    pub fn strict() -> Self {
        Self([
            2 << 20,  // bytes of wasm
            1_000,    // types
            1_000,    // imports
            5_000,    // functions
            4,        // tables
            1,        // memories
            1_000,    // globals
            1_000,    // exports
            5_000,    // segments
            64 << 10, // bytes of a body
            1_000,    // locals
            300,      // nesting
            4_096,    // entries of br_tables
        ])
    }

    /// How many, or how many bytes, a module may have of it.
    pub fn get(&self, limit: ModuleLimit) -> u64 {
        self.0[limit.place()]
    }

    /// Sets one of them. `u64::MAX` is no limit but wasmtime's own.
    pub fn with(mut self, limit: ModuleLimit, most: u64) -> Self {
        self.0[limit.place()] = most;
        self
    }

    /// An error if there is more.
    pub(super) fn check(&self, what: ModuleLimit, found: u64) -> Result<(), ModuleTooLarge> {
        self.check_in(what, found, None)
    }

    /// The same, for something of one function.
    pub(super) fn check_in(
        &self,
        what: ModuleLimit,
        found: u64,
        function: Option<u32>,
    ) -> Result<(), ModuleTooLarge> {
        let limit = self.get(what);
        match found <= limit {
            true => Ok(()),
            false => Err(ModuleTooLarge {
                what,
                found,
                limit,
                function,
            }),
        }
    }
}

/// A module has more of something than [`ModuleLimits`] allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleTooLarge {
    /// Of what.
    pub what: ModuleLimit,
    /// How much it has, or says that it has.
    pub found: u64,
    /// How much it may have.
    pub limit: u64,
    /// The number of the function that has it, imported ones counted; `None` if it is the module's.
    pub function: Option<u32>,
}

impl fmt::Display for ModuleTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            found,
            limit,
            function,
        } = self;
        match function {
            Some(function) => write!(f, "function {function} has {found} {what}")?,
            None => write!(f, "it has {found} {what}")?,
        }
        write!(f, ", and may have {limit} (module limit {:?})", what.name())
    }
}

impl std::error::Error for ModuleTooLarge {}
