//! Settings from a TOML file: each key does what its builder's method does.

mod functions;
mod nonsense;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{from_value, json, to_value};
use wasm_pool::{
    Billing, Budget, Codec, CompilerProcess, Config, Limits, ModuleLimit, ModuleLimits, Policy,
    Pool, PoolBuilder, PoolingAllocator, Quarantine, Reuse, Share,
};

use crate::common::{check, define_with_pages, quiet};

type Set = fn(PoolBuilder) -> PoolBuilder;

const SECOND: Duration = Duration::from_secs(1);

/// A line of a file, and what it stands for.
#[rustfmt::skip]
const KEYS: &[(&str, Set)] = &[
    ("name = 'udfs'", |b| b.name("udfs")),
    ("preset = 'scylla'", |b| b.scylla()),
    ("policy = 'module_lru'", |b| b.policy(Policy::ModuleLru)),
    ("max_instance_memory = '4Mi'", |b| b.max_instance_memory(4 << 20)),
    ("max_idle_memory = 65536", |b| b.max_idle_memory(65536)),
    ("max_table_elements = 1_000", |b| b.max_table_elements(1000)),
    ("max_instances_per_entry = 3", |b| b.max_instances_per_entry(3)),
    ("max_compilations = 1000", |b| b.max_compilations(1000)),
    ("max_group_memory = '64Mi'", |b| b.max_group_memory(64 << 20)),
    ("max_group_stack = '16Mi'", |b| b.max_group_stack(16 << 20)),
    ("max_group_code = '32Mi'", |b| b.max_group_code(32 << 20)),
    ("max_group_instances = 16", |b| b.max_group_instances(16)),
    ("max_group_waiting = 64", |b| b.max_group_waiting(64)),
    ("max_group_compilations = 1", |b| b.max_group_compilations(1)),
    ("max_group_definitions = 9", |b| b.max_group_definitions(9)),
    ("max_uses = 77", |b| b.max_uses(77)),
    ("reuse = 'pristine'", |b| b.reuse(Reuse::Pristine)),
    ("max_spares = 3", |b| b.max_spares(3)),
    ("max_lifetime = '1d'", |b| b.max_lifetime(86_400 * SECOND)),
    ("idle_timeout = '1h'", |b| b.idle_timeout(3600 * SECOND)),
    ("idle_timeout = 'never'", |b| b.idle_timeout(None)),
    ("code_idle_timeout = '2m'", |b| b.code_idle_timeout(120 * SECOND)),
    ("wait_timeout = '10ms'", |b| b.wait_timeout(SECOND / 100)),
    ("wait_for_room = true", |b| b.wait_for_room(true)),
    ("module_limits.locals = 9", |b| {
        b.module_limits(ModuleLimits::new().with(ModuleLimit::Locals, 9))
    }),
    ("billing = { kept_groups = 7, metrics_groups = 3, exact_times = true }", |b| b.billing(Billing::new().kept_groups(7).metrics_groups(3).exact_times(true))),
    ("pooling_allocator = { instances = 7, memories = 2, tables = 3, keep_resident = '4Ki' }", |b| {
        let allocator = PoolingAllocator::for_instances(7).memories(2).tables(3);
        b.pooling_allocator(allocator.keep_resident(4096))
    }),
    ("quarantine = { failures = 7, within = '9s' }", |b| b.quarantine(Quarantine::after(7, Duration::from_secs(9)))),
    ("groups.reports.memory = '9Mi'", |b| b.group("reports", Share::new().limit(Budget::Memory, 9 << 20))),
    ("groups.batch = { max_instances = 8, max_waiting = 100, max_compilations = 2, max_definitions = 7 }", |b| {
        b.group("batch", Share::new().max_instances(8).max_waiting(100).max_compilations(2).max_definitions(7))
    }),
    ("groups.night = { code = '2Mi', compile = '3Mi', mappings = 9, total = '8Mi', mapped = 'unlimited' }", |b| {
        let share = Share::new().limit(Budget::Code, 2 << 20).limit(Budget::Compile, 3 << 20);
        b.group("night", share.limit(Budget::Mappings, 9).limit(Budget::Total, 8 << 20))
    }),
    ("groups.reports.weight = 3", |b| b.group("reports", Share::new().weight(3))),
    ("groups.reports = { reserve = { code = '1Mi', mappings = 7, instances = 2 }, stack = '1Mi', lapses_after = 'never' }", |b| {
        let share = Share::new().reserve(Budget::Code, 1 << 20).reserve(Budget::Mappings, 7);
        let share = share.reserve(Budget::Instances, 2);
        b.group("reports", share.limit(Budget::Stack, 1 << 20).lapses_after(None))
    }),
    ("compiler.warm = 3", |b| b.compile_in(CompilerProcess::this_program().warm(3))),
    ("compile_cooldown = '7us'", |b| b.compile_cooldown(Duration::from_micros(7))),
    ("fuel = 50_000", |b| b.fuel(50_000)),
    ("fuel_yield_interval = 500", |b| b.fuel_yield_interval(500)),
    ("call_timeout = '1s'", |b| b.call_timeout(SECOND)),
    ("call_timeout = 'never'", |b| b.call_timeout(None)),
    ("epoch_tick = '500000ns'", |b| b.epoch_tick(Duration::from_micros(500))),
    ("cancellable_calls = true", |b| b.cancellable_calls(true)),
    ("async_stack_size = '3MiB'", |b| b.async_stack_size(3 << 20)),
    ("max_wasm_stack = '64Ki'", |b| b.max_wasm_stack(64 << 10)),
    ("backtraces = true", |b| b.backtraces(true)),
    ("limits.memory = '1Gi'", |b| b.limits(Limits::new().memory(1 << 30))),
    ("limits.code = '100MB'", |b| b.limits(Limits::new().code(100_000_000))),
    ("limits.compile = '5M'", |b| b.limits(Limits::new().compile(5_000_000))),
    ("limits.stack = '1Ti'", |b| b.limits(Limits::new().stack(1 << 40))),
    ("limits.total = 123456789", |b| b.limits(Limits::new().total(123_456_789))),
    ("limits.mapped = '9000000KB'", |b| b.limits(Limits::new().mapped(9_000_000_000))),
    ("limits.mappings = 999", |b| b.limits(Limits::new().mappings(999))),
    ("limits.instances = 9", |b| b.limits(Limits::new().instances(9))),
    ("limits.mappings = 'unlimited'", |b| b.limits(Limits::new().with(Budget::Mappings, None))),
];

