//! A cell as a slot of the pool has it: with a lock, and somebody who wants to hear of a lease's end. Of what it
//! shares, `crate::sync` decides whose it is: the machine's, or the model checker's.

use std::iter;
use std::sync::atomic::AtomicBool as Unchecked;

use crate::pool::hot::owned_cell::{Found, OwnedCell};
use crate::pool::hot::thread::become_owner;
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, Ordering, StaticU64, has_heavy_fences};

/// What lies in a cell.
#[derive(Default)]
pub struct Value {
    in_use: Unchecked,
    /// Not atomic: whoever has the value is alone with it.
    uses: u64,
}

impl Value {
    fn use_it(&mut self) {
        assert!(!self.in_use.swap(true, Ordering::Relaxed), "taken twice");
        self.uses += 1;
    }

    fn let_go(&self) {
        assert!(self.in_use.swap(false, Ordering::Relaxed), "taken twice");
    }
}

pub struct Slot {
    pub cell: OwnedCell<Value>,
    lock: Mutex<()>,
    reported: Condvar,
    pub notifies: AtomicBool,
    /// Leases that have ended, with all that they had to report.
    pub ended: AtomicU64,
    uses: StaticU64,
    pub over: AtomicBool,
}

impl Slot {
    pub fn new() -> Self {
        let cell = OwnedCell::new();
        cell.put_shared(Box::default());
        Self {
            cell,
            lock: Mutex::new(()),
            reported: Condvar::new(),
            notifies: AtomicBool::new(false),
            ended: AtomicU64::new(0),
            uses: StaticU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn revoke(&self) {
        OwnedCell::revoke(iter::once(&self.cell));
    }

    /// A lease, if nobody else has one.
    pub fn lease(&self, lend: bool) {
        let found = match self.cell.take() {
            Found::Own(value) => Some(value),
            Found::Shared(value) => {
                if lend {
                    self.lend();
                }
                Some(value)
            }
            Found::Nothing => {
                let _locked = self.lock.lock();
                self.revoke();
                // Whoever has asked for it comes first.
                match self.notifies.load(Ordering::Relaxed) {
                    true => None,
                    false => self.cell.take_shared(),
                }
            }
            Found::Revoked => {
                self.report();
                None
            }
        };
        let Some(mut value) = found else {
            return;
        };
        value.use_it();
        self.uses.fetch_add(1, Ordering::Relaxed);
        value.let_go();
        if !self.cell.put(value) || self.notifies.load(Ordering::Relaxed) {
            self.report();
        }
        self.ended.fetch_add(1, Ordering::Release);
    }

    fn lend(&self) {
        let _locked = self.lock.lock();
        self.revoke();
        if has_heavy_fences()
            && !self.cell.has_owner()
            && !self.notifies.load(Ordering::Relaxed)
            && let Some(owner) = become_owner()
        {
            self.cell.lend(owner);
        }
    }

    fn report(&self) {
        let _locked = self.lock.lock();
        self.revoke();
        if let Some(value) = self.cell.take_shared() {
            self.notifies.store(false, Ordering::Relaxed);
            self.cell.put_shared(value);
            self.reported.notify_all();
        }
    }

    /// Asks to be told when the lease ends; whether there is one.
    pub fn ask(&self) -> bool {
        let _locked = self.lock.lock();
        self.notifies.store(true, Ordering::Relaxed);
        self.revoke();
        let Some(mut value) = self.cell.take_shared() else {
            return true;
        };
        self.notifies.store(false, Ordering::Relaxed);
        value.use_it();
        self.uses.fetch_add(1, Ordering::Relaxed);
        value.let_go();
        self.cell.put_shared(value);
        false
    }

    /// The same, and sleeps until the lease has reported.
    pub fn ask_and_wait(&self) {
        if self.ask() {
            let mut locked = self.lock.lock();
            while self.notifies.load(Ordering::Relaxed) {
                self.reported.wait(&mut locked);
            }
        }
    }

    /// Nobody leases any more.
    pub fn finish(&self) {
        let _locked = self.lock.lock();
        self.revoke();
        let value = self.cell.take_shared().expect("the value is there");
        assert_eq!(value.uses, self.uses.load(Ordering::Relaxed));
    }
}
