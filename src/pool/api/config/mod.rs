//! Settings of a pool from a file.

mod apply;
mod artifact_settings;
mod billing_settings;
mod compiler_settings;
mod config_error;
mod group_settings;
mod pooling_settings;
mod quantities;
mod quarantine_settings;
mod units;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::de::{DeTable, DeValue};

use crate::pool::api::build_error::LimitsError;
use crate::pool::api::function_name::{FunctionName, check_name};
use crate::pool::api::names::named;
use crate::pool::function_settings::FunctionLimits;
use crate::state::{Budget, Policy, Reuse};
use billing_settings::FileBilling;
use compiler_settings::FileCompiler;
use group_settings::FileGroup;
use pooling_settings::FilePoolingAllocator;
use quantities::{Count, CountLimit, Size, SizeLimit, Time, Timeout};
use quarantine_settings::FileQuarantine;

pub use artifact_settings::ArtifactSettings;
pub use config_error::{ConfigError, ConfigPlace};

/// Settings of a pool, as a TOML file has them: for [`PoolBuilder::config`](crate::PoolBuilder::config).
///
/// Keys are named as the methods of [`PoolBuilder`](crate::PoolBuilder) that they stand for, where they are
/// explained. All may be left out. What only code can give (an engine, imports, hooks, a clock, and who sweeps) has
/// no key. A key that there is none of is an error.
///
/// - **Sizes** are whole numbers of bytes, or texts with a unit: `"64Ki"`, `"512Mi"`, `"1Gi"`, or `"100MB"`. `K`,
///   `M`, `G`, `T`, `P` (also `KB` and so on) are powers of 1000, `Ki`, `Mi`, `Gi`, `Ti`, `Pi` (also `KiB` and so
///   on) of 1024.
/// - **Times** are whole numbers with a unit: `"10ms"`, `"30s"`, `"1h"`, `"1d"`; units are `ns`, `us`, `ms`, `s`,
///   `m`, `h`, `d`.
/// - What a builder's method takes `None` for is `"never"` for a time, and `"unlimited"` for a limit.
/// - **Functions** have a section each, by name (for all overloads), or by name and argument types, which count
///   before the name: see [`FunctionName`](crate::FunctionName). What a [`Definition`](crate::Definition) says
///   itself counts before both. A name that no definition ever has is no error, since functions may be defined at
///   any time, or in some processes only; see [`Self::functions`].
/// - `preset` stands for the method of that name (`"scylla"`, `"strangers"`), and is applied before all other keys.
///
/// A whole file:
///
/// ```
/// let text = r#"
///     name = "udfs"                       # label of the pool's metrics
///     preset = "scylla"
///     policy = "cost_aware"               # or "lru", "module_lru"
///     max_instance_memory = "4Mi"
///     max_idle_memory = "1Mi"
///     max_table_elements = 100_000
///     max_instances_per_entry = 8
///     max_compilations = 2
///     max_group_memory = "64Mi"
///     max_group_stack = "16Mi"
///     max_group_code = "32Mi"
///     max_group_instances = 16
///     max_group_waiting = 64
///     max_group_compilations = 1
///     max_group_definitions = 64          # of which it is the owner
///     max_uses = 1_000_000
///     reuse = "warm"                      # or "pristine": nobody gets an instance that was used before
///     max_spares = 8                      # of each function and group, where reuse is "pristine"
///     max_lifetime = "1d"
///     idle_timeout = "5s"                 # or "never"
///     code_idle_timeout = "1h"            # or "never"
///     wait_timeout = "30s"
///     wait_for_room = false
///     compile_cooldown = "10s"
///     fuel = 50_000_000                   # of each lease
///     fuel_yield_interval = 10_000_000
///     call_timeout = "30s"                # or "never"
///     epoch_tick = "10ms"
///     cancellable_calls = false
///     async_stack_size = "1Mi"
///     max_wasm_stack = "512Ki"
///     backtraces = false
///
///     [limits]                            # each may be "unlimited"
///     memory = "100MB"
///     code = "40Mi"
///     compile = "100Mi"
///     stack = "16Mi"
///     total = "1Gi"
///     mapped = "56Mi"
///     mappings = 49152                    # these are counted
///     instances = 1000
///
///     [module_limits]                     # each may be "unlimited"
///     wasm_bytes = "8Mi"
///     body_bytes = "128Ki"
///     functions = 10_000                  # and types, imports, tables, memories, globals, exports, segments
///     locals = 1000                       # of one function, as nesting and br_table_entries
///
///     [functions."math.add"]              # all overloads
///     fuel = 10_000
///
///     [functions."math.add(bigint, bigint)"]
///     call_timeout = "10ms"
///     max_memory = "1Mi"                  # of an instance, at most max_instance_memory
///     max_uses = 1000
///     reuse = "pristine"
///     max_instances = 2                   # of each group, at most max_instances_per_entry
///     idle_timeout = "1h"                 # or "never"
///     pinned = true                       # its code and one instance stay
///
///     [groups.reports]                    # a group with a name
///     memory = "128Mi"                    # and code, compile, stack, mappings, total, mapped: it has no more; each may be "unlimited"
///     max_instances = 8                   # of all its functions together
///     max_waiting = 100                   # more are refused where they would have to wait
///     max_compilations = 1
///     max_definitions = 20                # of which it is the owner
///     reserve = { memory = "64Mi", code = "16Mi" }  # and stack, mappings, total, mapped, instances: not evicted for others
///     lapses_after = "5m"                 # or "never"
///     weight = 2                          # among those who wait for room; 1 for others
///
///     [quarantine]                        # functions whose guests fail are refused for a while
///     failures = 8
///     within = "1m"
///     first = "1s"
///     longest = "5m"
///     by_group = false
///
///     [billing]                           # who has used what; empty is enough
///     kept_groups = 1024                  # that nothing uses any more
///     metrics_groups = 0                  # with series of their own
///     exact_times = false
///
///     [pooling_allocator]                 # places for instances, made ahead
///     instances = 1000                    # at once; the rest may be left out
///     memories = 1                        # of each
///     tables = 1
///     keep_resident = "4Ki"               # of each memory, in all places
///
///     [artifacts]                         # compiled code beyond the life of a pool
///     memory = "64Mi"                     # a tier in memory
///     memory_artifacts = 256
///     directory = "/var/cache/app"        # a tier on disk
///     read_only = false
///     max_size = "2Gi"
///     max_artifacts = 65536
///     low_water = "70%"                   # or 0.7
///     codec = "raw"                       # or "zstd"
///     compression_level = 3
///     compress_after = "1d"
///     secret_file = "/etc/app/secret"
///
///     [compiler]                          # modules are compiled in processes of their own
///     helper = "/usr/libexec/wasm-pool-compiler"  # or, without it, in this program
///     warm = 1
///     time_limit = "60s"
///     cpu_time = "60s"
///     max_jobs = 1
///     max_growth = "8Mi"
///     niceness = 3
///     first_cap = "16Mi"
///     max_cap = "64Mi"
/// "#;
/// use wasm_pool::{Artifacts, Budget, CompileIn, Config, Pool};
///
/// let config: Config = text.parse()?;     // or Config::from_file("pool.toml")
/// // What code says wins: these artifacts are taken, and those of the file are not opened; and this process compiles.
/// let artifacts = Artifacts::builder().build();
/// let builder = Pool::builder().config(&config).compile_in(CompileIn::Here);
/// let pool = builder.artifacts(&artifacts).build()?;
/// assert_eq!(pool.limits().get(Budget::Memory), Some(100_000_000));
///
/// let error = Config::from_toml("[limits]\nmemory = '512Mo'").unwrap_err();
/// assert!(error.to_string().starts_with(r#"line 2, column 10: "512Mo" is not a limit: there is no unit "Mo""#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It can be a part of a host's own settings: it is `Deserialize`, with any of serde's formats that say what they
/// hold; errors are that format's then. Written, it can be read again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config(File);

