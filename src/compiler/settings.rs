//! Where modules are compiled, and by what program.

use std::path::PathBuf;
use std::time::Duration;

/// Where a pool compiles: see [`PoolBuilder::compile_in`](crate::PoolBuilder::compile_in).
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CompileIn {
    /// In this process. What a compilation takes of the heap is charged by estimate, nothing ends it before it
    /// is done, and a module that makes the compiler take too much takes the whole process with it.
    #[default]
    Here,
    /// In a process of its own, which cannot take more than is reserved for it, and which is killed when it takes
    /// too long, or when nobody needs it any more. Linux only.
    Process(CompilerProcess),
}

impl From<CompilerProcess> for CompileIn {
    fn from(process: CompilerProcess) -> Self {
        Self::Process(process)
    }
}

/// Which program compiles, and what its processes may take.
///
/// A process is started ahead of its first job and waits for it, with the compiler set up: so a compilation costs
/// little more than one in this process. It has no environment, no descriptor of this process and no privilege, and
/// ends when this process does, however that ends.
///
/// ```
/// use std::time::Duration;
/// use wasm_pool::CompilerProcess;
///
/// let compiler = CompilerProcess::helper("/usr/libexec/wasm-pool-compiler")
///     .time_limit(Duration::from_secs(10))
///     .warm(2);
/// # let _ = compiler;
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct CompilerProcess {
    pub(crate) program: Program,
    #[cfg_attr(feature = "serde", serde(default = "default::warm"))]
    pub(crate) warm: usize,
    #[cfg_attr(feature = "serde", serde(default = "default::time_limit"))]
    pub(crate) time_limit: Duration,
    #[cfg_attr(feature = "serde", serde(default = "default::time_limit"))]
    pub(crate) cpu_time: Duration,
    #[cfg_attr(feature = "serde", serde(default = "default::max_jobs"))]
    pub(crate) max_jobs: u64,
    #[cfg_attr(feature = "serde", serde(default = "default::max_growth"))]
    pub(crate) max_growth: u64,
    #[cfg_attr(feature = "serde", serde(default = "default::niceness"))]
    pub(crate) niceness: u8,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) first_cap: Option<u64>,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) max_cap: Option<u64>,
}

/// What is started.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub(crate) enum Program {
    /// The program `wasm-pool-compiler`, or one that does the same.
    Helper(PathBuf),
    /// This process's own.
    This,
}

mod default {
    use std::time::Duration;

    pub(super) const fn warm() -> usize {
        1
    }

    pub(super) const fn time_limit() -> Duration {
        Duration::from_secs(60)
    }

    pub(super) const fn max_jobs() -> u64 {
        1
    }

    pub(super) const fn max_growth() -> u64 {
        8 << 20
    }

    pub(super) const fn niceness() -> u8 {
        3
    }
}

/// Processes that may wait for work at once.
pub(crate) const MOST_WARM: u64 = 64;
/// The lowest priority that a host can choose. The kernel gives a process of niceness 8 one seventh of a processor
/// that one of niceness 0 wants too; lower ones take more than eight times as long there.
pub(crate) const MOST_NICE: u64 = 8;

/// Seconds: a limit that is no limit has no use.
pub(crate) const LONGEST_JOB: u64 = 24 * 60 * 60;

impl CompilerProcess {
    /// The program `wasm-pool-compiler`, which this crate builds with its feature `compiler`
    /// (`cargo install wasm-pool --features compiler`). It must be built of the same versions of this crate and of
    /// wasmtime; that is checked when the pool is built. It serves pools that make their own engine.
    pub fn helper(path: impl Into<PathBuf>) -> Self {
        Self::new(Program::Helper(path.into()))
    }

    /// This process's own program, started once more. Its `main` must begin with a call of
    /// `wasm_pool::serve_compiler` (feature `compiler`), which returns at once in a normal start and never in one
    /// that compiles; or, if the pool's engine is the host's own, of `serve_compiler_with`. It is the file that this process
    /// runs, even if another has taken its name meanwhile.
    pub fn this_program() -> Self {
        Self::new(Program::This)
    }

    fn new(program: Program) -> Self {
        Self {
            program,
            warm: default::warm(),
            time_limit: default::time_limit(),
            cpu_time: default::time_limit(),
            max_jobs: default::max_jobs(),
            max_growth: default::max_growth(),
            niceness: default::niceness(),
            first_cap: None,
            max_cap: None,
        }
    }

    /// Processes that wait for work: 0 to 64. Each is charged to `compile` as long as the
    /// pool is open, with 1.3 MiB if it is the helper. With none, each compilation waits until its process has started, which takes some tens of
    /// milliseconds. Default: 1.
    pub fn warm(mut self, count: usize) -> Self {
        self.warm = count;
        self
    }

    /// How long one compilation may take, in real time (whatever the pool's clock says): then its process is killed,
    /// and whoever needs the module gets [`ModuleError::TooSlow`](crate::ModuleError::TooSlow). Default: 60 s.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// The same for the time that the process itself runs, in whole seconds, rounded up: the kernel ends it.
    /// Default: 60 s.
    pub fn cpu_time(mut self, limit: Duration) -> Self {
        self.cpu_time = limit;
        self
    }

    /// Compilations after which a process is replaced. With more than 1, a module that takes over its process by some
    /// fault of the compiler's could choose the code of modules that are compiled there after it, by other
    /// tenants: only for hosts that trust all whose modules they compile. It saves the start of a process, some tens of
    /// milliseconds of one processor, which is not waited for while there is a warm one. Default: 1.
    pub fn max_jobs(mut self, jobs: u64) -> Self {
        self.max_jobs = jobs;
        self
    }

    /// Bytes by which a process may have grown when it has done a job and waits for the next; one that has grown more
    /// is replaced. Charged for each warm process if those may do more than one job. Default: 8 MiB.
    pub fn max_growth(mut self, bytes: u64) -> Self {
        self.max_growth = bytes;
        self
    }

    /// By how much the processes let others go first: 0 to 8, as in `nice(1)`. On a processor that one other thread
    /// of niceness 0 keeps busy, one of niceness 3 takes 3 times as long, one of 5 takes 4 times, one of 8 takes 7 times as long
    /// as alone (Linux's weights: 1024, 526, 335, 172). Default: 3.
    pub fn niceness(mut self, niceness: u8) -> Self {
        self.niceness = niceness;
        self
    }

    /// Bytes of heap that the first try of a module may take. One that needs more is tried again with twice as much, as
    /// long as `compile` has room. Default: by the estimate of the module, which is seldom too little; but it
    /// reserves what most modules never take.
    pub fn first_cap(mut self, bytes: u64) -> Self {
        self.first_cap = Some(bytes);
        self
    }

    /// Bytes of heap that a module may take at most (1 MiB is tried in any case): one that needs more is
    /// [`ModuleError::TooExpensive`](crate::ModuleError::TooExpensive). Default: as much as `compile` can have, so that a
    /// single module can take what all others would need. Where strangers upload, set it to what `compile` has, divided
    /// by one more than [`PoolBuilder::max_compilations`](crate::PoolBuilder::max_compilations): then there is always room for one that is
    /// small.
    pub fn max_cap(mut self, bytes: u64) -> Self {
        self.max_cap = Some(bytes);
        self
    }
}
