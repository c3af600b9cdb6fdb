//! What each tenant does, and what the quiet one sees of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;
use wasm_pool::{AcquireError, Bill, Bills, Budget, CallError, Pool, Stats};

use crate::guests::{Add, Guests};
use crate::screen::Screen;

/// One call of the quiet tenant's.
pub struct Call {
    /// Since the run began.
    pub at: Duration,
    pub took: Duration,
    /// It found an instance that had served before.
    pub warm: bool,
    pub answered: bool,
}

/// What there was to see.
pub struct Seen {
    pub name: &'static str,
    pub calls: Vec<Call>,
    floods: u64,
    crashes: u64,
    kept_out: u64,
    stats: Stats,
    right: bool,
}

pub fn percent(ratio: f64) -> String {
    format!("{:.1} %", ratio * 100.0)
}

impl Seen {
    /// How often a call found an instance, of those after the first of each function.
    pub fn hit_ratio(&self) -> f64 {
        let warm = self.calls.iter().filter(|call| call.warm).count();
        warm as f64 / self.calls.len().max(1) as f64
    }

    pub fn failed(&self) -> usize {
        self.calls.iter().filter(|call| !call.answered).count()
    }

    /// The time that this share of all calls took at most.
    pub fn latency(&self, share: f64) -> Duration {
        let mut took: Vec<_> = self.calls.iter().map(|call| call.took).collect();
        took.sort_unstable();
        let at = (took.len() as f64 * share) as usize;
        took.get(at.min(took.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    pub fn is_right(&self) -> bool {
        self.right
    }

    pub fn lines(&self) -> Vec<String> {
        let Stats {
            evictions,
            compilations,
            ..
        } = self.stats;
        let mut lines = vec![
            format!("  the flood called {} times", self.floods),
            format!(
                "  the crashing one trapped {} times, and was kept out {}",
                self.crashes, self.kept_out
            ),
            format!("  {compilations} compilations, {evictions} evictions"),
            format!(
                "  the quiet one called {} times, warm at {}",
                self.calls.len(),
                percent(self.hit_ratio())
            ),
        ];
        lines.extend(self.stats.bills.iter().flat_map(|bills| bill_lines(bills)));
        lines
    }
}

/// Who has used what.
fn bill_lines(bills: &Bills) -> Vec<String> {
    // Bytes times nanoseconds.
    let mib_seconds = |held: u128| held as f64 / f64::from(1 << 20) / 1e9;
    let row = |name: &str, bill: &Bill| {
        let [held, leased] = [bill.held(Budget::Memory), bill.leased(Budget::Memory)];
        format!(
            "  {name:10} {:>9} {:>8} {:>9.2?} {:>11.1} {:>8.1} {:>7.2} {:>9} {:>8}",
            bill.calls,
            bill.failures.traps,
            bill.guest_time,
            mib_seconds(held),
            mib_seconds(leased),
            mib_seconds(bill.held(Budget::Code)),
            bill.compilations,
            bill.refusals,
        )
    };
    let head = "  bill           calls    traps  in guests  MiB·s held   leased    code  compiled  refused";
    let groups = bills.groups.iter();
    let mut lines = vec![head.to_owned()];
    lines.extend(groups.map(|of| row(&of.group.to_string(), &of.bill)));
    lines.push(row("all", &bills.total));
    lines
}

/// Shared by all tasks of a run.
#[derive(Default)]
struct Run {
    over: AtomicBool,
    wrong: AtomicBool,
    floods: AtomicU64,
    crashes: AtomicU64,
    kept_out: AtomicU64,
}

impl Run {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn check(&self, is_right: bool) {
        if !is_right {
            self.wrong.store(true, Ordering::Relaxed);
        }
    }
}

pub async fn run(
    name: &'static str,
    pool: &Pool,
    guests: Guests,
    time: Duration,
    screen: &mut Screen,
) -> Seen {
    let run = Arc::new(Run::default());
    let flood = Arc::new(guests.flood);
    let mut others: Vec<JoinHandle<()>> = Vec::new();
    let quiet = tokio::spawn(call_quietly(run.clone(), guests.quiet));
    for from in 0..4 {
        others.push(tokio::spawn(call_all(
            run.clone(),
            flood.clone(),
            from * 30,
        )));
    }
    others.push(tokio::spawn(leak(run.clone(), guests.leak)));
    others.push(tokio::spawn(crash(run.clone(), guests.crash)));
    let began = Instant::now();
    while began.elapsed() < time {
        sleep(Duration::from_millis(50)).await;
        let (done, all) = (began.elapsed().as_millis(), time.as_millis());
        screen.progress(done.min(all) as usize, all as usize, || name.to_owned());
    }
    let stats = pool.stats();
    run.over.store(true, Ordering::Relaxed);
    let calls = quiet.await.expect("it does not panic");
    // What hangs on is told to stop.
    let drained =
        (pool.close_and_cancel_async(Duration::from_millis(100), Duration::from_secs(5))).await;
    for other in others {
        other.await.expect("it does not panic");
    }
    let right = drained
        && !run.wrong.load(Ordering::Relaxed)
        && stats
            .budgets()
            .all(|(_, report)| report.allows(report.peak));
    Seen {
        name,
        calls,
        floods: run.floods.load(Ordering::Relaxed),
        crashes: run.crashes.load(Ordering::Relaxed),
        kept_out: run.kept_out.load(Ordering::Relaxed),
        stats,
        right,
    }
}

/// A call each millisecond, of the first functions more often than of the last.
async fn call_quietly(run: Arc<Run>, functions: Vec<Add>) -> Vec<Call> {
    for add in &functions {
        let _ = add.call_async("quiet", (1, 2)).await;
    }
    let mut calls = Vec::new();
    let began = Instant::now();
    for turn in 0_usize.. {
        if !run.goes_on() {
            break;
        }
        let add = &functions[turn % (turn / 7 % functions.len() + 1)];
        let at = began.elapsed();
        let leased = add.acquire_async("quiet").await;
        let warm = leased.as_ref().is_ok_and(|lease| lease.uses() > 1);
        let answered = match leased {
            Ok(mut lease) => {
                let sum = lease.call_async((turn as i64, 1)).await;
                run.check(sum.as_ref().is_ok_and(|sum| *sum == turn as i64 + 1));
                sum.is_ok()
            }
            Err(_) => false,
        };
        let took = began.elapsed() - at;
        calls.push(Call {
            at,
            took,
            warm,
            answered,
        });
        sleep(Duration::from_millis(1)).await;
    }
    calls
}

/// One function after the other, as fast as it gets answers.
async fn call_all(run: Arc<Run>, functions: Arc<Vec<Add>>, from: usize) {
    let mut next = from;
    while run.goes_on() {
        let sum = functions[next % functions.len()]
            .call_async("flood", (1, 2))
            .await;
        run.check(sum.is_err() || sum.is_ok_and(|sum| sum == 3));
        run.floods.fetch_add(1, Ordering::Relaxed);
        next += 1;
        tokio::task::yield_now().await;
    }
}

/// Holds whatever it gets, and has each instance grow as far as it can.
async fn leak(run: Arc<Run>, function: wasm_pool::Function<(), i32>) {
    let mut held = Vec::new();
    while run.goes_on() {
        match function
            .acquire_async_timeout("leaky", Duration::from_millis(10))
            .await
        {
            Ok(mut lease) => {
                while lease.call_async(()).await.is_ok_and(|pages| pages > 0) {}
                held.push(lease);
            }
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn crash(run: Arc<Run>, function: wasm_pool::Function<(), i32>) {
    while run.goes_on() {
        match function.call_async("crashing", ()).await {
            Err(CallError::Trap { .. }) => _ = run.crashes.fetch_add(1, Ordering::Relaxed),
            Err(CallError::Acquire(AcquireError::Quarantined { .. })) => {
                run.kept_out.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {}
            Ok(_) => run.check(false),
        }
        sleep(Duration::from_millis(1)).await;
    }
}