/// What the text says, and no more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "settings of a pool")]
pub(crate) struct File {
    name: Option<String>,
    preset: Option<Preset>,
    policy: Option<Policy>,
    max_instance_memory: Option<Size>,
    max_idle_memory: Option<Size>,
    max_table_elements: Option<Count>,
    max_instances_per_entry: Option<Count>,
    max_compilations: Option<Count>,
    max_group_memory: Option<Size>,
    max_group_stack: Option<Size>,
    max_group_code: Option<Size>,
    max_group_instances: Option<Count>,
    max_group_waiting: Option<Count>,
    max_group_compilations: Option<Count>,
    max_group_definitions: Option<Count>,
    max_uses: Option<Count>,
    reuse: Option<Reuse>,
    max_spares: Option<Count>,
    max_lifetime: Option<Time>,
    idle_timeout: Option<Timeout>,
    code_idle_timeout: Option<Timeout>,
    wait_timeout: Option<Time>,
    wait_for_room: Option<bool>,
    compile_cooldown: Option<Time>,
    fuel: Option<Count>,
    fuel_yield_interval: Option<Count>,
    call_timeout: Option<Timeout>,
    epoch_tick: Option<Time>,
    cancellable_calls: Option<bool>,
    async_stack_size: Option<Size>,
    max_wasm_stack: Option<Size>,
    backtraces: Option<bool>,
    limits: FileLimits,
    module_limits: FileModuleLimits,
    functions: BTreeMap<String, FileFunction>,
    groups: BTreeMap<String, FileGroup>,
    artifacts: Option<ArtifactSettings>,
    compiler: Option<FileCompiler>,
    quarantine: Option<FileQuarantine>,
    billing: Option<FileBilling>,
    pooling_allocator: Option<FilePoolingAllocator>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of limits")]
struct FileLimits {
    memory: Option<SizeLimit>,
    code: Option<SizeLimit>,
    compile: Option<SizeLimit>,
    stack: Option<SizeLimit>,
    mappings: Option<CountLimit>,
    total: Option<SizeLimit>,
    mapped: Option<SizeLimit>,
    instances: Option<CountLimit>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a section of limits of modules"
)]
struct FileModuleLimits {
    wasm_bytes: Option<SizeLimit>,
    types: Option<CountLimit>,
    imports: Option<CountLimit>,
    functions: Option<CountLimit>,
    tables: Option<CountLimit>,
    memories: Option<CountLimit>,
    globals: Option<CountLimit>,
    exports: Option<CountLimit>,
    segments: Option<CountLimit>,
    body_bytes: Option<SizeLimit>,
    locals: Option<CountLimit>,
    nesting: Option<CountLimit>,
    br_table_entries: Option<CountLimit>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of a function")]
struct FileFunction {
    fuel: Option<Count>,
    call_timeout: Option<Time>,
    max_memory: Option<Size>,
    max_uses: Option<Count>,
    max_instances: Option<Count>,
    reuse: Option<Reuse>,
    pinned: Option<bool>,
    idle_timeout: Option<Timeout>,
}

impl FileFunction {
    fn settings(self) -> FunctionLimits {
        FunctionLimits {
            fuel: self.fuel.map(|units| units.0),
            timeout: self.call_timeout.map(|time| time.0),
            max_memory: self.max_memory.map(|bytes| bytes.0),
            max_uses: self.max_uses.map(|uses| uses.0),
            max_instances: self.max_instances.map(|count| count.0),
            reuse: self.reuse,
            pinned: self.pinned,
            idle_timeout: self.idle_timeout.map(|time| time.0),
        }
    }
}

/// Figures for a host of some kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preset {
    Scylla,
    Strangers,
}

