//! Counts every invariant again from the records. Tests call it after every step.
//!
//! One check for each code, and one message, which begins with it. The codes stand on the records and fields
//! that they govern, and in DESIGN.md; `tests/tidy.rs` compares the three.

mod groups;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::records::amounts::{Amounts, Budget};
use super::records::compile_turns::CompilePlace;
use super::records::entries::{Entry, EntryId, Seat};
use super::records::instances::Instance;
use super::records::modules::{Module, ModuleId, Phase};
use super::records::requests::{Request, RequestId};
use super::{Judged, Reuse, Share, ShareId, Slots, Spares, Stamp, State, Types};

type Check = Result<(), String>;

fn must(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

/// Nothing of what was looked for is there.
fn none<W>(wrong: Option<W>, what: impl FnOnce(W) -> String) -> Check {
    wrong.map_or(Ok(()), |wrong| Err(what(wrong)))
}

impl<H: Types> State<H> {
    /// The first invariant that does not hold, by its code.
    ///
    /// # Errors
    /// Says which, and where.
    pub fn recount(&self) -> Check {
        self.recount_ids()?;
        self.recount_ledger()?;
        self.recount_functions()?;
        self.recount_entries()?;
        for (id, entry) in self.entries.iter() {
            self.recount_seats(id, entry)?;
        }
        self.recount_instances()?;
        self.recount_requests()?;
        self.recount_room_queue()?;
        self.recount_modules()?;
        for (id, module) in self.modules.iter() {
            self.recount_module(id, module)?;
        }
        self.recount_shares()?;
        self.recount_spares()?;
        self.recount_bills()
    }

    /// I3, which needs the slots. Not part of `recount`: the shell writes a slot's stamp without the lock, from
    /// a clock that is late by up to one beat, so there it holds to one beat only.
    ///
    /// # Errors
    /// Names an instance that is listed as used later than it was.
    pub fn recount_last_uses(&self, slots: &impl Slots<H>) -> Check {
        let wrong = self.instances.iter().find(|(id, instance)| {
            let seen = self.last_used(*id, slots);
            instance.known > seen
        });
        none(wrong, |(id, _)| {
            format!("I3: {id:?} was last used earlier than known")
        })
    }

    /// Whether a limit was lowered beneath what is charged (see **L2**).
    pub fn is_overdrawn(&self) -> bool {
        self.ledger.is_overdrawn()
    }

    fn recount_ids(&self) -> Check {
        let functions = self.functions.iter().all(|(_, f)| {
            let entries = f.entries.values().all(|e| self.entries.get(*e).is_some());
            entries && self.modules.get(f.module).is_some()
        });
        let instances = self.instances.iter().all(|(_, i)| {
            self.entries.get(i.entry).is_some() && self.modules.get(i.module).is_some()
        });
        let requests = self.requests.iter().all(|(_, r)| {
            let entry = r.seat.is_none_or(|(e, _)| self.entries.get(e).is_some());
            entry && r.module.is_none_or(|m| self.modules.get(m).is_some())
        });
        let modules = self.modules.iter().all(|(_, m)| {
            let leads = match &m.phase {
                Phase::InFlight { leader } => Some(*leader),
                _ => None,
            };
            let by = leads.into_iter().chain(m.collected_for);
            by.chain(self.collecting)
                .all(|r| self.requests.get(r).is_some())
        });
        let dying = self
            .dying
            .iter()
            .all(|(_, d)| d.module.is_none_or(|m| self.modules.get(m).is_some()));
        let all = [functions, instances, requests, modules, dying];
        must(all == [true; 5], || {
            format!(
                "S1: an id names nothing (functions, instances, requests, modules, dying: {all:?})"
            )
        })
    }

    fn recount_spares(&self) -> Check {
        let is_wrong = |(id, spares): &(EntryId<H>, Spares)| {
            let entry = self.entries.get(*id);
            let function = entry.and_then(|entry| self.functions.get(entry.function));
            let is_pristine = function.is_some_and(|f| f.terms.reuse == Reuse::Pristine);
            !is_pristine || !(1..=self.config.max_spares).contains(&spares.wanted)
        };
        none(self.spares.iter().find(is_wrong), |wrong| {
            format!("P1: {wrong:?} is no entry that may have so many spares")
        })?;
        let mut refilled = self.spares.to_refill().iter();
        let unknown = refilled.find(|id| self.spares.get(**id).is_none());
        none(unknown, |id| {
            format!("P2: {id:?} is to be refilled, and has no spares")
        })?;
        let waits = |(_, r): &(RequestId<H>, &Request<H>)| {
            r.is_for_spare && (r.asleep_until.is_some() || r.room_ticket.is_some())
        };
        none(self.requests.iter().find(waits), |(id, _)| {
            format!("P3: {id:?} makes a spare, and waits")
        })
    }

    fn recount_ledger(&self) -> Check {
        let instances = self.instances.iter().map(|(_, i)| i.charge.amounts());
        let requests = self.requests.iter().map(|(_, r)| r.held.amounts());
        let dying = self.dying.iter().map(|(_, d)| d.charge.amounts());
        let modules = self.modules.iter().map(|(_, m)| match &m.phase {
            Phase::Loaded { charge, .. } => charge.amounts(),
            _ => Amounts::ZERO,
        });
        let standing = core::iter::once(self.always_held());
        let all = instances.chain(requests).chain(dying);
        let mut all = all.chain(modules).chain(standing);
        let sum = all.try_fold(Amounts::ZERO, |sum, part| sum.checked_add(&part));
        let charged = *self.ledger.charged();
        must(sum == Some(charged), || {
            format!("L1: charges sum to {sum:?}, the ledger says {charged:?}")
        })?;
        let (over, tolerated) = (self.ledger.overdraft(), self.ledger.tolerated());
        let beyond = Budget::ALL.into_iter().find(|b| over[*b] > tolerated[*b]);
        none(beyond, |b| {
            format!(
                "L2: {b} is {} over its limit, {} tolerated",
                over[b], tolerated[b]
            )
        })?;
        let peak = self.ledger.peak();
        let higher = Budget::ALL.into_iter().find(|b| charged.get(*b) > peak[*b]);
        none(higher, |b| {
            format!("L3: {b} {} above its peak {}", charged.get(b), peak[b])
        })
    }

    fn recount_functions(&self) -> Check {
        let mut functions = self.functions.iter();
        let unlisted = functions.find(|(id, f)| !self.names.lists(&f.name, *id));
        none(unlisted, |(_, f)| {
            format!("F1: {} is not listed once", f.name)
        })?;
        let (mut listed, mut foreign) = (0, None);
        for (id, function) in self.functions.iter() {
            for (group, entry) in &function.entries {
                let entry = self.entries.get(*entry);
                let own = entry.is_some_and(|e| e.function == id && e.group == *group);
                foreign = foreign.or((!own).then_some((id, group)));
                listed += 1;
            }
        }
        let defined = |e: &Entry<H>| self.functions.get(e.function).is_some();
        let entries = self.entries.iter().filter(|(_, e)| defined(e)).count();
        must(foreign.is_none() && listed == entries, || {
            format!("F2: {listed} of {entries} entries are listed; not its own: {foreign:?}")
        })?;
        let mut judged = self.conducts.keys();
        let gone = judged.find(|judged| match judged {
            Judged::Function(id) => self.functions.get(*id).is_none(),
            Judged::Entry(id) => self.entries.get(*id).is_none(),
        });
        must(gone.is_none(), || {
            "F3: somebody is judged who is gone".into()
        })?;
        let mut owned = self.owners.iter();
        let gone = owned.find(|(id, _)| self.functions.get(*id).is_none());
        must(gone.is_none() && self.owners.is_counted(), || {
            format!("F6: {gone:?} is owned and gone, or the owners' numbers are wrong")
        })?;
        let pinned = self.functions.iter().filter(|(_, f)| f.terms.pinned);
        let pinned: BTreeMap<_, _> = pinned
            .map(|(id, f)| {
                let entries = f.entries.values().map(|id| &self.entries[*id]);
                (id, (f.module, entries.map(|e| e.taken().count()).sum()))
            })
            .collect();
        must(pinned == self.pinned, || {
            format!("F5: {pinned:?} are pinned, not {:?}", self.pinned)
        })?;
        let own = self.functions.iter().filter(|(_, f)| f.terms.idle.is_own());
        let own: Vec<_> = own.map(|(id, _)| id).collect();
        let known = own.iter().filter(|id| self.own_idle_times.contains(id));
        let all_known = known.count() == own.len();
        must(all_known && own.len() == self.own_idle_times.len(), || {
            "F4: sweeps do not look at all that have an idle time of their own".into()
        })
    }

    fn recount_entries(&self) -> Check {
        let misplaced = self.entries.iter().find(|(id, entry)| {
            let listed = entry.is_unused() && self.functions.get(entry.function).is_some();
            let place = entry.unused.and_then(|place| self.unused.at(place));
            place != listed.then_some(*id) || entry.unused.is_some() != listed
        });
        none(misplaced, |(id, _)| {
            format!("E4: {id:?} has the wrong place among the unused")
        })?;
        let unused = self.entries.iter().filter(|(_, e)| e.unused.is_some());
        let (listed, most) = (self.unused.len(), self.config.max_unused_entries);
        must(unused.count() == listed && listed <= most, || {
            format!("E5: {listed} unused entries are listed, and {most} may be kept")
        })
    }

    fn recount_seats(&self, id: EntryId<H>, entry: &Entry<H>) -> Check {
        let seats = || entry.seats.iter().enumerate();
        let taken = seats().find(|(number, seat)| match seat {
            Seat::Taken(instance) => {
                let instance = self.instances.get(*instance);
                instance.is_none_or(|i| i.entry != id || i.seat() != *number)
            }
            _ => false,
        });
        none(taken, |(seat, _)| {
            format!("E1: seat {seat} of {id:?} is taken by another seat's instance")
        })?;
        let promised = seats().find(|(number, seat)| match seat {
            Seat::Promised(request) => {
                let request = self.requests.get(*request);
                request.is_none_or(|r| r.seat != Some((id, *number)))
            }
            _ => false,
        });
        none(promised, |(seat, _)| {
            format!("E2: seat {seat} of {id:?} is promised to another seat's request")
        })?;
        let full = entry.occupied() >= self.max_instances(id) || self.is_group_full(id);
        must(entry.queue.is_empty() || full, || {
            format!("E3: somebody waits for {id:?}, which has a seat for it")
        })
    }

    fn recount_instances(&self) -> Check {
        let homeless = self.instances.iter().find(|(id, instance)| {
            let entry = self.entries.get(instance.entry);
            let seat = entry.and_then(|e| e.seats.get(instance.seat()));
            !matches!(seat, Some(Seat::Taken(taken)) if taken == id)
        });
        none(homeless, |(id, _)| {
            format!("I1: {id:?} does not have its seat")
        })?;
        let mut instances = self.instances.iter();
        let lost = instances.find(|(id, i)| !self.recency.contains(i.known, *id));
        let (listed, live) = (self.recency.len(), self.instances.len());
        must(lost.is_none() && listed == live, || {
            let lost = lost.map(|(id, _)| id);
            format!("I2: {listed} of {live} are in the order, {lost:?} is not")
        })?;
        let mut instances = self.instances.iter();
        let is_listed = |id, born| self.ages.contains(Stamp::at(born), id);
        let lost = instances.find(|(id, i)| !is_listed(*id, i.created_at));
        let (listed, live) = (self.ages.len(), self.instances.len());
        let kept = self.config.keeps_ages;
        let right = if kept {
            lost.is_none() && listed == live
        } else {
            listed == 0
        };
        must(right, || {
            let lost = lost.map(|(id, _)| id);
            format!("I4: {listed} of {live} are in the order of age, {lost:?} is not")
        })
    }

    fn recount_requests(&self) -> Check {
        let seatless = self.requests.iter().find(|(id, request)| {
            request.seat.is_some_and(|(entry, seat)| {
                let entry = self.entries.get(entry);
                let seat = entry.and_then(|e| e.seats.get(seat));
                !matches!(seat, Some(Seat::Promised(to)) if to == id)
            })
        });
        none(seatless, |(id, _)| {
            format!("Q1: {id:?} does not have its seat")
        })?;
        let strange = self.requests.iter().find(|(_, request)| {
            let entry = request.seat.and_then(|(entry, _)| self.entries.get(entry));
            entry.is_some_and(|e| request.function != Some(e.function))
        });
        none(strange, |(id, _)| {
            format!("Q3: {id:?} has a seat of another function")
        })?;
        // Who has been told that it is late has left its queue, and is to see that.
        let is_late = |r: &Request<H>| r.asleep_until.is_some_and(|until| until <= self.now);
        let sleeps = |r: &Request<H>| r.asleep_until.is_some();
        let followers = self.modules.iter().map(|(_, module)| &module.followers);
        let queues = [&self.room_queue, &self.awaiting_frees];
        let sleepers = queues.into_iter().chain(followers).flat_map(|q| q.iter());
        let (mut asleep, mut mistaken) = (0, None);
        for sleeper in sleepers.chain(self.compile_turns.iter()) {
            let request = sleeper.request.and_then(|id| self.requests.get(id));
            let until = request.map(|r| r.asleep_until.unwrap_or(u64::MAX));
            let late = request.is_some_and(is_late);
            asleep += usize::from(!late && request.is_some_and(sleeps));
            if until != Some(sleeper.until) {
                mistaken = Some(sleeper.request);
            }
        }
        let asleep_or_lost = self
            .requests
            .iter()
            .filter(|(_, r)| sleeps(r) && !is_late(r));
        let all = asleep_or_lost.count();
        must(mistaken.is_none() && (all == asleep || self.closed), || {
            format!("Q2: {all} sleep, {asleep} of them in queues; mistaken: {mistaken:?}")
        })
    }

    fn recount_room_queue(&self) -> Check {
        let may_be_awake = |r: &Request<H>| {
            let late = r.asleep_until.is_some_and(|until| until <= self.now);
            late || self.closed
        };
        let is_wrong = |(_, r): &(RequestId<H>, &Request<H>)| {
            let Some(ticket) = r.room_ticket else {
                return false;
            };
            let asleep = self.room_queue.holds(ticket);
            match self.turn == Some(ticket) {
                true => asleep || r.asleep_until.is_some(),
                false => !asleep && !may_be_awake(r),
            }
        };
        let wrong = self.requests.iter().find(is_wrong);
        let has_turn = |r: &Request<H>| r.room_ticket.is_some() && r.room_ticket == self.turn;
        let turns = self.requests.iter().filter(|(_, r)| has_turn(r)).count();
        let one = turns == usize::from(self.turn.is_some());
        must(wrong.is_none() && one, || {
            let wrong = wrong.map(|(id, _)| id);
            format!(
                "T1: {turns} have the turn {:?}; out of turn: {wrong:?}",
                self.turn
            )
        })?;
        let early = self.collecting.filter(|by| !self.is_first_for_room(*by));
        none(early, |by| {
            format!("T2: {by:?} collects, and is not the first")
        })
    }

    fn recount_modules(&self) -> Check {
        let mut modules = self.modules.iter();
        let unnamed = modules.find(|(id, m)| self.module_index.get(&m.key) != Some(id));
        let (keys, records) = (self.module_index.len(), self.modules.len());
        must(unnamed.is_none() && keys == records, || {
            let unnamed = unnamed.map(|(id, _)| id);
            format!("S2: {keys} keys for {records} modules; not named: {unnamed:?}")
        })?;
        let loaded = self.modules.iter().filter(|(_, m)| m.is_loaded()).count();
        must(loaded == self.loaded, || {
            format!("M6: {loaded} modules are loaded, {} counted", self.loaded)
        })?;
        let (candidates, unused, charged) = self.modules.surplus();
        let wrong = self.modules.wrong_candidate();
        let right = candidates == 0 && charged == Amounts::ZERO && wrong.is_none();
        must(right, || {
            format!("M8: {candidates} candidates too many, charged wrongly {charged:?}, {wrong:?}")
        })?;
        let wrong = self.modules.wrong_unused();
        must(unused == 0 && wrong.is_none(), || {
            format!("M9: {unused} modules too many are unused, {wrong:?}")
        })?;
        self.recount_turns()
    }

    fn recount_turns(&self) -> Check {
        let (mut taken, mut promised) = (0, 0);
        for (_, request) in self.requests.iter() {
            match request.compiles.as_deref() {
                Some(CompilePlace::Turn(..)) => taken += 1,
                Some(CompilePlace::Promised(_)) => promised += 1,
                Some(CompilePlace::Waiting(..)) | None => {}
            }
        }
        let turns = &self.compile_turns;
        let counted = (turns.taken(), turns.promised(), turns.turns_in_lines());
        must(counted == (taken, promised, taken + promised), || {
            format!("C1: {taken} turns are taken, {promised} promised; counted: {counted:?}")
        })?;
        let has_turn = |leader: RequestId<H>| {
            let leader = self.requests.get(leader);
            leader.is_some_and(|r| matches!(r.compiles.as_deref(), Some(CompilePlace::Turn(..))))
        };
        let mut flights = self.modules.iter().filter_map(|(id, m)| match m.phase {
            Phase::InFlight { leader } => Some((id, leader)),
            _ => None,
        });
        let without = flights.find(|(_, leader)| !has_turn(*leader));
        none(without, |(id, _)| {
            format!("C4: {id:?} is in flight out of turn")
        })?;
        let idle = turns.idle_lines();
        let right = match turns.len() {
            0 => idle == 0,
            _ => !turns.keeps_waiting() || self.closed,
        };
        must(right, || {
            format!("C3: {} wait to compile, {idle} lines are idle", turns.len())
        })
    }

    fn recount_module(&self, id: ModuleId<H>, module: &Module<H>) -> Check {
        let mut functions = 0;
        self.functions
            .iter()
            .for_each(|(_, f)| functions += usize::from(f.module == id));
        must(functions == module.functions, || {
            format!(
                "M1: {id:?} counts {} functions of {functions}",
                module.functions
            )
        })?;
        let pinned = self.pinned.values().filter(|(of, _)| *of == id).count();
        must(pinned == module.pinned as usize, || {
            format!("M11: {id:?} counts {} pinned of {pinned}", module.pinned)
        })?;
        let pins = self
            .requests
            .iter()
            .filter(|(_, r)| r.module == Some(id))
            .count();
        must(pins == module.pins, || {
            format!("M2: {id:?} counts {} pins of {pins}", module.pins)
        })?;
        let live = || self.instances.iter().filter(|(_, i)| i.module == id);
        let listed = live().all(|(instance, _)| module.live.contains(&instance));
        let dying = self
            .dying
            .iter()
            .filter(|(_, d)| d.module == Some(id))
            .count();
        let counts = (module.live.len(), module.dying);
        must(listed && counts == (live().count(), dying as u32), || {
            format!("M3: {id:?} lists {counts:?} live and dying, not its own ({dying} dying)")
        })?;
        must(module.live.is_empty() || module.is_loaded(), || {
            format!("M4: {id:?} has instances and no code")
        })?;
        must(module.functions > 0 || !module.is_unused(), || {
            format!("M5: {id:?} is a record of nothing")
        })?;
        let leaving = module.collected_for;
        let collected = leaving == self.collecting && module.is_loaded();
        must(leaving.is_none() || collected, || {
            format!("M7: the code of {id:?} is collected for nobody")
        })?;
        let Phase::InFlight { leader } = &module.phase else {
            return Ok(());
        };
        let leader = self.requests.get(*leader);
        must(leader.is_some_and(|r| r.module == Some(id)), || {
            format!("C2: the leader of {id:?} does not pin it")
        })
    }
}
