//! Guests that misbehave, next to one that does not.

use std::time::{Duration, Instant};

use wasm_pool::{Artifacts, CallError, Definition, Function, Limits, Pool, Stats};

use crate::checks::Checks;
use crate::screen::{Screen, grouped, mib};

macro_rules! guest {
    ($file:literal) => {
        &include_bytes!(concat!("../guests/prebuilt/", $file, ".wasm"))[..]
    };
}

const PER_INSTANCE: u64 = 4 << 20;
const TIME: Duration = Duration::from_millis(200);

/// The rogues, and a neighbour that counts its own calls: if its instance were lost, or another's
/// were mixed up with it, it would miscount.
struct Cast {
    pool: Pool,
    leak: Function<i32, i64>,
    trap: Function<i32, i32>,
    spin: Function<i64, i64>,
    recurse: Function<i64, i64>,
    next: Function<(), i64>,
    /// What the neighbour should answer next.
    count: i64,
}

/// Lets each of them loose; returns the pool's closing stats.
pub fn show(
    artifacts: Option<&Artifacts>,
    screen: &mut Screen,
    checks: &mut Checks,
) -> Result<Stats, String> {
    let mut cast = Cast::gather(artifacts).map_err(|error| format!("rogue guests: {error}"))?;
    cast.neighbour(checks);
    let each = mib(PER_INSTANCE);
    screen.line(&format!(
        "One instance may have {each} of memory, 512 KiB of stack and, for rogue.spin, {TIME:?}."
    ));

    let report = cast
        .leak(checks)
        .map_err(|error| wasm_pool::Report(&error).to_string())?;
    tell(
        screen,
        "rogue.leak: takes 256 KiB at a time, gives none back",
        &report,
    );
    cast.neighbour(checks);

    let error = failure(cast.trap.call("rogues", 1), checks);
    tell(screen, "rogue.trap_if: crashes", &error);
    // What crashed is gone; the next call gets a new instance.
    checks.check(matches!(cast.trap.call("rogues", 0), Ok(7)), || {
        "rogue.trap_if(0) should be 7 after a trap".into()
    });
    cast.neighbour(checks);

    let (error, calls) = cast.spin(checks);
    let calls = grouped(calls);
    tell(
        screen,
        "rogue.spin: never returns",
        &format!("{error}\n  (meanwhile its neighbour answered {calls} calls)"),
    );

    let error = failure(cast.recurse.call("rogues", i64::MAX), checks);
    tell(screen, "rogue.recurse: calls itself for ever", &error);
    cast.neighbour(checks);

    let stats = cast.pool.stats();
    let made = stats.function("state.next").map_or(0, |f| f.misses);
    checks.check(made == 1, || {
        format!("the neighbour of the rogues needed {made} instances")
    });
    let count = grouped(cast.count.unsigned_abs());
    screen.line(&format!(
        "\nTheir neighbour, state.next, counted its {count} calls in one and the same instance."
    ));
    checks.peaks("rogue guests", &stats);
    Ok(stats)
}

fn tell(screen: &mut Screen, who: &str, what: &str) {
    screen.line(&format!("\n{who}\n  {what}"));
}

/// The text of an error that has to come.
fn failure<R: std::fmt::Debug>(result: Result<R, CallError>, checks: &mut Checks) -> String {
    match result {
        Ok(value) => {
            checks.check(false, || format!("a rogue guest got away with {value:?}"));
            String::new()
        }
        Err(error) => {
            let by_guest = matches!(error, CallError::Trap { .. } | CallError::Limit { .. });
            checks.check(by_guest, || wasm_pool::Report(&error).to_string());
            wasm_pool::Report(&error).to_string()
        }
    }
}

impl Cast {
    fn gather(artifacts: Option<&Artifacts>) -> Result<Self, Box<dyn std::error::Error>> {
        let mut builder = Pool::builder()
            .name("rogues")
            .limits(Limits::new().memory(16 << 20).code(1 << 20))
            .max_instance_memory(PER_INSTANCE)
            .max_idle_memory(PER_INSTANCE / 2);
        if let Some(artifacts) = artifacts {
            builder = builder.artifacts(artifacts);
        }
        let pool = builder.build()?;
        let guest = |name: &str, wasm| Definition::new(name).wasm(wasm);
        let spin = guest("rogue.spin", guest!("rogue_spin")).call_timeout(TIME);
        Ok(Self {
            leak: pool.define(guest("rogue.leak", guest!("rogue_leak")).args(["int"]))?,
            trap: pool.define(guest("rogue.trap_if", guest!("rogue_trap")).args(["int"]))?,
            spin: pool.define(spin.args(["bigint"]))?,
            recurse: pool
                .define(guest("rogue.recurse", guest!("rogue_recurse")).args(["bigint"]))?,
            next: pool.define(guest("state.next", guest!("state_counter")))?,
            pool,
            count: 0,
        })
    }

    fn neighbour(&mut self, checks: &mut Checks) {
        self.count += 1;
        let (answer, expected) = (self.next.call("neighbours", ()), self.count);
        checks.check(matches!(answer, Ok(count) if count == expected), || {
            format!("state.next should be {expected}, and is {answer:?}")
        });
    }

    fn leak(&self, checks: &mut Checks) -> Result<String, CallError> {
        let mut lease = self.leak.acquire("rogues")?;
        let mut leaked = 0;
        loop {
            match lease.call(256 << 10)? {
                -1 => break,
                total => leaked = total,
            }
        }
        let held = lease.memory_bytes();
        drop(lease);
        checks.check(held <= PER_INSTANCE, || {
            format!("rogue.leak has {held} bytes")
        });
        let stats = self.pool.stats();
        let leak = stats.function("rogue.leak");
        let refusals = leak.map_or(0, |f| f.growth_refusals);
        checks.check(refusals > 0, || {
            "no growth of rogue.leak was refused".into()
        });
        let idle = leak.map_or(0, |f| f.idle);
        checks.check(idle == 0, || "an oversized instance was kept".into());
        let (leaked, held) = (grouped(leaked.unsigned_abs()), grouped(held));
        Ok(format!(
            "memory.grow returned -1 after {leaked} bytes, at {held} in all; too large to be kept, \
             the instance was retired"
        ))
    }

    /// The error, and how many calls the neighbour answered before it came.
    fn spin(&mut self, checks: &mut Checks) -> (String, u64) {
        let spin = self.spin.clone();
        let rogue = std::thread::spawn(move || {
            let began = Instant::now();
            (spin.call("rogues", 0), began.elapsed())
        });
        let mut calls = 0;
        while !rogue.is_finished() {
            self.neighbour(checks);
            calls += 1;
        }
        let Ok((result, took)) = rogue.join() else {
            checks.check(false, || "the thread of rogue.spin panicked".into());
            return (String::new(), calls);
        };
        checks.check(took >= TIME && took < 20 * TIME, || {
            format!("rogue.spin ended after {took:?}")
        });
        (failure(result, checks), calls)
    }
}
