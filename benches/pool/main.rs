//! Everything that the pool's speed is made of, each as a ratio to a baseline in the same run.
//!
//! `cargo bench --bench pool` measures for some minutes; a word after `--` chooses what, as in
//! `cargo bench --bench pool -- warm`. `-- --test` only tries whether everything runs.
//!
//! With criterion: it warms up, repeats until the noise is known, compares with the run before, and
//! has that short mode. What it cannot do is done here: the ratios.

use std::cell::RefCell;
use std::env;
use std::time::Duration;

use criterion::Criterion;

#[path = "../subjects/mod.rs"]
mod subjects;

use subjects::threads::Waits;
use subjects::{Subject, bookkeeping, cold, eviction, heap, many, pool, tasks, threads, warm};

#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    let (_pool, add) = pool();
    let mut calls = vec![warm::bare()];
    calls.extend(warm::by_hand());
    calls.extend([warm::held(&add), warm::resolved(&add), warm::keyed(&add)]);
    calls.extend([warm::keyed_by_key(&add), warm::keyed_by_name(&add)]);
    calls.push(warm::by_name());
    calls.extend(warm::leases());
    compare(&mut criterion, "warm", calls);

    let mut of_tasks = vec![tasks::bare(), tasks::held(&add)];
    of_tasks.extend([tasks::resolved(&add), tasks::keyed(&add)]);
    of_tasks.push(tasks::leases(&add));
    compare(&mut criterion, "tasks", of_tasks);

    let mut two = vec![threads::bare()];
    two.extend(threads::by_hand());
    two.extend([threads::different_entries(), threads::different_keys()]);
    two.push(threads::one_entry());
    two.extend(threads::one_instance());
    two.push(threads::round_trip());
    compare(&mut criterion, "two threads", two);

    let zipf = vec![
        many::zipf_array(),
        many::zipf_map(),
        many::zipf_keyed(),
        many::zipf_resolved(),
    ];
    compare(&mut criterion, "1000 keys", zipf);
    compare(
        &mut criterion,
        "1000 keys, two threads",
        many::zipf_on_two(),
    );
    if chosen("crowd") {
        let crowd = vec![
            many::crowd("1 function, 1 idle instance", 1, 1),
            many::crowd("1,000 functions, 10,000 idle", 1000, 10_000),
            many::crowd("100,000 functions, 10,000 idle", 100_000, 10_000),
        ];
        compare(&mut criterion, "crowd", crowd);
    }
    compare(&mut criterion, "cold", vec![cold::bare(), cold::pooled()]);
    if chosen("sweep") {
        let sweeps = vec![
            eviction::hundred_stores_dropped(),
            eviction::sweeps(),
            eviction::idle_sweeps(),
        ];
        compare(&mut criterion, "sweep", sweeps);
    }
    criterion.final_summary();
    if chosen("once") {
        once();
    }
}

fn is_test() -> bool {
    env::args().any(|arg| arg == "--test")
}

/// What is expensive to set up is set up only if it was asked for.
fn chosen(group: &str) -> bool {
    let mut words = env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .peekable();
    words.peek().is_none() || words.any(|word| word.contains(group) || group.contains(&word))
}

/// Measures all of them; the first is the baseline of the ratios that are printed at the end.
fn compare(criterion: &mut Criterion, name: &str, subjects: Vec<Subject>) {
    let mut group = criterion.benchmark_group(name);
    let mut measured = Vec::new();
    for mut subject in subjects {
        let samples = RefCell::new(Vec::new());
        group.bench_function(subject.name, |bencher| {
            bencher.iter_custom(|n| {
                let took = subject.run(n);
                samples.borrow_mut().push(took.as_nanos() as f64 / n as f64);
                took
            });
        });
        if let Some(median) = median(samples.into_inner()) {
            measured.push((subject.name, median));
        }
    }
    group.finish();
    let Some((baseline, nanos)) = measured.first().cloned() else {
        return;
    };
    if is_test() {
        return;
    }
    println!("\n{name}: as multiples of \"{baseline}\"");
    for (name, median) in measured {
        println!("  {name:45} {median:12.1} ns {:9.2} x", median / nanos);
    }
    println!();
}

fn median(mut samples: Vec<f64>) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

/// What is measured once, and not per operation.
fn once() {
    let scale = if is_test() { 100 } else { 1 };
    println!("herd: 8 threads, one function that was never used");
    let one = cold::bare_herd(1);
    for (name, herd) in [
        ("one alone, bare", &one),
        ("8, bare", &cold::bare_herd(8)),
        ("8, with the pool", &cold::herd(8)),
    ] {
        println!(
            "  {name:20} {} compilations, {:7.1} ms wall ({:.2} x), {:7.1} ms on processors ({:.2} x)",
            herd.compilations,
            herd.wall.as_secs_f64() * 1e3,
            herd.wall.as_secs_f64() / one.wall.as_secs_f64(),
            herd.cpu.as_secs_f64() * 1e3,
            herd.cpu.as_secs_f64() / one.cpu.as_secs_f64(),
        );
    }
    println!("waits of two threads for one instance");
    let [pool, mutex] = threads::waits_for_one_instance(100_000 / scale);
    show_waits("the pool's", &pool);
    show_waits("a mutex's", &mutex);
    println!("polls of a guest that never returns");
    for millis in [10, 1] {
        let tick = Duration::from_millis(millis);
        let polls = tasks::polls_of_a_spinning_guest(tick, 200 / scale as usize);
        let (median, longest) = (polls[polls.len() / 2], polls[polls.len() - 1]);
        println!("  epoch tick {tick:5?}: median {median:?}, longest {longest:?}");
    }
    println!("evictions one by one, beside dropping as many stores");
    for count in [1000 / scale, 10_000 / scale] {
        let evicted = eviction::one_by_one(count).as_nanos() as f64 / count as f64;
        let dropped = eviction::stores_dropped(count).as_nanos() as f64 / count as f64;
        println!("  {count:6} idle: {evicted:8.0} ns each, store {dropped:8.0} ns");
    }
    println!("heap, in bytes");
    println!("  a definition: {}", bookkeeping::per_definition());
    let instance = bookkeeping::per_idle_instance();
    println!("  an idle instance, beyond wasmtime's own: {instance}");
    let [pooled, bare] = bookkeeping::kept_after_compiling();
    println!("  kept after compiling 1.1 MB: {pooled} with the pool, {bare} by an engine");
}

fn show_waits(name: &str, waits: &Waits) {
    let Waits {
        median,
        p99,
        longest,
    } = waits;
    println!("  {name:12} median {median:?}, p99 {p99:?}, longest {longest:?}");
}
