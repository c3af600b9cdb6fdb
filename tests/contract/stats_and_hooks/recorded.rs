//! C-O2: metrics.

use super::*;

// C-O2: metrics ────────────────────────────────────────────────────────────────────────────────────

/// Remembers everything: values by name and labels, as in `name{pool=p,reason=idle}`.
#[derive(Default)]
struct Recorded {
    described: Mutex<BTreeMap<String, Description>>,
    values: Arc<Mutex<BTreeMap<String, f64>>>,
    touched: AtomicU64,
}

/// Kind, unit, words.
type Description = (&'static str, Option<Unit>, String);

/// One metric's place among the values.
struct Place(String, Arc<Mutex<BTreeMap<String, f64>>>);

impl Place {
    fn change(&self, change: impl FnOnce(f64) -> f64) {
        let mut values = self.1.lock().unwrap();
        let value = values.entry(self.0.clone()).or_default();
        *value = change(*value);
    }
}

impl CounterFn for Place {
    fn increment(&self, by: u64) {
        self.change(|value| value + by as f64);
    }

    fn absolute(&self, to: u64) {
        self.change(|_| to as f64);
    }
}

impl GaugeFn for Place {
    fn increment(&self, by: f64) {
        self.change(|value| value + by);
    }

    fn decrement(&self, by: f64) {
        self.change(|value| value - by);
    }

    fn set(&self, to: f64) {
        self.change(|_| to);
    }
}

/// A histogram counts its records.
impl HistogramFn for Place {
    fn record(&self, value: f64) {
        assert!(value >= 0.0);
        self.change(|records| records + 1.0);
    }
}

impl Recorded {
    fn place(&self, key: &Key) -> Arc<Place> {
        self.touched.fetch_add(1, Ordering::Relaxed);
        let labels: BTreeSet<_> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let labels: Vec<_> = labels.into_iter().collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::new(Place(name, self.values.clone()))
    }

    fn describe(&self, kind: &'static str, key: KeyName, unit: Option<Unit>, text: SharedString) {
        let what = (kind, unit, text.into_owned());
        self.described
            .lock()
            .unwrap()
            .insert(key.as_str().to_owned(), what);
    }

    #[track_caller]
    fn value(&self, name: &str) -> f64 {
        let values = self.values.lock().unwrap();
        *values
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not among {values:#?}"))
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("counter", key, unit, text);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("gauge", key, unit, text);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("histogram", key, unit, text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.place(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.place(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.place(key))
    }
}

/// A pool named `p`, in which everything has happened that is counted.
fn eventful() -> Pool {
    let clock = ManualClock::new();
    let limits = Limits::new().memory(4 << 20).code(1 << 20);
    let pool = Pool::builder()
        .name("p")
        .limits(limits)
        .max_instances_per_entry(1)
        .clock(clock)
        .no_housekeeper()
        .build()
        .unwrap();
    let (f, big) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "big", 60),
    );
    f.call(1, ()).unwrap();
    f.call(1, ()).unwrap();
    big.call(1, ()).unwrap();
    let lease = big.acquire(1).unwrap();
    big.acquire(2).unwrap_err();
    big.acquire_with(1, room_within(Duration::ZERO))
        .unwrap_err();
    drop(lease);
    pool.retain(|idle| idle.name() != "big");
    let trap: Function<i32, i32> = pool
        .define(Definition::new("trap_if").wasm(guest("rogue_trap")))
        .unwrap();
    trap.call(1, 1).unwrap_err();
    let broken = wat(r#"(module (func (export "f") i32.const 1))"#);
    let broken: Function<(), ()> = pool
        .define(Definition::new("broken").wasm(broken).export("f"))
        .unwrap();
    broken.call(1, ()).unwrap_err();
    pool.remove("trap_if").unwrap();
    pool.sweep();
    pool
}

#[test]
fn c_o2_metrics_say_what_happened() {
    let recorded = Recorded::default();
    let pool = metrics::with_local_recorder(&recorded, eventful);
    let stats = check(&pool);
    for (name, value) in [
        ("hits_total{pool=p}", stats.hits as f64),
        ("misses_total{pool=p}", stats.misses as f64),
        ("blocks_total{pool=p}", 1.0),
        ("blocks_total{pool=p}", stats.blocks as f64),
        ("refusals_total{pool=p}", 1.0),
        ("refusals_total{pool=p}", stats.refusals as f64),
        (
            "growth_refusals_total{pool=p}",
            stats.growth_refusals as f64,
        ),
        ("evictions_total{pool=p,reason=not_retained}", 1.0),
        (
            "evictions_total{pool=p,reason=not_retained}",
            stats.evictions as f64,
        ),
        ("retirements_total{pool=p,reason=failed}", 1.0),
        (
            "retirements_total{pool=p,reason=failed}",
            stats.retirements as f64,
        ),
        ("code_dropped_total{pool=p}", 1.0),
        ("code_dropped_total{pool=p}", stats.code_dropped as f64),
        ("compilations_total{pool=p}", 3.0),
        ("compilations_total{pool=p}", stats.compilations as f64),
        ("loads_total{pool=p}", stats.loads as f64),
        ("module_failures_total{pool=p}", 1.0),
        (
            "module_failures_total{pool=p}",
            stats.module_failures as f64,
        ),
        ("guest_failures_total{kind=trap,pool=p}", 1.0),
        ("compile_seconds{pool=p}", 3.0),
        ("load_seconds{pool=p}", 3.0),
        ("wait_seconds{outcome=timeout,pool=p}", 1.0),
        ("charged{budget=memory,pool=p}", instance_bytes(1) as f64),
        (
            "charged{budget=code,pool=p}",
            stats.budget(Budget::Code).charged as f64,
        ),
        ("limit{budget=memory,pool=p}", (4 << 20) as f64),
        (
            "limit{budget=mappings,pool=p}",
            Limits::DEFAULT_MAPPINGS as f64,
        ),
        ("instances{pool=p,state=idle}", 1.0),
        ("instances{pool=p,state=leased}", 0.0),
        ("modules_loaded{pool=p}", 2.0),
    ] {
        assert_eq!(
            recorded.value(&format!("wasm_pool_{name}")),
            value,
            "{name}"
        );
    }
    let values = recorded.values.lock().unwrap();
    assert!(
        !values.contains_key("wasm_pool_limit{budget=total,pool=p}"),
        "there is none"
    );
    assert_eq!((stats.hits, stats.code_dropped), (2, 1));
}

#[test]
fn c_o2_groups_have_series_of_their_own_as_many_as_there_may_be() {
    let recorded = Recorded::default();
    let (builder, clock) = quiet_with_clock();
    let builder = builder.name("p").idle_timeout(None);
    let calls = |group: &str| {
        let name = format!("wasm_pool_group_calls_total{{group={group},pool=p}}");
        recorded.values.lock().unwrap().get(&name).copied()
    };
    metrics::with_local_recorder(&recorded, || {
        let pool = builder.billing(Billing::new().metrics_groups(2));
        let pool = pool.build().unwrap();
        let f = define_with_pages(&pool, "f", 1);
        let large = define_with_pages(&pool, "large", 2);
        large.call("a", ()).unwrap();
        for group in ["b", "c", "d"] {
            f.call(group, ()).unwrap();
            clock.advance(Duration::from_secs(1));
        }
        pool.sweep();
        assert_eq!((calls("other"), calls("a")), (Some(4.0), None));
        for group in ["a", "b", "c", "d", "d"] {
            let f = if group == "a" { &large } else { &f };
            f.call(group, ()).unwrap();
        }
        clock.advance(Duration::from_secs(1));
        pool.sweep();
        let all = ["a", "b", "c", "d", "other"].map(calls);
        assert_eq!(all, [Some(1.0), Some(1.0), None, None, Some(7.0)]);
        let memory = "wasm_pool_group_memory_byte_seconds_total{group=a,pool=p}";
        assert_eq!(recorded.value(memory), instance_bytes(2) as f64);
    });
}

#[test]
fn c_o2_who_waited_and_was_served_is_recorded() {
    let recorded = Recorded::default();
    let pool = quiet_with_clock()
        .0
        .name("p")
        .max_instances_per_entry(1)
        .build()
        .unwrap();
    let f = define_with_pages(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            metrics::with_local_recorder(&recorded, || f.call(1, ()).unwrap());
        });
        wait_for_waiters(&pool, 1);
        drop(lease);
    });
    assert_eq!(
        recorded.value("wasm_pool_wait_seconds{outcome=served,pool=p}"),
        1.0
    );
}

