//! What must hold after every step.

use crate::model::{MFunction, MPhase, MSeat, Nap, Place, Sleep, Step};
use crate::room::Verdict;
use crate::state::Budget;
use crate::world::World;

impl World {
    pub fn check(&mut self) {
        assert_eq!(self.state.recount(), Ok(()));
        assert_eq!(self.state.recount_last_uses(&self.cx.slots), Ok(()));
        self.check_charges();
        self.check_slots();
        self.check_seats();
        self.check_modules();
        self.check_snapshot();
        self.check_shares();
        self.check_quarantine();
        self.check_nobody_sleeps_on();
    }

    fn check_charges(&mut self) {
        let charged = self.model.charged();
        let ledger = Budget::ALL.map(|b| self.state.ledger().charged().get(b));
        assert_eq!(ledger, charged, "who holds what");
        let over = self.model.overdraft();
        for budget in Budget::ALL {
            let (now, before) = (over[budget as usize], self.model.over[budget as usize]);
            assert!(
                now <= before,
                "C-B1: {budget} is over its limit by {now}, was {before}"
            );
        }
        self.seen.note_if(over != [0; 8], "overdraft");
        assert_eq!(self.state.is_overdrawn(), over != [0; 8]);
        self.model.over = over;
        for (id, request) in &self.model.requests {
            assert_eq!(self.state.held(*id), Some(request.held), "{id:?} holds");
        }
    }

    fn check_slots(&self) {
        for (id, instance) in &self.model.instances {
            let slot = &self.cx.slots.doors[instance.entry].slots[instance.seat];
            let lies_there = slot.cell == Some(*id);
            let right = match instance.place {
                Place::Idle => lies_there && slot.idle && !slot.notifies,
                Place::Unheard => lies_there && slot.notifies,
                Place::Leased => !lies_there,
                Place::Held => false,
            };
            assert!(right, "{id:?} is {:?}, its slot {slot:?}", instance.place);
        }
    }

    fn check_seats(&self) {
        for (n, entry) in self.model.entries.iter().enumerate() {
            let current = self.model.function_of(n).map(|f| f.version);
            let open = current.is_some() && !self.model.closed;
            assert!(open || entry.queue.is_empty(), "somebody waits in vain");
            let waits = !entry.queue.is_empty();
            let most = self.model.function_of(n).map_or(0, MFunction::most);
            assert!(
                !waits || self.model.occupied(n) >= most,
                "somebody waits for a free seat"
            );
            let surplus = self.model.has_surplus(n);
            let closed = self.cx.slots.doors[n].waited;
            assert!(
                closed || !surplus,
                "a lease may end unseen, and be one too many"
            );
            for seat in &entry.seats {
                let MSeat::Taken(id) = seat else {
                    continue;
                };
                let instance = &self.model.instances[id];
                if instance.place == Place::Idle {
                    assert!(!waits, "somebody waits for {id:?}, which is idle");
                    assert!(!surplus, "{id:?} is idle, and one too many");
                    assert_eq!(Some(instance.version), current, "C-N2: {id:?} is stale");
                    assert!(!self.model.closed);
                }
                let record = self.state.instance(*id).expect("alive in the model");
                let place = (record.entry, record.seat(), record.version);
                assert_eq!(place, (entry.id, instance.seat, instance.version));
            }
        }
    }

    fn check_modules(&self) {
        let retains = self.model.policy.retains_code() && !self.model.closed;
        for (key, _) in self.model.loaded() {
            let unused = self.model.is_unused(key);
            let pinned = self.model.is_key_pinned(key) && !self.model.closed;
            let stays = retains || pinned;
            assert!(!unused || stays, "C-M4: module {key} did not drop out");
        }
    }

