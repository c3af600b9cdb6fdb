//! The numbers to reach, one line each: `name  measured  target  ok|short`.
//!
//! `cargo bench --bench targets`. Every target is a ratio of two things measured one after the
//! other, in several rounds, of which the median counts; or bytes. Exits with an error if one is
//! short. `-- --short` takes few rounds, to see whether it runs, and then never fails for a time; `-- waits evictions` measures
//! those sections alone (`SECTIONS`). Some lines need `--features warm-up,zstd`.

extern crate alloc;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

mod books;
#[allow(dead_code, reason = "of the model test, which uses all of it")]
#[path = "../../tests/state_model/fake.rs"]
mod fake;
#[allow(dead_code, reason = "likewise")]
#[path = "../../tests/state_model/noisy_neighbour.rs"]
mod noisy_neighbour;
#[allow(dead_code, reason = "likewise")]
#[path = "../../tests/state_model/pool.rs"]
mod pool;
#[allow(dead_code, unused_imports, reason = "the pure core, alone")]
#[path = "../../src/state/mod.rs"]
mod state;
#[path = "../subjects/mod.rs"]
mod subjects;

use books::Books;
use noisy_neighbour::{Shape, found};
#[cfg(feature = "warm-up")]
use subjects::warm_up;
use subjects::{
    JSON, REGEX, Subject, artifacts, bookkeeping, cold, eviction, heap, many, pool, pool_of,
    pristine, tasks, tenants, threads, warm,
};
use wasm_pool::{Billing, Pool, PoolBuilder};

#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    calls: u64,
    crowd: usize,
}

const FULL: Effort = Effort {
    rounds: 15,
    calls: 200_000,
    crowd: 100_000,
};

const SHORT: Effort = Effort {
    rounds: 3,
    calls: 2000,
    crowd: 2000,
};

/// Measures some lines, and prints them.
type Section = fn(&mut Report);

/// What can be asked for by name.
const SECTIONS: &[(&str, Section)] = &[
    ("warm", Report::warm),
    ("bills", Report::bills),
    ("pristine", Report::pristine),
    ("tenants", Report::tenants),
    ("two-threads", Report::two_threads),
    ("tasks", Report::tasks),
    ("waits", Report::waits),
    ("crowds", Report::crowds),
    ("cold", Report::cold),
    #[cfg(feature = "warm-up")]
    ("warm-up", Report::warm_up),
    ("artifacts", Report::artifacts),
    ("evictions", Report::evictions),
    ("books", Report::books),
    ("bytes", Report::bytes),
    #[cfg(target_os = "linux")]
    ("host-memory", Report::host_memory),
    ("machine", Report::machine),
];

