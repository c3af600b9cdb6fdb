//! What is under way: acquires that must make an instance, code that is prepared, and growth of an instance.

use alloc::boxed::Box;

use super::amounts::Amounts;
use super::arena::Id;
use super::compile_turns::CompilePlace;
use super::entries::EntryId;
use super::functions::FunctionId;
use super::ledger::Charge;
use super::modules::ModuleId;
use super::queue::Ticket;
use crate::state::Types;

pub type RequestId<H> = Id<Request<H>>;

/// Holds what has been promised to somebody until it is used or abandoned.
///
/// Invariants:
/// - **Q1** a request with a seat is the one that the seat is `Promised` to.
/// - **Q3** a request with a seat is for the function of the seat's entry.
pub struct Request<H: Types> {
    /// The function whose code it needs; `None` of growth, and of work for the artifacts.
    pub function: Option<FunctionId<H>>,
    /// `None` of all that makes no instance.
    pub seat: Option<(EntryId<H>, usize)>,
    /// The entry whose instance grows; `None` of all else.
    pub grows: Option<EntryId<H>>,
    /// The module that it has pinned.
    pub module: Option<ModuleId<H>>,
    /// Of the function, when the request began or last asked for its code.
    pub version: u64,
    /// The module whose flight it has waited for: the flight's failure is its own.
    pub followed: Option<ModuleId<H>>,
    /// Its deadline, while it sleeps in a queue.
    ///
    /// **Q2** It is that of its place in a queue. A sleeper that was told it is late has no place any more, and
    /// keeps the deadline, so that whoever sees it late ends the request.
    pub asleep_until: Option<u64>,
    /// Its place among those who wait for room; kept until it is served or ends.
    pub room_ticket: Option<Ticket>,
    /// Its place among those who compile, or wait for that. Few have one, so that it has a box of its own.
    pub compiles: Option<Box<CompilePlace>>,
    /// The budgets that had no room for it when it looked last, as bits; all, before it has looked.
    pub lacks: u8,
    /// It has been let wait: nobody asks again whether it may.
    pub has_waited: bool,
    /// How many had passed those who wait for room when it began to.
    pub since: Option<u64>,
    pub held: Charge,
    /// What its victims will bring when they have been destroyed.
    pub expected: Amounts,
    /// It makes an instance that nobody waits for.
    pub is_for_spare: bool,
}

impl<H: Types> Request<H> {
    /// Something that it expected is there.
    pub fn take_expected(&mut self, charge: Charge) {
        self.expected = self.expected.beyond(&charge.amounts());
        self.held.merge(charge);
    }

    pub fn new(function: Option<FunctionId<H>>, version: u64) -> Self {
        Self {
            function,
            seat: None,
            grows: None,
            module: None,
            version,
            followed: None,
            asleep_until: None,
            room_ticket: None,
            compiles: None,
            lacks: u8::MAX,
            has_waited: false,
            since: None,
            held: Charge::NONE,
            expected: Amounts::ZERO,
            is_for_spare: false,
        }
    }
}
