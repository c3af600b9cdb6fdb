//! Compilations under way, for whoever looks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::compiler::memory_of;
use crate::pool::api::compiler_stats::CompilationStats;
use crate::pool::api::target::Target;
use crate::sync::unchecked::Mutex;

/// Compilations that go on now. A lock of its own: who compiles does not hold up the pool's books.
#[derive(Default)]
pub(crate) struct InFlight(Mutex<Slab<Running>>);

struct Running {
    target: Arc<Target>,
    began: Instant,
    reserved_bytes: u64,
    /// `None` if it is in this process, or has no process yet.
    process: Option<u32>,
}

impl InFlight {
    /// One more, until what is returned goes.
    pub fn enter(&self, target: Arc<Target>, reserved_bytes: u64) -> Entered<'_> {
        let number = self.0.lock().insert(Running {
            target,
            began: Instant::now(),
            reserved_bytes,
            process: None,
        });
        Entered {
            in_flight: self,
            number,
        }
    }

    /// All of them, the longest first.
    pub fn list(&self) -> Vec<CompilationStats> {
        let now = Instant::now();
        let running = self.0.lock();
        let of = |running: &Running| CompilationStats {
            signature: running.target.signature.clone(),
            group: running.target.group.clone(),
            time: now.saturating_duration_since(running.began),
            reserved_bytes: running.reserved_bytes,
            process: running.process,
            memory_bytes: None,
        };
        let mut list: Vec<_> = running.iter().map(|(_, running)| of(running)).collect();
        drop(running);
        for compilation in &mut list {
            let memory = compilation.process.and_then(memory_of);
            compilation.memory_bytes = memory.map(|memory| memory.anonymous);
        }
        list.sort_by_key(|compilation| Duration::MAX - compilation.time);
        list
    }
}

/// A compilation that is listed.
pub(crate) struct Entered<'a> {
    in_flight: &'a InFlight,
    number: usize,
}

impl Entered<'_> {
    pub fn runs_in(&self, process: u32) {
        if let Some(running) = self.in_flight.0.lock().get_mut(self.number) {
            running.process = Some(process);
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let gone = self.in_flight.0.lock().try_remove(self.number);
        drop(gone);
    }
}