/// What was measured so far.
struct Report {
    effort: Effort,
    short: usize,
}

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    if subjects::host_memory::is_child() {
        return ExitCode::SUCCESS;
    }
    let only_try = env::args().any(|arg| arg == "--short" || arg == "--test");
    let effort = if only_try { SHORT } else { FULL };
    let mut report = Report { effort, short: 0 };
    println!("{:58} {:>10} {:>10}", "name", "measured", "target");
    let asked = |section: &str| env::args().skip(1).any(|arg| arg == section);
    let all = !SECTIONS.iter().any(|(section, _)| asked(section));
    for (section, measure) in SECTIONS {
        if all || asked(section) {
            measure(&mut report);
        }
    }
    if report.short > 0 && !only_try {
        println!("{} short", report.short);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Report {
    fn line(&mut self, name: &str, measured: f64, target: f64) {
        let verdict = if measured <= target { "ok" } else { "short" };
        self.short += usize::from(measured > target);
        if target >= 100.0 {
            println!("{name:58} {measured:10.0} {target:10.0}  {verdict}");
        } else {
            println!("{name:58} {measured:10.3} {target:10.3}  {verdict}");
        }
    }

    fn rounds(&self, round: impl FnMut(usize) -> f64) -> f64 {
        median((0..self.effort.rounds).map(round).collect())
    }

    /// Each subject beside the baseline, in turn.
    fn ratio(&mut self, name: &str, subject: &mut Subject, baseline: &mut Subject, target: f64) {
        let calls = self.effort.calls;
        subject.run(calls);
        let ratio = |_| {
            let before = baseline.nanos(calls);
            let measured = subject.nanos(calls);
            let after = baseline.nanos(calls);
            measured / ((before + after) / 2.0)
        };
        let measured = self.rounds(ratio);
        self.line(name, measured, target);
    }

    fn warm(&mut self) {
        let (_pool, add) = pool();
        let bare = &mut warm::bare();
        let resolved = &mut warm::resolved(&add);
        let keyed = &mut warm::keyed(&add);
        let by_key = &mut warm::keyed_by_key(&add);
        let by_name = &mut warm::keyed_by_name(&add);
        self.ratio("warm, resolved entry / bare call", resolved, bare, 1.2);
        self.ratio(
            "warm, by function and number / bare call",
            keyed,
            bare,
            1.45,
        );
        let name = "warm, by function and group's key / bare call";
        self.ratio(name, by_key, bare, 1.45);
        self.ratio("warm, by function and name / bare call", by_name, bare, 2.2);
    }

    /// What a warm lease with a call takes longer in a pool that keeps bills.
    fn bills(&mut self) {
        let billing = Billing::new();
        for (name, billing, target) in [
            ("bills, ns of a warm lease", billing, 2.0),
            // Twice what the system's clock takes.
            (
                "bills with exact times, ns of a warm lease",
                billing.exact_times(true),
                120.0,
            ),
        ] {
            let (_without_bills, add) = pool();
            let (_with_bills, billed) = pool_of(Pool::builder().billing(billing));
            let (without, with) = (&mut warm::resolved(&add), &mut warm::resolved(&billed));
            let calls = self.effort.calls;
            with.run(calls);
            let more = self.rounds(|_| {
                let before = without.nanos(calls);
                let measured = with.nanos(calls);
                let after = without.nanos(calls);
                measured - (before + after) / 2.0
            });
            self.line(name, more, target);
        }
    }

    /// Leases of instances that nobody has used before.
    fn pristine(&mut self) {
        let (_pool, add) = pool();
        let warm = &mut warm::resolved(&add);
        let spare = &mut pristine::while_spares_last(pristine::on_demand());
        let spare_in_places = &mut pristine::while_spares_last(pristine::in_places());
        let fresh = &mut pristine::fresh_pooled();
        let few = Effort {
            calls: self.effort.calls / 50,
            ..self.effort
        };
        let full = std::mem::replace(&mut self.effort, few);
        let name = "pristine, while spares last / fresh, pooling allocator";
        self.ratio(name, spare, fresh, 0.2);
        let name = "the same, in places";
        self.ratio(name, spare_in_places, fresh, 0.2);
        let name = "pristine, while spares last / warm, resolved entry";
        self.ratio(name, spare, warm, 1.3);
        let by_hand = &mut pristine::made_ahead_by_hand();
        let name = "pristine, while spares last / made ahead, by hand";
        self.ratio(name, spare, by_hand, 1.3);
        let without = &mut pristine::without_spares(pristine::in_places());
        let name = "pristine, without spares, in places / fresh, pooling allocator";
        self.ratio(name, without, fresh, 1.2);
        let without = &mut pristine::without_spares(pristine::on_demand());
        let on_demand = &mut pristine::fresh_on_demand();
        let name = "pristine, without spares / fresh, on demand";
        self.ratio(name, without, on_demand, 1.2);
        let leases = self.effort.calls;
        let sustained = |how: &str, builder: fn() -> PoolBuilder| {
            let [mut rate, mut used] = [Vec::new(), Vec::new()];
            for _ in 0..self.effort.rounds {
                let (took, nanos) = pristine::sustained(builder(), leases);
                rate.push(leases as f64 / took.as_secs_f64());
                used.push(nanos / 1e3);
            }
            let (rate, used) = (median(rate), median(used));
            println!(
                "pristine, one after the other, {how}: {rate:.0} a second, {used:.1} us of the processors each"
            );
        };
        sustained("on demand", pristine::on_demand);
        sustained("in places", pristine::in_places);
        self.effort = full;
    }

    /// What shares cost a warm lease; what a flood costs a tenant with a reservation, in the replay of the model test; and how
    /// long a queue delays another group's.
    fn tenants(&mut self) {
        let (_without, add) = pool();
        let (_with, shared) = tenants::with_shares();
        let (without, with) = (&mut warm::resolved(&add), &mut warm::resolved(&shared));
        let name = "warm, in a group with shares / without";
        self.ratio(name, with, without, 1.05);
        for policy in [state::Policy::ModuleLru, state::Policy::CostAware] {
            let lost = Shape::ALL.map(|shape| {
                let alone = found(policy, shape, false, false);
                alone - found(policy, shape, true, true)
            });
            let name = format!("{policy:?}: points of a quiet tenant's hits lost in a flood");
            self.line(&name, lost.into_iter().fold(0.0, f64::max), 0.1);
        }
        let crowd = self.effort.crowd / 100;
        let turns = tenants::turns_before_anothers(crowd);
        let name = format!("{crowd} of one group wait: turns before another's one");
        self.line(&name, turns as f64, 1.0);
    }

    fn two_threads(&mut self) {
        let bare = &mut threads::bare();
        let one = &mut threads::one_entry();
        let different = &mut threads::different_entries();
        self.ratio("2 threads, 1 entry with 2 instances / bare", one, bare, 1.3);
        self.ratio("2 threads, different entries / bare", different, bare, 1.25);
    }

    fn tasks(&mut self) {
        let (_pool, add) = pool();
        let bare = &mut tasks::bare();
        let resolved = &mut tasks::resolved(&add);
        let held = &mut tasks::held(&add);
        let name = "task: acquire, call, release / bare call_async";
        self.ratio(name, resolved, bare, 1.4);
        self.ratio(
            "task: call in a held lease / bare call_async",
            held,
            bare,
            1.15,
        );
    }

    fn waits(&mut self) {
        // Enough that the first ones, which compile and learn how long it is worth to spin, are not among the last percent.
        let calls = 20_000;
        let p99 = self.rounds(|_| {
            let [pool, _] = threads::waits_for_one_instance(calls);
            micros(pool.p99)
        });
        self.line("2 threads, 1 instance: p99 of a wait, in us", p99, 5.0);
    }

    fn crowds(&mut self) {
        let array = &mut many::zipf_array();
        let keyed = &mut many::zipf_keyed();
        self.ratio("1,000 keys, Zipf / array of instances", keyed, array, 1.5);
        let mut two = many::zipf_on_two();
        if let [arrays, keyed] = &mut two[..] {
            self.ratio("the same on 2 threads / arrays", keyed, arrays, 1.8);
        }
        let alone = &mut many::crowd("alone", 1, 1);
        let crowd = &mut many::crowd("crowd", self.effort.crowd, self.effort.crowd / 10);
        let functions = self.effort.crowd;
        let name = format!(
            "{functions} functions, {} idle / one of each",
            functions / 10
        );
        self.ratio(&name, crowd, alone, 1.2);
    }

    fn cold(&mut self) {
        let (bare, pooled) = (&mut cold::bare(), &mut cold::pooled());
        let cold = self.rounds(|_| pooled.nanos(1) / bare.nanos(1));
        self.line("cold acquire / compile and instantiate", cold, 1.03);
        #[cfg(all(target_os = "linux", feature = "compiler"))]
        {
            let (here, process) = (&mut cold::pooled(), &mut cold::in_process());
            let share = self.rounds(|_| process.nanos(1) / here.nanos(1));
            self.line("cold acquire, in a warm process / here", share, 1.1);
        }
        let mut wall = Vec::new();
        let mut cpu = Vec::new();
        let mut compilations = 0;
        for _ in 0..self.effort.rounds {
            let (alone, herd) = (cold::herd(1), cold::herd(8));
            wall.push(herd.wall.as_secs_f64() / alone.wall.as_secs_f64());
            cpu.push(herd.cpu.as_secs_f64() / alone.cpu.as_secs_f64());
            compilations = compilations.max(herd.compilations);
        }
        self.line("herd of 8: compilations", compilations as f64, 1.0);
        self.line("herd of 8: wall / one alone", median(wall), 1.05);
        self.line("herd of 8: processor time / one alone", median(cpu), 1.05);
    }

    #[cfg(feature = "warm-up")]
    fn warm_up(&mut self) {
        let (cold, warmed_up) = (&mut warm_up::cold(), &mut warm_up::warmed_up());
        let share = self.rounds(|_| warmed_up.nanos(1) / cold.nanos(1));
        self.line("first call of an interpreter: warmed up / cold", share, 0.1);
    }

    /// From an artifact to the first call, over wasmtime's `deserialize_file`, which verifies nothing. What is between
    /// the two from a directory is bounded by two parts of it, which are measured alone.
    fn artifacts(&mut self) {
        for (size, wasm) in [("100 kB", JSON), ("1.1 MB", REGEX)] {
            let bare = &mut artifacts::deserialize_file(wasm);
            let subjects = [
                ("first time", &mut artifacts::first_time(wasm)),
                ("again", &mut artifacts::again(wasm)),
                (
                    "again, memory in front",
                    &mut artifacts::again_with_memory(wasm),
                ),
                ("in memory", &mut artifacts::in_memory(wasm)),
            ];
            for (when, subject) in subjects {
                let measured = self.beside(bare, subject);
                let name = format!("artifact of {size}, {when} / deserialize_file");
                self.line(&name, measured, 1.3);
            }
            self.part(size, "hash alone", bare, &mut artifacts::hash_alone(wasm));
            #[cfg(target_os = "linux")]
            self.part(size, "copy alone", bare, &mut artifacts::copy_alone(wasm));
            #[cfg(feature = "zstd")]
            {
                let compressed = &mut artifacts::compressed(wasm);
                self.part(size, "compressed, first time", bare, compressed);
                let levels = [1, 3, 9, 19];
                let (raw, compressed) = artifacts::sizes(wasm, &levels);
                println!("artifact of {size}: {raw} bytes; at levels {levels:?}: {compressed:?}");
            }
        }
    }

    /// Once, over the baseline before and after it.
    fn beside(&self, baseline: &mut Subject, subject: &mut Subject) -> f64 {
        baseline.run(1);
        self.rounds(|_| {
            let before = baseline.nanos(1);
            let measured = subject.nanos(1);
            measured / ((before + baseline.nanos(1)) / 2.0)
        })
    }

    /// What a line consists of: it has no target.
    fn part(&self, size: &str, what: &str, baseline: &mut Subject, subject: &mut Subject) {
        let measured = self.beside(baseline, subject);
        let name = format!("artifact of {size}, {what} / deserialize_file");
        println!("{name:58} {measured:10.3}          -");
    }

    fn evictions(&mut self) {
        let count = (self.effort.crowd / 10) as u64;
        let mut grow = Vec::new();
        let beyond = self.rounds(|round| {
            // Whatever comes second finds the system warmer.
            let evict = || eviction::one_by_one(count).as_secs_f64();
            let drop = || eviction::stores_dropped(count).as_secs_f64();
            let (evicted, dropped) = if round % 2 == 0 {
                let evicted = evict();
                (evicted, drop())
            } else {
                let dropped = drop();
                (evict(), dropped)
            };
            let tenth = eviction::one_by_one(count / 10).as_secs_f64();
            grow.push(evicted / (10.0 * tenth));
            (evicted - dropped) / dropped
        });
        let name = format!("evicting {count} one by one: books / dropping stores");
        self.line(&name, beyond, 0.15);
        // Four thirds: what log n grows by from 1,000 to 10,000.
        self.line(
            "the same, each / each of a tenth as many",
            median(grow),
            4.0 / 3.0,
        );
    }

    /// The books alone, which is what is under the pool's lock.
    fn books(&mut self) {
        let many = (self.effort.crowd / 10) as u32;
        let choices = self.effort.calls as usize / 40;
        let few = &mut Books::of_modules(many / 100);
        let books = &mut Books::of_modules(many);
        let (small, large) = (few.choices(choices), books.choices(choices));
        let at = |sorted: &[Duration], percent| micros(sorted[sorted.len() * percent / 100]);
        let flat = at(&large, 50) / at(&small, 50);
        let name = format!("choosing of {many} modules / of {}, median", many / 100);
        self.line(&name, flat, 4.0);
        let name = format!("choosing of {many} modules: p99, in us");
        self.line(&name, at(&large, 99), 5.0);
        let sweep = self.rounds(|_| micros(books.sweep()));
        let name = format!("sweep of {many} idle that finds nothing: lock, in us");
        self.line(&name, sweep, 20.0);
        let refusal = self.rounds(|_| micros(books.refusal()));
        println!("refusal that counts {many} idle: lock, in us: {refusal:.1}");
    }

    fn bytes(&mut self) {
        self.line(
            "bytes of books per definition",
            bookkeeping::per_definition() as f64,
            512.0,
        );
        let instance = bookkeeping::per_idle_instance() as f64;
        self.line(
            "bytes per idle instance, beyond wasmtime's",
            instance,
            512.0,
        );
        let [pooled, bare] = bookkeeping::kept_after_compiling();
        let kept = pooled as f64 / bare as f64;
        self.line(
            "heap kept after compiling 1.1 MB / by an engine",
            kept,
            0.02,
        );
    }

    /// What compilations leave in the host, as the kernel says: of what is freed there, the allocator keeps what it likes.
    #[cfg(target_os = "linux")]
    fn host_memory(&mut self) {
        use subjects::host_memory::{WAYS, left_by};
        let modules = (self.effort.crowd / 2000).max(1);
        for way in WAYS {
            let name = format!("KiB left by {modules} compilations of 100 kB, {way}");
            let is_in_process = way == WAYS[2];
            if is_in_process && !cfg!(feature = "compiler") {
                continue;
            }
            let kib = left_by(way, modules) as f64 / 1024.0;
            match is_in_process {
                true => self.line(&name, kib, 1024.0),
                false => println!("{name:58} {kib:10.0}          -"),
            }
        }
    }

    /// What the figures above depend on.
    fn machine(&mut self) {
        let calls = self.effort.calls;
        let bare = warm::bare().nanos(calls);
        let swap = &mut warm::by_hand()[1];
        let swapped = self.rounds(|_| swap.nanos(calls));
        let trip = threads::round_trip().nanos(calls / 10);
        println!(
            "this machine: a bare call {bare:.1} ns; the same instance out of one atomic cell and back {swapped:.1} ns ({:.2} x bare); a cache line there and back {trip:.0} ns",
            swapped / bare
        );
    }
}
