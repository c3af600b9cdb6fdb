//! A quiet tenant beside one that floods, replayed in the core: what the flood costs the quiet one.
//!
//! Two tenants with modules of their own, called in one of several shapes; calls come at random, and each lasts for a
//! while. In the flood the loud tenant calls five times as often, and over twenty times as many modules. What is
//! measured is how many of the quiet tenant's calls find their module's code.

use std::collections::BTreeMap;

use crate::fake::{Fake, Instance};
use crate::pool::{Module, NONE, Pool};
use crate::state::{
    Amounts, Budget, Expiry, Group, Policy, Prepare, RequestId, ReserveOutcome, SeatOffer,
    ShareTerms,
};

const QUIET: u64 = 1;
const LOUD: u64 = 2;
/// Of each tenant, as long as nobody floods.
const MODULES: u64 = 12;
const FLOOD_MODULES: u64 = 240;
/// Kilobytes of code: a tenant's modules take a hundred each in the mean, and the pool has room for both tenants, and a
/// quarter more.
const CODE: u64 = 2 * MODULES * 125;
const MEMORY: u64 = 40;
/// Milliseconds, in the mean, between two calls of the quiet tenant, and how long one lasts.
const GAP: f64 = 50.0;
const LASTS: u64 = 20;
/// How often instances that have been idle for five seconds are swept out.
const SWEEP: u64 = 1_000;
const IDLE: u64 = 5_000;
const TIME: u64 = 600_000;
/// Where most modules are called rarely.
const LONG_TIME: u64 = 4_000_000;
/// Before it, nothing is counted: each module has been called once by then.
const WARM: u64 = 250_000;

/// A generator of the same numbers in each run (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    /// From 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = (self.0)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1_u64 << 31) as f64
    }

    /// The time until the next of calls that come at random.
    fn gap(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.roll()).ln()
    }

    /// Below `count`, the first most often.
    fn zipf(&mut self, count: u64) -> u64 {
        let all: f64 = (1..=count).map(|rank| 1.0 / rank as f64).sum();
        let mut left = self.roll() * all;
        let passed = (1..count).take_while(|rank| {
            left -= 1.0 / *rank as f64;
            left > 0.0
        });
        passed.count() as u64
    }
}

/// Which modules a tenant calls, and when. After those by which eviction policies were compared (`policy.md`); the real
/// traces are not here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// By Zipf's law.
    Zipf,
    /// The same, and now and then each module once, one after the other.
    Scans,
    /// One module for a while, then another.
    Bursts,
    /// Periods of a second to four minutes, one for each module, and every third of them at random; as functions in the
    /// cloud are called, most of them rarely.
    Periods,
}

impl Shape {
    pub const ALL: [Self; 4] = [Self::Zipf, Self::Scans, Self::Bursts, Self::Periods];
}

/// Calls of a tenant.
struct Calls {
    shape: Shape,
    dice: Dice,
    /// Milliseconds between two of them, in the mean.
    gap: f64,
    modules: u64,
    next: f64,
    /// Of a scan or a burst, so many calls are left, and which module is the next, or the same.
    left: u64,
    module: u64,
    /// When each module is called next, if that is how.
    due: Vec<f64>,
}

impl Calls {
    fn new(shape: Shape, seed: u64, gap: f64, modules: u64) -> Self {
        let mut calls = Self {
            shape,
            dice: Dice(seed),
            gap,
            modules,
            next: 0.0,
            left: 0,
            module: 0,
            due: Vec::new(),
        };
        if shape == Shape::Periods {
            let first = |module| calls.dice.roll() * calls.period(module);
            calls.due = (0..modules).map(first).collect();
        }
        calls
    }

    /// From a second to four minutes; more modules than a tenant usually has are called as often as its own are.
    fn period(&self, module: u64) -> f64 {
        let at = (module % MODULES) as f64 / (MODULES - 1) as f64;
        let scale = self.gap / GAP * self.modules as f64 / MODULES as f64;
        1000.0 * 240_f64.powf(at) * scale
    }