impl Preset {
    const ALL: [Self; 2] = [Self::Scylla, Self::Strangers];

    fn name(self) -> &'static str {
        match self {
            Self::Scylla => "scylla",
            Self::Strangers => "strangers",
        }
    }
}

named!(Preset, "a preset");

/// A setting that makes no sense, although its value alone may.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Its key, within its sections.
    path: Vec<String>,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error("{0}")]
    Text(String),
    #[error("{0}")]
    Limits(LimitsError),
}

impl Config {
    /// Reads a file. Paths in it that are relative are so to the folder that it lies in.
    ///
    /// # Errors
    /// [`ConfigError`], with the file, the line and the column.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let unreadable = |source| {
            let file = path.to_owned();
            ConfigError::Unreadable { file, source }
        };
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let mut config = Self::from_toml(&text).map_err(|error| error.in_file(path.to_owned()))?;
        if let (Some(artifacts), Some(folder)) = (&mut config.0.artifacts, path.parent()) {
            artifacts.resolve(folder);
        }
        if let (Some(compiler), Some(folder)) = (&mut config.0.compiler, path.parent()) {
            compiler.resolve(folder);
        }
        Ok(config)
    }

    /// Reads a text. Each setting must make sense, and all of them together; whether they do with what else the
    /// builder is told is seen when the pool is built.
    ///
    /// # Errors
    /// [`ConfigError`], with the line and the column.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| ConfigError::Invalid {
            place: ConfigPlace::of(error.span(), text),
            reason: error.message().to_owned(),
        })?;
        file.check().map_err(|Fault { path, reason }| {
            let place = ConfigPlace::of(span_of(text, &path), text);
            match reason {
                Reason::Text(reason) => ConfigError::Invalid { place, reason },
                Reason::Limits(source) => ConfigError::Limits { place, source },
            }
        })?;
        Ok(Self(file))
    }

    /// The functions that it has sections for. To find those that nobody has defined, once all are:
    ///
    /// ```
    /// # use wasm_pool::{Config, Definition, Dynamic, Function, LookupError, Pool};
    /// let config = Config::from_toml("[functions]\n f.fuel = 1000\n g.fuel = 1000")?;
    /// let pool = Pool::builder().config(&config).build()?;
    /// # let wasm = wat::parse_str(r#"(module (func (export "f")))"#)?;
    /// let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm))?;
    ///
    /// let look_up = |name| pool.function::<Dynamic, Dynamic>(name).map(drop);
    /// let unknown = |found: &_| matches!(found, Err(LookupError::Unknown { .. }));
    /// let nobodys = config.functions().map(look_up).filter(unknown);
    /// assert_eq!(nobodys.count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn functions(&self) -> impl Iterator<Item = FunctionName> + '_ {
        self.0.functions.keys().map(FunctionName::from)
    }

    /// What its section `[artifacts]` says, as plain data; `None` if it has none. A pool that is built opens them
    /// for itself ([`BuildError::Artifacts`](crate::BuildError::Artifacts)), unless it was given some
    /// ([`PoolBuilder::artifacts`](crate::PoolBuilder::artifacts)): pools that are to share them are given
    /// clones of what [`ArtifactSettings::open`] opens.
    pub fn artifact_settings(&self) -> Option<&ArtifactSettings> {
        self.0.artifacts.as_ref()
    }
}

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::from_toml(text)
    }
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let file = File::deserialize(from)?;
        file.check().map_err(|Fault { path, reason }| {
            serde::de::Error::custom(format_args!("{}: {reason}", path.join(".")))
        })?;
        Ok(Self(file))
    }
}

