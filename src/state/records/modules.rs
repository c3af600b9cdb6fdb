//! Compiled code: who uses it, whether it is there, what it costs.

use alloc::collections::BTreeSet;

use super::arena::Id;
use super::instances::InstanceId;
use super::ledger::Charge;
use super::module_table::Listed;
use super::policy::History;
use super::queue::Queue;
use super::requests::RequestId;
use super::shares::ShareId;
use crate::state::Types;

pub type ModuleId<H> = Id<Module<H>>;

/// Hash of a module's bytes and of all that affects its compilation.
pub type ModuleKey = [u8; 32];

/// What is known of the bytes that compiling a module takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileNeed {
    /// So many were not enough; 0 if that has not happened.
    pub more_than: u64,
    /// So many were.
    pub enough: Option<u64>,
}

/// A module's record. It outlives its code and its instances, as long as a function names it.
///
/// Invariants:
/// - **M1** `functions` is the number of functions whose module this is.
/// - **M2** `pins` is the number of requests that have pinned it; its code is not evicted meanwhile.
/// - **M11** `pinned` is the number of functions whose module this is and that are pinned.
/// - **M3** `live` holds exactly its live instances; `dying` counts those being destroyed.
/// - **M4** an instance is live only while its module's code is loaded, and so charged.
/// - **M5** a module that nobody uses (no function, pin, live or dying instance) has no record.
/// - **M10** it has users only while its code is loaded, and each group with a live instance is one, if something is
///   reserved for it.
/// - **M7** `leaving` is the request that collects, and the code is loaded.
/// - **C2** the leader of a flight has pinned the module.
/// - **C4** and it has a turn to compile.
pub struct Module<H: Types> {
    pub key: ModuleKey,
    pub source: H::Source,
    pub functions: usize,
    pub pins: usize,
    pub pinned: u32,
    /// Somebody's plan for room has passed it over because it was pinned.
    pub wanted: bool,
    /// The request that collects its code: nobody else begins to use it.
    pub collected_for: Option<RequestId<H>>,
    pub live: BTreeSet<InstanceId<H>>,
    /// Of groups that have something reserved, those that have made an instance of it since its code was loaded.
    pub users: BTreeSet<ShareId<H>>,
    pub dying: u32,
    pub phase: Phase<H>,
    /// Who waits for the flight to end, or for the code to be gone that is collected; empty when there is
    /// neither. It outlives the flight, so that
    /// a ticket of one flight never names a place in the next.
    pub followers: Queue<H>,
    /// Bytes that its code takes, known since it was last compiled or loaded: the next load reserves exactly that.
    pub code_bytes: Option<u64>,
    /// Known since it was last compiled, or tried, where that can be measured.
    pub compile_need: CompileNeed,
    pub history: History,
    /// Where the table's index has it.
    pub listed: Listed,
}

/// Where a module's code is.
pub enum Phase<H: Types> {
    /// Nowhere. Entered at definition, when the code is evicted, when a flight ends without a
    /// verdict on the module, and when a failure has cooled down; left when a request leads a
    /// flight.
    Cold,
    /// A request compiles or loads it, for all. Entered by the first request that needs the code;
    /// left for `Loaded`, `Failed`, or `Cold` when the leader gave up.
    InFlight { leader: RequestId<H> },
    /// Mapped, and charged. Left only when evicted or dropped out.
    Loaded { code: H::Code, charge: Charge },
    /// It could not be compiled or linked. Requests are refused with the same failure until
    /// `until` (nanoseconds since the clock's origin), without trying again.
    Failed { failure: H::Failure, until: u64 },
}

impl<H: Types> Module<H> {
    pub fn new(key: ModuleKey, source: H::Source) -> Self {
        Self {
            key,
            source,
            functions: 0,
            pins: 0,
            pinned: 0,
            wanted: false,
            collected_for: None,
            live: BTreeSet::new(),
            users: BTreeSet::new(),
            dying: 0,
            phase: Phase::Cold,
            followers: Queue::new(),
            code_bytes: None,
            compile_need: CompileNeed::default(),
            history: History::default(),
            listed: Listed::default(),
        }
    }

    /// Neither a request nor an instance, live or dying, needs the code.
    pub fn is_unused(&self) -> bool {
        self.pins == 0 && self.live.is_empty() && self.dying == 0
    }

    pub fn is_loaded(&self) -> bool {
        matches!(self.phase, Phase::Loaded { .. })
    }
}
