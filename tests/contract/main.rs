//! What the pool promises to a host, through its public interface: one module for each behaviour, in one
//! binary, since each binary links wasmtime again.
//!
//! Its tests run beside each other in one process. So a test that counts what the whole process has
//! (heap, threads, mappings) is in `tests/charges` or `tests/process`; one that ends its process, or
//! changes what all of it shares (limits of the system, a global recorder), runs itself again as a child
//! ([`common::child`]); and functions whose spans are watched ([`common::spans`]) have names that no other
//! test uses.

#[path = "../common/mod.rs"]
mod common;

mod accountable;
mod api;
mod artifacts;
mod bad_input;
mod bills;
mod budgets;
mod cancellation;
mod cancelled_by_others;
mod defects;
mod function_limits;
mod fuzz;
mod graceful_end;
mod group_counts;
mod group_limits;
mod growth;
mod guest_bytes;
mod guests_are_as_recorded;
mod hostile_sizes;
mod instances;
mod making_room;
mod modules;
mod names;
mod pinned;
mod places;
mod pristine;
mod promises;
mod quarantine;
mod shares;
mod stack_budget;
mod stats_and_hooks;
mod stopping;
mod stress;
mod tasks;
mod waiting_for_room;
mod warm_and_cold;
#[cfg(feature = "warm-up")]
mod warm_up;