impl File {
    /// What no value alone can show.
    fn check(&self) -> Result<(), Fault> {
        self.check_functions()?;
        self.artifacts.as_ref().map_or(Ok(()), |a| a.check())?;
        self.compiler.as_ref().map_or(Ok(()), |c| c.check())?;
        self.check_limits().map_err(|error| {
            let field = error.field();
            let section = match Budget::ALL.iter().any(|budget| budget.name() == field) {
                true => Some("limits"),
                false => None,
            };
            // A setting in a section of its own names both.
            let path = section.into_iter().chain(field.split('.'));
            Fault {
                path: path.map(str::to_owned).collect(),
                reason: Reason::Limits(error),
            }
        })
    }

    /// Functions can have these names, each has one section, and its leases can run.
    fn check_functions(&self) -> Result<(), Fault> {
        let mut known = HashMap::new();
        for (key, settings) in &self.functions {
            let fault = |reason| Fault {
                path: vec!["functions".into(), key.clone()],
                reason: Reason::Text(reason),
            };
            let function = FunctionName::from(key);
            let Some((name, arguments)) = function.parts() else {
                let reason =
                    "a name, or a name and argument types, as in \"math.add(bigint, bigint)\"";
                return Err(fault(format!("{key:?} is no function: it takes {reason}")));
            };
            check_name(name).map_err(|error| fault(format!("{key:?} is no function: {error}")))?;
            let same = known.insert((name.to_owned(), arguments.map(str::to_owned)), key);
            if let Some(same) = same {
                return Err(fault(format!("{key:?} and {same:?} are one function")));
            }
            // What any instance may have may be said elsewhere.
            (settings.settings().check(u64::MAX, usize::MAX)).map_err(|error| Fault {
                path: vec!["functions".into(), key.clone(), error.field().into()],
                reason: Reason::Limits(error),
            })?;
        }
        Ok(())
    }
}

/// Where the value of a key is written: or, if it is not written there, what comes nearest.
fn span_of(text: &str, path: &[String]) -> Option<std::ops::Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut span = None;
    for key in path {
        let Some((name, value)) = table.get_key_value(key.as_str()) else {
            break;
        };
        // A section's own place is its name, a setting's its value.
        match value.get_ref() {
            DeValue::Table(inner) => {
                span = Some(name.span());
                table = inner;
            }
            _ => return Some(value.span()),
        }
    }
    // What the file does not say itself is the preset's.
    let preset = || Some(document.get_ref().get("preset")?.span());
    span.or_else(preset)
}
