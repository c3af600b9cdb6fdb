//! C-O3: traces.

use super::*;

// C-O3: traces ─────────────────────────────────────────────────────────────────────────────────────

/// Spans and events of the library, in order, as in `destroy{function=f(), reason=room}`.
#[derive(Clone, Default)]
struct Traces(Arc<Mutex<Vec<String>>>);

impl Traces {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn note(&self, what: &str, record: impl FnOnce(&mut Fields)) {
        let mut fields = Fields::default();
        record(&mut fields);
        let line = format!("{what}{{{}}}", fields.0.join(", "));
        self.0.lock().unwrap().push(line);
    }
}

#[derive(Default)]
struct Fields(Vec<String>);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        // Sizes depend on the compiler; that they are told is enough.
        self.0.push(match field.name() {
            name @ ("bytes" | "wasm_bytes") => name.to_owned(),
            name => format!("{name}={value:?}"),
        });
    }
}

impl tracing::Subscriber for Traces {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("wasm_pool")
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        self.note(span.metadata().name(), |fields| span.record(fields));
        tracing::span::Id::from_u64(1)
    }

    fn event(&self, event: &tracing::Event<'_>) {
        self.note("event", |fields| event.record(fields));
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// What is noted of making an instance, using it, making another, and losing both.
fn traced(traces: &Traces) -> [Vec<String>; 5] {
    let pool = quiet_with_clock().0.build().unwrap();
    let f = define_with_pages(&pool, "f", 1);
    f.call("reports", ()).unwrap();
    let cold = traces.take();
    for _ in 0..100 {
        f.call("reports", ()).unwrap();
    }
    f.in_group("reports").call(()).unwrap();
    let warm = traces.take();
    f.call(2, ()).unwrap();
    let second = traces.take();
    f.acquire(2).unwrap().discard();
    let evicted = traces.take();
    pool.close();
    [cold, warm, second, evicted, traces.take()]
}

#[test]
fn c_o3_there_is_a_span_for_all_that_takes_time_and_nothing_on_the_warm_path() {
    let traces = Traces::default();
    // All that can be traced has been met once, and there are two subscribers: otherwise `tracing`
    // may take another thread's word for it that nobody listens.
    traced(&traces);
    let _second = tracing::Dispatch::new(Traces::default());
    let [cold, warm, second, evicted, closed] =
        tracing::subscriber::with_default(traces.clone(), || traced(&traces));
    let made = [
        "compile{function=f(), wasm_bytes}",
        "load{function=f()}",
        "instantiate{function=f(), group=reports}",
    ];
    assert_eq!(cold, made);
    assert_eq!(warm, [""; 0]);
    assert_eq!(second, ["instantiate{function=f(), group=2}"]);
    assert_eq!(
        evicted,
        ["destroy{function=f(), group=2, reason=\"discarded\"}"]
    );
    assert_eq!(
        closed[0],
        "destroy{function=f(), group=reports, reason=\"closed\"}"
    );
    assert_eq!(closed[1..], ["event{message=code dropped, bytes}"]);
}
