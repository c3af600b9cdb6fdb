//! The library's `tracing` spans, counted, and a way to stop a thread where one begins: nothing
//! else shows, or holds up, a compilation.
//!
//! Spans are known by name and by the function they are for, so tests of one process do not
//! disturb each other as long as each watches functions whose names no other test uses.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

type Key = (&'static str, String);

#[derive(Default)]
struct Seen {
    begun: HashMap<Key, usize>,
    held: HashSet<Key>,
    doomed: HashSet<Key>,
}

static SEEN: Mutex<Option<Seen>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Option<Seen>> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<R>(look: impl FnOnce(&mut Seen) -> R) -> R {
    watch();
    let answer = look(lock().get_or_insert_default());
    CHANGED.notify_all();
    answer
}

/// Begins to count; before anything else, or what happened earlier is not seen.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Spans).unwrap());
}

/// How many spans of this name have begun for this function, as in `compile` for `math.add(int)`.
pub fn begun(span: &'static str, function: &str) -> usize {
    with(|seen| *seen.begun.get(&(span, function.into())).unwrap_or(&0))
}

/// The next thread that begins such a span panics there.
pub fn panic_at(span: &'static str, function: &str) {
    with(|seen| seen.doomed.insert((span, function.into())));
}

/// Threads that begin such a span stop there, until this is dropped.
#[must_use]
pub fn hold(span: &'static str, function: &str) -> Held {
    let key = (span, function.to_owned());
    let before = begun(span, function);
    let is_new = with(|seen| seen.held.insert(key.clone()));
    assert!(is_new, "{key:?} is another test's");
    Held { key, before }
}

pub struct Held {
    key: Key,
    before: usize,
}

impl Held {
    /// Returns when a thread has stopped there.
    pub fn wait_until_reached(&self) {
        let mut seen = lock();
        let reached = |seen: &Option<Seen>| {
            let begun = seen.as_ref().and_then(|seen| seen.begun.get(&self.key));
            begun.is_some_and(|begun| *begun > self.before)
        };
        while !reached(&seen) {
            let (guard, timeout) = CHANGED
                .wait_timeout(seen, Duration::from_secs(60))
                .unwrap_or_else(PoisonError::into_inner);
            assert!(!timeout.timed_out(), "no thread came to {:?}", self.key);
            seen = guard;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        with(|seen| seen.held.remove(&self.key));
    }
}

struct Spans;

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("wasm_pool")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut function = Function(String::new());
        span.record(&mut function);
        begin((span.metadata().name(), function.0));
        Id::from_u64(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn begin(key: Key) {
    let mut guard = lock();
    let seen = guard.get_or_insert_default();
    *seen.begun.entry(key.clone()).or_default() += 1;
    CHANGED.notify_all();
    if seen.doomed.remove(&key) {
        drop(guard);
        panic!("a test wants {key:?} to panic");
    }
    while guard.as_ref().is_some_and(|seen| seen.held.contains(&key)) {
        guard = CHANGED.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
}

struct Function(String);

impl Visit for Function {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "function" {
            self.0 = format!("{value:?}");
        }
    }
}