/// All that is set in a builder.
fn settings(builder: &PoolBuilder) -> String {
    format!("{builder:?}")
}

fn read(text: &str) -> Config {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn each_key_is_its_builders_method() {
    let plain = settings(&Pool::builder());
    for (line, set) in KEYS {
        let config = read(line);
        let built = settings(&Pool::builder().config(&config));
        assert_eq!(built, settings(&set(Pool::builder())), "{line}");
        assert_ne!(built, plain, "{line}");
    }
    assert_eq!(settings(&Pool::builder().config(&read(""))), plain);
}

#[test]
fn every_key_and_budget_is_tried() {
    let tried = |key: &str| KEYS.iter().any(|(line, _)| line.starts_with(key));
    let all = to_value(Config::default()).unwrap();
    for key in all.as_object().unwrap().keys() {
        let is_section = key == "functions" || key == "artifacts";
        assert!(is_section || tried(key), "{key}");
    }
    for budget in Budget::ALL {
        assert!(tried(&format!("limits.{budget} =")), "{budget}");
    }
}

#[test]
fn what_is_not_named_stays_and_what_comes_later_wins() {
    let before = Limits::new().memory(64 << 20).code(32 << 20);
    let config = read("max_uses = 5\nlimits.code = '16Mi'\nlimits.mappings = 'unlimited'");
    let builder = Pool::builder().limits(before).max_uses(9).fuel(1000);
    let builder = builder.config(&config);
    let changed = before.code(16 << 20).with(Budget::Mappings, None);
    let same = Pool::builder().limits(changed).max_uses(5).fuel(1000);
    assert_eq!(settings(&builder), settings(&same));
    let after = builder.max_uses(7);
    assert_eq!(settings(&after), settings(&same.max_uses(7)));
    assert_eq!(after.build().unwrap().limits(), changed);
}

#[test]
fn a_preset_comes_before_the_other_keys_wherever_it_stands() {
    let config = read("max_idle_memory = '2Mi'\npreset = 'scylla'\nlimits.memory = '1Gi'");
    let scylla = Pool::builder().scylla().build().unwrap().limits();
    let same = Pool::builder().scylla().max_idle_memory(2 << 20);
    let same = same.limits(scylla.memory(1 << 30));
    let builder = Pool::builder().config(&config);
    assert_eq!(settings(&builder), settings(&same));
    let limits = builder.build().unwrap().limits();
    assert_eq!(limits.get(Budget::Memory), Some(1 << 30));
    assert_eq!(limits.get(Budget::Mapped), Some(40 << 20));
}

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{name}"));
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_file_is_as_its_text_but_that_its_paths_are_its_own() {
    let file = folder("paths").join("pool.toml");
    let text = "max_uses = 5\n[artifacts]\ndirectory = 'cache'\nsecret_file = '/etc/secret'\n";
    fs::write(&file, text).unwrap();
    let config = Config::from_file(&file).unwrap();
    let artifacts = config.artifact_settings().unwrap();
    assert_eq!(artifacts.directory, Some(folder("paths").join("cache")));
    assert_eq!(artifacts.secret_file, Some("/etc/secret".into()));
    let of_text = read(text);
    let artifacts = of_text.artifact_settings().unwrap();
    assert_eq!(artifacts.directory, Some("cache".into()));
    let [one, other] = [&config, &of_text].map(|c| settings(&Pool::builder().config(c)));
    assert_eq!(one, other);
}

#[test]
fn artifacts_are_described() {
    assert_eq!(read("max_uses = 1").artifact_settings(), None);
    let config = read(
        "[artifacts]
        memory = '64Mi'
        memory_artifacts = 256
        directory = '/var/cache/app'
        read_only = true
        max_size = '2Gi'
        max_artifacts = 65536
        low_water = '70%'
        codec = 'zstd'
        compression_level = 3
        compress_after = '1d'
        secret_file = 'secret'",
    );
    let artifacts = config.artifact_settings().unwrap();
    assert_eq!(artifacts.memory, Some(64 << 20));
    assert_eq!(artifacts.memory_artifacts, Some(256));
    assert_eq!(artifacts.directory, Some("/var/cache/app".into()));
    assert_eq!(artifacts.read_only, Some(true));
    assert_eq!(artifacts.max_size, Some(2 << 30));
    assert_eq!(artifacts.max_artifacts, Some(65536));
    assert_eq!(artifacts.low_water, Some(0.7));
    assert_eq!(artifacts.codec, Some(Codec::Zstd));
    assert_eq!(artifacts.compression_level, Some(3));
    assert_eq!(artifacts.compress_after, Some(86_400 * SECOND));
    assert_eq!(artifacts.secret_file, Some("secret".into()));
    for (share, number) in [("0.7", 0.7), ("1", 1.0), ("'100%'", 1.0), ("'1 %'", 0.01)] {
        let config = read(&format!(
            "[artifacts]\ndirectory = 'd'\nlow_water = {share}"
        ));
        assert_eq!(config.artifact_settings().unwrap().low_water, Some(number));
    }
}

#[test]
fn a_configuration_is_written_and_read_again() {
    let lines = |contains: fn(&str) -> bool| {
        let lines = KEYS.iter().map(|(line, _)| *line);
        let lines = lines.filter(|line| contains(line) && !line.contains("unlimited"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let settings = lines(|line| !line.starts_with("limits.") && !line.contains("never"));
    let limits = lines(|line| line.starts_with("limits."));
    let artifacts =
        "[artifacts]\nmemory = 1000\ndirectory = 'd'\nlow_water = 0.5\ncompress_after = '36h'";
    let functions = "[functions]\n'f(int)'.fuel = 7\nf.call_timeout = '90s'";
    // Without the preset, whose limits are for smaller machines.
    let settings = settings.replace("preset = 'scylla'", "");
    for text in [
        String::new(),
        "preset = 'scylla'".into(),
        "idle_timeout = 'never'\ncall_timeout = 'never'\nlimits.mappings = 'unlimited'".into(),
        format!("{settings}\n{limits}\n{functions}\n{artifacts}"),
    ] {
        let config = read(&text);
        let written = to_value(&config).unwrap();
        assert_eq!(from_value::<Config>(written).unwrap(), config, "{text}");
    }
    let config = read("max_idle_memory = 65536\nwait_timeout = '90s'\nmax_uses = 3");
    let written = to_value(config).unwrap();
    assert_eq!(written["max_idle_memory"], json!("64Ki"));
    assert_eq!(written["wait_timeout"], json!("90s"));
    assert_eq!(written["max_uses"], json!(3));
}

#[test]
fn it_can_be_part_of_a_hosts_own_settings() {
    #[derive(serde::Deserialize)]
    struct Host {
        port: u16,
        pool: Config,
    }
    let text = "port = 80\n[pool]\nmax_uses = 5\nlimits.memory = '64Mi'\n";
    let host: Host = toml::from_str(text).unwrap();
    assert_eq!(host.port, 80);
    assert_eq!(host.pool, read("max_uses = 5\nlimits.memory = '64Mi'"));
    for (wrong, says) in [
        ("max_usses = 5", "unknown field `max_usses`"),
        ("max_uses = 0", "max_uses: max_uses is zero"),
        ("functions.'('.fuel = 1", "is no function"),
    ] {
        let text = format!("port = 80\n[pool]\n{wrong}");
        let error = toml::from_str::<Host>(&text).map(drop).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

const UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("K", 1000),
    ("KB", 1000),
    ("Ki", 1 << 10),
    ("KiB", 1 << 10),
    ("M", 1_000_000),
    ("MB", 1_000_000),
    ("Mi", 1 << 20),
    ("MiB", 1 << 20),
    ("G", 1_000_000_000),
    ("GB", 1_000_000_000),
    ("Gi", 1 << 30),
    ("GiB", 1 << 30),
    ("T", 1_000_000_000_000),
    ("Ti", 1 << 40),
    ("P", 1_000_000_000_000_000),
    ("Pi", 1 << 50),
];

proptest! {
    #[test]
    fn sizes_are_what_they_say_and_are_written_and_read_again(
        number: u64, shift in 0_u32..64, unit in 0..UNITS.len(),
    ) {
        let (unit, each) = UNITS[unit];
        let number = number >> shift;
        let config = Config::from_toml(&format!("[artifacts]\nmemory = '{number}{unit}'"));
        match number.checked_mul(each) {
            None => {
                let error = config.unwrap_err().to_string();
                prop_assert!(error.contains("it is too much"), "{}", error);
            }
            Some(0) => prop_assert!(config.is_err()),
            Some(bytes) => {
                let config = config.unwrap();
                prop_assert_eq!(config.artifact_settings().unwrap().memory, Some(bytes));
                let written = to_value(&config).unwrap();
                prop_assert_eq!(from_value::<Config>(written).unwrap(), config);
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[a-z_\\[\\]=\"'.0-9\n -]{0,80}|.{0,80}") {
        if let Err(error) = Config::from_toml(&text) {
            let place = error.place().unwrap();
            prop_assert!(place.line >= 1 && place.line <= text.split('\n').count());
        }
    }
}

#[test]
#[cfg(unix)]
fn a_pool_opens_the_artifacts_that_its_file_describes() {
    let folder = folder("opened");
    fs::write(folder.join("secret"), b"of the fleet").unwrap();
    let text = "[artifacts]\nmemory = '1Mi'\ndirectory = 'cache'\nsecret_file = 'secret'\n";
    let file = folder.join("pool.toml");
    fs::write(&file, text).unwrap();
    let config = Config::from_file(&file).unwrap();
    let compilations = || {
        let pool = quiet().config(&config).build().unwrap();
        assert_eq!(define_with_pages(&pool, "f", 1).call(1, ()).unwrap(), 1);
        check(&pool).compilations
    };
    assert_eq!([compilations(), compilations()], [1, 0]);
    assert!(folder.join("cache").is_dir());
    fs::remove_file(folder.join("secret")).unwrap();
    let error = quiet().config(&config).build().unwrap_err();
    let text = wasm_pool::Report(&error).to_string();
    assert!(text.contains("secret"), "{text}");
    fs::remove_dir_all(folder).unwrap();
}
