//! What a lease runs through when no instance is idle, and how leases end that cannot just be put back.
//! In the order of the flow: `acquire` finds a seat or waits for one, `make` makes an instance for it, with code
//! from `compile` and room from `reserve`; `release` takes it back. `prepare` asks for code alone, `precompile` for
//! artifacts.

pub(crate) mod acquire;
pub(crate) mod aside;
pub(crate) mod compilation;
pub(crate) mod compile;
pub(crate) mod compile_hooks;
pub(crate) mod growth;
pub(crate) mod guest_poll;
pub(crate) mod in_queue;
pub(crate) mod lead;
pub(crate) mod make;
pub(crate) mod precompile;
pub(crate) mod prepare;
pub(crate) mod release;
pub(crate) mod request_guard;
pub(crate) mod reserve;
pub(crate) mod spare;
pub(crate) mod stop;
pub(crate) mod verdict;
#[cfg(feature = "warm-up")]
pub(crate) mod warm_up;
