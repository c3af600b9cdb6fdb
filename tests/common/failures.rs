//! What the pool tells the `metrics` recorder of guests that fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// How often guests have failed, by kind.
#[derive(Clone, Default)]
pub struct Failures(Arc<Mutex<BTreeMap<String, u64>>>);

impl Failures {
    pub fn of(&self, kind: &str) -> u64 {
        *self.0.lock().unwrap().get(kind).unwrap_or(&0)
    }
}

struct Counted(Failures, String);

impl CounterFn for Counted {
    fn increment(&self, value: u64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }
    fn absolute(&self, _: u64) {}
}

impl Recorder for Failures {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() != "wasm_pool_guest_failures_total" {
            return Counter::noop();
        }
        let kind = key.labels().find(|label| label.key() == "kind").unwrap();
        Counter::from_arc(Arc::new(Counted(self.clone(), kind.value().to_owned())))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