    /// Takes the next call: when it comes, and of which module.
    fn take(&mut self) -> (f64, u64) {
        let at = self.next;
        let module = match self.shape {
            Shape::Zipf => self.dice.zipf(self.modules),
            Shape::Scans => self.scan(),
            Shape::Bursts => self.burst(),
            Shape::Periods => return self.period_over(),
        };
        self.next += self.dice.gap(self.gap);
        (at, module)
    }

    fn scan(&mut self) -> u64 {
        if self.left == 0 {
            // One call in a hundred begins a scan.
            if self.dice.roll() > 0.01 {
                return self.dice.zipf(self.modules);
            }
            self.left = self.modules;
        }
        self.left -= 1;
        self.left
    }

    fn burst(&mut self) -> u64 {
        if self.left == 0 {
            self.module = self.dice.zipf(self.modules);
            self.left = 1 + (self.dice.gap(30.0)) as u64;
        }
        self.left -= 1;
        self.module
    }

    fn period_over(&mut self) -> (f64, u64) {
        let due = self.due.iter().enumerate();
        let first = due.min_by(|a, b| a.1.total_cmp(b.1));
        let (module, at) = first.map(|(n, at)| (n as u64, *at)).expect("modules");
        let period = self.period(module);
        let gap = match module % 3 {
            0 => self.dice.gap(period),
            _ => period,
        };
        self.due[module as usize] += gap.max(1.0);
        (at, module)
    }
}

/// The quiet tenant's calls: all, and those that found their code.
#[derive(Default)]
struct Counts {
    calls: u32,
    found: u32,
}

struct Replay {
    pool: Pool,
    /// Leases, by when they end.
    leases: BTreeMap<(u64, u64), Instance>,
    counts: Counts,
}