    fn check_snapshot(&self) {
        let (snapshot, model) = (self.state.snapshot(), &self.model);
        assert_eq!(snapshot.instances, model.instances.len());
        assert_eq!(snapshot.dying, model.dying.len());
        assert_eq!(snapshot.modules_known, model.modules.len());
        assert_eq!(snapshot.modules_loaded, model.loaded().count());
        assert_eq!(snapshot.compiling, model.compiling());
        assert_eq!(
            snapshot.functions.len(),
            model.functions.iter().flatten().count()
        );
        let known = model.entries.iter().filter(|e| !e.gone).count();
        assert_eq!(snapshot.entries.len(), known);
        let asleep = model.requests.values().filter_map(|r| r.nap);
        let asleep = asleep.filter(|nap| !nap.woken && !nap.late).count();
        let queued: usize = model.entries.iter().map(|e| e.queue.len()).sum();
        assert_eq!(snapshot.waiting, asleep + queued);
        for entry in snapshot.entries {
            let record = &model.entries[entry.handle];
            assert_eq!(entry.waiting, record.queue.len());
            for (seat, id, bytes, born) in entry.instances {
                assert_eq!(record.seats[seat], MSeat::Taken(id));
                let instance = &model.instances[&id];
                assert_eq!(bytes, instance.holds.get(Budget::Memory));
                assert_eq!(born, instance.created_at);
            }
        }
    }

    /// Whoever sleeps is either going to be woken by something that is under way, or cannot be
    /// served.
    fn check_nobody_sleeps_on(&self) {
        let model = &self.model;
        let naps = || {
            model
                .requests
                .iter()
                .filter_map(|(id, r)| Some((id, r.nap?)))
        };
        for (id, nap) in naps() {
            if let (false, Sleep::Flight(..)) = (nap.woken || nap.late, nap.sleep) {
                let request = &model.requests[id];
                if let Some(key) = request.awaits_leave {
                    assert!(
                        model.collected_for.contains(&key),
                        "{id:?} waits for nothing"
                    );
                    continue;
                }
                let key = request.key.expect("followers pin");
                let flies = matches!(model.modules[&key].phase, MPhase::Flight(_));
                assert!(flies, "{id:?} follows a flight that has ended");
            }
        }
        assert_eq!(self.state.overtakes(), model.overtakes);
        if let Some(by) = model.collecting {
            assert!(model.is_first_for_room(by), "{by:?} collects out of turn");
            // Whoever loses an instance may be within what is reserved for it from then on: it is woken when that is freed.
            let asleep =
                model.requests[&by].nap.is_some_and(|nap| !nap.woken) && model.dying.is_empty();
            for (idle, _) in model.idle() {
                let needed = asleep && model.is_collected(idle);
                assert!(!needed, "{by:?} waits beside {idle:?}, which it needs");
            }
        }
        if model.closed {
            let (room, turn) = (model.first_for_room(), model.first_compiler());
            assert_eq!(room.or(turn), None, "asleep in a closed pool");
            let follows =
                |nap: Nap| !nap.woken && !nap.late && matches!(nap.sleep, Sleep::Flight(..));
            let follower = naps().find(|(_, nap)| follows(*nap));
            assert!(follower.is_none(), "follows in a closed pool");
        }
        let woken = |waits: fn(Sleep) -> bool| naps().any(|(_, nap)| nap.woken && waits(nap.sleep));
        if let Some(id) = model.first_compiler() {
            assert!(!model.has_turn_for(id), "{id:?} waits, and a turn is free");
        }
        let under_way = woken(|sleep| matches!(sleep, Sleep::Room(_)))
            || !model.dying.is_empty()
            || !model.reports.is_empty()
            || model.requests.values().any(|r| r.step == Step::Spare);
        // Whoever is late and does not know it yet makes way at the next sweep.
        let is_late = |id| {
            model.requests[&id]
                .nap
                .is_some_and(|nap| nap.until <= model.now)
        };
        if let Some(id) = model.first_for_room()
            && !under_way
            && !is_late(id)
        {
            let outlook = model.outlook(id, &model.requests[&id].target);
            let verdict = outlook.least();
            let enough_alone = model.enough_alone(id, &outlook);
            assert_eq!(enough_alone, None, "{id:?} waits beside it");
            assert_eq!(
                verdict,
                Verdict::Refused,
                "{id:?} waits for room that could be made; {outlook:?} {:#?} {:?} {:?}",
                model.requests,
                model.collecting,
                model.limits
            );
        }
    }
}
