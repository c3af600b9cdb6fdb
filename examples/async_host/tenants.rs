//! Tenants: tasks that lease, call for some rows, and come back. They differ in what they do when
//! there is no room for them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use wasm_pool::{AcquireError, AcquireOptions, CallError, Lease, MemoryError};

use crate::guests::{Catalogue, Guest};

/// What a tenant does when stacks or memory are all in use.
#[derive(Debug, Clone, Copy)]
pub enum Visitor {
    /// Waits for its turn, however long it takes.
    Patient,
    /// Waits for some milliseconds, or does without.
    Hurried,
    /// Does not wait for room at all.
    Impatient,
}

pub const KINDS: [Visitor; 3] = [Visitor::Patient, Visitor::Hurried, Visitor::Impatient];

/// Longer than any run.
const LONG: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(50);
/// Rows of one visit, and how long each takes to arrive from elsewhere.
pub const ROWS: u64 = 8;
const ARRIVES: Duration = Duration::from_millis(1);
/// The longest that a tenant stays away.
const PAUSE: Duration = Duration::from_millis(400);
/// A lease that took longer to get had to wait, for room or for the compiler.
const AT_ONCE: Duration = Duration::from_millis(5);

/// What became of the visits of all tenants of one kind.
#[derive(Debug, Default)]
pub struct Visits {
    pub at_once: AtomicU64,
    pub waited: AtomicU64,
    pub gave_up: AtomicU64,
    pub refused: AtomicU64,
    /// Of the served: there was no memory for the guest to grow into, and the rest of the rows was
    /// left.
    pub cut_short: AtomicU64,
    /// Nanoseconds.
    pub longest_wait: AtomicU64,
}

/// What became of everything.
#[derive(Debug, Default)]
pub struct Tally {
    kinds: [Visits; 3],
    pub right: AtomicU64,
    pub tenants_served: AtomicU64,
    /// Nanoseconds.
    pub longest_stall: AtomicU64,
    pub first_refusal: Mutex<Option<String>>,
    pub complaints: Mutex<Vec<String>>,
}

impl Tally {
    pub fn of(&self, kind: Visitor) -> &Visits {
        &self.kinds[kind as usize]
    }

    /// Visits that are over, however they ended.
    pub fn visits(&self) -> u64 {
        let over = |v: &Visits| v.served() + get(&v.gave_up) + get(&v.refused);
        self.kinds.iter().map(over).sum()
    }

    pub fn stalled(&self, time: Duration) {
        let nanos = time.as_nanos() as u64;
        self.longest_stall.fetch_max(nanos, Ordering::Relaxed);
    }

    fn complain(&self, complaint: String) {
        let mut complaints = self.complaints.lock().expect("nothing panics in here");
        complaints.push(complaint);
    }
}

impl Visits {
    pub fn served(&self) -> u64 {
        get(&self.at_once) + get(&self.waited)
    }
}

pub fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

pub struct Tenant {
    number: u64,
    kind: Visitor,
    catalogue: Arc<Catalogue>,
    tally: Arc<Tally>,
}

impl Tenant {
    pub fn new(number: u64, catalogue: Arc<Catalogue>, tally: Arc<Tally>) -> Self {
        Self {
            number,
            kind: KINDS[number as usize % KINDS.len()],
            catalogue,
            tally,
        }
    }

    /// Visits so often, for one function after the other.
    pub async fn live(self, visits: u64) {
        let mut served = false;
        for visit in 0..visits {
            sleep(self.pause(visit)).await;
            let guests = &self.catalogue.guests;
            let guest = &guests[(self.number + visit / 2) as usize % guests.len()];
            served |= self.visit(guest, visit).await;
        }
        if served {
            more(&self.tally.tenants_served);
        }
    }

    /// What a tenant does between two visits; a tenth of them has nothing else to do.
    fn pause(&self, visit: u64) -> Duration {
        match self.number % 10 {
            0 => Duration::ZERO,
            _ => PAUSE * ((self.number * 7 + visit * 13) % 60) as u32 / 60,
        }
    }

    /// Leases an instance and calls it for all rows; whether it was served.
    async fn visit(&self, guest: &Guest, visit: u64) -> bool {
        let visits = self.tally.of(self.kind);
        let began = Instant::now();
        let leased = self.acquire(guest).await;
        let took = began.elapsed();
        match leased {
            Ok(lease) => {
                let nanos = took.as_nanos() as u64;
                visits.longest_wait.fetch_max(nanos, Ordering::Relaxed);
                self.rows(guest, lease, visit).await;
                more(if took < AT_ONCE {
                    &visits.at_once
                } else {
                    &visits.waited
                });
                return true;
            }
            Err(AcquireError::BudgetExceeded(error)) => {
                let mut first = self.tally.first_refusal.lock().expect("no panic in here");
                first.get_or_insert_with(|| wasm_pool::Report(&error).to_string());
                more(&visits.refused);
            }
            Err(AcquireError::Timeout { .. }) => more(&visits.gave_up),
            Err(error) => self.tally.complain(wasm_pool::Report(&error).to_string()),
        }
        false
    }

    /// Nothing here blocks a thread, and dropping the future while it waits leaves nothing behind.
    async fn acquire(&self, guest: &Guest) -> Result<Lease<'static>, AcquireError> {
        let (function, group) = (guest.function(), self.number);
        let room_within = |time| AcquireOptions::new().timeout(time).wait_for_room(true);
        match self.kind {
            Visitor::Patient => function.acquire_async_with(group, room_within(LONG)).await,
            Visitor::Hurried => {
                function
                    .acquire_async_with(group, room_within(MOMENT))
                    .await
            }
            Visitor::Impatient => function.acquire_async(group).await,
        }
    }

    async fn rows(&self, guest: &Guest, mut lease: Lease<'static>, visit: u64) {
        for row in 0..ROWS {
            // A lease may be held across anything: it is no lock.
            sleep(ARRIVES).await;
            let n = self.number * 1000 + visit * ROWS + row;
            match guest.call(&mut lease, n).await {
                Ok([answer, expected]) if answer == expected => more(&self.tally.right),
                Ok([answer, expected]) => self.tally.complain(format!(
                    "{} answered {answer:?} instead of {expected:?}",
                    lease.signature()
                )),
                // The budget was full, and the guest was told so: the host decides what that means.
                Err(CallError::Memory {
                    source: MemoryError::GuestOutOfMemory { .. },
                    ..
                }) => return more(&self.tally.of(self.kind).cut_short),
                Err(error) => return self.tally.complain(wasm_pool::Report(&error).to_string()),
            }
        }
    }
}