impl Replay {
    fn new(policy: Policy, reserved: bool) -> Self {
        let limits = [(Budget::Code, CODE), (Budget::Memory, MEMORY)];
        let mut pool = Pool::new(policy, &limits);
        for group in [QUIET, LOUD].iter().filter(|_| reserved) {
            let mut terms = ShareTerms {
                lapses_after: Some(300_000),
                ..ShareTerms::default()
            };
            // Together, nine tenths.
            for (budget, limit) in limits {
                terms.reserved.set(budget, limit * 45 / 100);
            }
            let set = (pool.state).set_share(&Group::from(*group), terms, &mut pool.cx);
            assert_eq!(set, Ok(()));
        }
        Self {
            pool,
            leases: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    fn pass_until(&mut self, now: u64) {
        while let Some(ended) = self.leases.first_entry().filter(|e| e.key().0 <= now) {
            let lease = ended.remove();
            self.pool.park(lease);
        }
        self.pool.pass_until(now);
    }

    fn sweep(&mut self) {
        let expiry = Expiry {
            idle: Some(IDLE),
            ..Expiry::default()
        };
        while self.pool.state.sweep(expiry, &mut self.pool.cx) {}
        self.pool.destroy();
    }

    /// One call, of the module with this key; its number is like no other.
    fn call(&mut self, group: u64, key: u8, now: u64, number: u64) {
        let counts = group == QUIET && now >= WARM;
        self.counts.calls += u32::from(counts);
        // From 50 to 150 kilobytes.
        let module = Module::new(key, 50 + u64::from(key) * 37 % 101);
        let entry = self.pool.entry(module, group);
        let (lease, found) = match self.pool.state.try_seat(entry, &mut self.pool.cx) {
            SeatOffer::Idle(instance) => (Some(instance), true),
            SeatOffer::Seat(request) => self.make(request, module),
            // All of a kind are busy: a host waits for one of them.
            SeatOffer::Full | SeatOffer::GroupFull => (None, true),
            SeatOffer::Quarantined(_) | SeatOffer::Barred | SeatOffer::Gone | SeatOffer::Closed => {
                panic!("nothing was removed, and nothing fails")
            }
        };
        self.counts.found += u32::from(counts && found);
        if let Some(lease) = lease {
            self.leases.insert((now + LASTS, number), lease);
        }
        self.pool.destroy();
    }

    /// A new instance, if there is room for it; and whether its code was there.
    fn make(&mut self, request: RequestId<Fake>, module: Module) -> (Option<Instance>, bool) {
        let prepared = (self.pool.state).prepare(request, &mut self.pool.cx.out);
        let found = !matches!(prepared, Prepare::Lead { .. });
        let code = NONE.code(module.code).mappings(1);
        let holds = NONE.memory(module.memory).stack(1).mappings(1);
        let has_code = found || self.has_room(request, code);
        let pool = &mut self.pool;
        if !found && has_code {
            let serial = u32::from(module.key);
            (pool.state).loaded(request, serial, code, module.code, &mut pool.cx.out);
        }
        if !has_code || !self.has_room(request, holds) {
            let pool = &mut self.pool;
            pool.state.abandon(request, &mut pool.cx.out);
            return (None, found);
        }
        let pool = &mut self.pool;
        let stamp = pool.cx.slots.next_stamp();
        let born = pool.state.install(request, holds, stamp, &mut pool.cx);
        (born.ok(), found)
    }

    fn has_room(&mut self, request: RequestId<Fake>, need: Amounts) -> bool {
        let pool = &mut self.pool;
        loop {
            match pool.state.reserve(request, need, &mut pool.cx) {
                ReserveOutcome::Granted => return true,
                ReserveOutcome::Evicting => drop(pool.destroy()),
                ReserveOutcome::AwaitFrees(_) | ReserveOutcome::Refused(_) => return false,
            }
        }
    }
}

/// How many of the quiet tenant's calls find their code, in percent.
pub fn found(policy: Policy, shape: Shape, floods: bool, reserved: bool) -> f64 {
    let mut replay = Replay::new(policy, reserved);
    // The quiet tenant's calls are the same in each run.
    let mut quiet = Calls::new(shape, 1, GAP, MODULES);
    let mut loud = match floods {
        // A burst is of one module, and no flood.
        true if shape == Shape::Bursts => Calls::new(Shape::Zipf, 2, GAP / 5.0, FLOOD_MODULES),
        true => Calls::new(shape, 2, GAP / 5.0, FLOOD_MODULES),
        false => Calls::new(shape, 2, GAP, MODULES),
    };
    let end = match shape {
        Shape::Periods => LONG_TIME,
        Shape::Zipf | Shape::Scans | Shape::Bursts => TIME,
    };
    let (mut next_quiet, mut next_loud, mut swept) = (quiet.take(), loud.take(), 0);
    for number in 0.. {
        let is_quiet = next_quiet.0 <= next_loud.0;
        let (at, module) = if is_quiet { next_quiet } else { next_loud };
        let now = at as u64;
        if now >= end {
            break;
        }
        if now >= swept + SWEEP {
            replay.sweep();
            swept = now;
        }
        replay.pass_until(now);
        if is_quiet {
            replay.call(QUIET, module as u8, now, number);
            next_quiet = quiet.take();
        } else {
            replay.call(LOUD, (MODULES + module) as u8, now, number);
            next_loud = loud.take();
        }
    }
    assert_eq!(replay.pool.state.recount(), Ok(()));
    100.0 * f64::from(replay.counts.found) / f64::from(replay.counts.calls)
}

/// What is reserved for the quiet tenant is enough for what it uses: a flood costs it a tenth of a point at most, whatever
/// the shape (two by the ancestor's policy). Without that, the flood takes its code.
#[test]
fn a_flood_costs_a_quiet_tenant_nothing_of_what_is_reserved_for_it() {
    for shape in Shape::ALL {
        for policy in [Policy::Lru, Policy::ModuleLru, Policy::CostAware] {
            let alone = found(policy, shape, false, false);
            let flooded = found(policy, shape, true, false);
            let kept = found(policy, shape, true, true);
            println!(
                "{shape:?}, {policy:?}: {alone:.2} % find their code, {flooded:.2} in a flood, {kept:.2} if reserved"
            );
            // By the ancestor's policy code goes with its last instance, whatever is reserved for code.
            let most = if policy == Policy::Lru { 0.2 } else { 0.1 };
            assert!(kept >= alone - most, "{shape:?} {policy:?}: {alone} {kept}");
            assert!(
                flooded < alone - 0.5,
                "{shape:?} {policy:?}: the flood is none, {flooded}"
            );
        }
    }
}