#[test]
fn c_o2_every_metric_is_described_with_its_unit() {
    let recorded = Recorded::default();
    metrics::with_local_recorder(&recorded, eventful);
    let described = recorded.described.lock().unwrap();
    let of = |kind| {
        let of_kind = described.iter().filter(move |(_, (k, ..))| *k == kind);
        let short = |name: &String| name.strip_prefix("wasm_pool_").unwrap().to_owned();
        of_kind
            .map(|(name, (_, unit, _))| (short(name), *unit))
            .collect::<BTreeMap<_, _>>()
    };
    let all = |names: &[&str], unit| -> BTreeMap<String, Option<Unit>> {
        names.iter().map(|name| (name.to_string(), unit)).collect()
    };
    let counters = [
        "hits_total",
        "misses_total",
        "blocks_total",
        "refusals_total",
        "growth_refusals_total",
        "spares_total",
        "quarantines_total",
        "evictions_total",
        "retirements_total",
        "code_dropped_total",
        "compilations_total",
        "loads_total",
        "module_failures_total",
        "guest_failures_total",
        "warm_ups_total",
        "compiler_kills_total",
        "compiler_crashes_total",
        "group_calls_total",
        "group_failures_total",
        "group_refusals_total",
        "group_memory_byte_seconds_total",
    ];
    let times = ["compile_seconds", "load_seconds", "wait_seconds"];
    let mut counters = all(&counters, Some(Unit::Count));
    counters.extend(all(
        &["group_guest_microseconds_total"],
        Some(Unit::Microseconds),
    ));
    assert_eq!(of("counter"), counters);
    let mut histograms = all(&times, Some(Unit::Seconds));
    histograms.extend(all(&["compile_peak_percent"], Some(Unit::Percent)));
    assert_eq!(of("histogram"), histograms);
    let mut gauges = all(&["instances", "modules_loaded"], Some(Unit::Count));
    gauges.extend(all(&["charged", "limit"], None));
    assert_eq!(of("gauge"), gauges);
    assert!(described.values().all(|(_, _, text)| !text.is_empty()));
    // And nothing is recorded that is not described.
    for name in recorded.values.lock().unwrap().keys() {
        let (name, _) = name.split_once('{').unwrap();
        assert!(described.contains_key(name), "{name}");
    }
}

#[test]
fn c_o2_a_warm_lease_touches_no_metric() {
    let recorded = Recorded::default();
    metrics::with_local_recorder(&recorded, || {
        let pool = quiet_with_clock().0.build().unwrap();
        let f = define_with_pages(&pool, "f", 1);
        f.call(1, ()).unwrap();
        let before = recorded.touched.load(Ordering::Relaxed);
        assert!(before > 0, "the recorder records");
        for _ in 0..100 {
            f.call(1, ()).unwrap();
        }
        assert_eq!(recorded.touched.load(Ordering::Relaxed), before);
        pool.sweep();
        assert!(recorded.touched.load(Ordering::Relaxed) > before);
    });
}
