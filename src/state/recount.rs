//! Counts every invariant again from the records. Tests call it after every step.

use alloc::format;
use alloc::string::String;

use super::records::amounts::{Amounts, Budget};
use super::records::entries::Seat;
use super::records::modules::Phase;
use super::{State, Types};

type Check = Result<(), String>;

fn must(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

impl<H: Types> State<H> {
    /// The first invariant that does not hold, by number.
    pub fn recount(&self) -> Check {
        self.recount_ledger()?;
        self.recount_functions()?;
        self.recount_entries()?;
        self.recount_instances()?;
        self.recount_requests()?;
        self.recount_modules()
    }

    fn recount_ledger(&self) -> Check {
        let instances = self.instances.iter().map(|(_, i)| i.charge.amounts());
        let requests = self.requests.iter().map(|(_, r)| r.held.amounts());
        let dying = self.dying.iter().map(|(_, d)| d.charge.amounts());
        let modules = self.modules.iter().map(|(_, m)| match &m.phase {
            Phase::Loaded { charge, .. } => charge.amounts(),
            _ => Amounts::ZERO,
        });
        let mut all = instances.chain(requests).chain(dying).chain(modules);
        let sum = all.try_fold(Amounts::ZERO, |sum, part| sum.checked_add(&part));
        let charged = *self.ledger.charged();
        must(sum == Some(charged), || {
            format!("L1: charges sum to {sum:?}, the ledger says {charged:?}")
        })?;
        for budget in Budget::ALL {
            let (charged, peak) = (charged.get(budget), self.ledger.peak()[budget]);
            must(charged <= peak, || {
                format!("L3: {budget} {charged} above its peak {peak}")
            })?;
        }
        Ok(())
    }

    fn recount_functions(&self) -> Check {
        for (id, function) in self.functions.iter() {
            must(self.names.lists(&function.name, id), || {
                format!("F1: {} is not listed once", function.name)
            })?;
            must(self.modules.get(function.module).is_some(), || {
                format!("S1: the module of {} is gone", function.name)
            })?;
            for (group, entry) in &function.entries {
                let entry = self.entries.get(*entry);
                must(
                    entry.is_some_and(|e| e.function == id && e.group == *group),
                    || {
                        format!(
                            "F2: the entry of {} for {group} is not its own",
                            function.name
                        )
                    },
                )?;
            }
        }
        Ok(())
    }

    fn recount_entries(&self) -> Check {
        for (id, entry) in self.entries.iter() {
            if let Some(function) = self.functions.get(entry.function) {
                must(function.entries.get(&entry.group) == Some(&id), || {
                    format!("F2: entry {id:?} is not listed by its function")
                })?;
            }
            let listed = entry.is_unused() && self.functions.get(entry.function).is_some();
            let place = entry.unused.and_then(|place| self.unused.at(place));
            must(
                place == listed.then_some(id) && entry.unused.is_some() == listed,
                || format!("E4: {id:?} has the wrong place among the unused"),
            )?;
            let most = self.config.seats_per_entry;
            must(entry.queue.is_empty() || entry.seats.len() == most, || {
                format!("E3: somebody waits for {id:?}, which may have more seats")
            })?;
            for (number, seat) in entry.seats.iter().enumerate() {
                let right = match seat {
                    Seat::Vacant => entry.queue.is_empty(),
                    Seat::Promised(request) => {
                        let request = self.requests.get(*request);
                        request.is_some_and(|r| r.seat == Some((id, number)))
                    }
                    Seat::Taken(instance) => {
                        let instance = self.instances.get(*instance);
                        instance.is_some_and(|i| i.entry == id && i.seat == number)
                    }
                };
                must(right, || {
                    format!("E1, E2, E3: seat {number} of {id:?} is wrong")
                })?;
            }
        }
        let unused = self.entries.iter().filter(|(_, e)| e.unused.is_some());
        let (listed, most) = (self.unused.len(), self.config.max_unused_entries);
        must(unused.count() == listed && listed <= most, || {
            format!("E5: {listed} unused entries are listed, and {most} may be kept")
        })
    }

    fn recount_instances(&self) -> Check {
        for (id, instance) in self.instances.iter() {
            let seat = self
                .entries
                .get(instance.entry)
                .map(|e| e.seats[instance.seat]);
            must(
                matches!(seat, Some(Seat::Taken(taken)) if taken == id),
                || format!("I1: {id:?} does not have its seat"),
            )?;
            let module = self.modules.get(instance.module);
            must(module.is_some_and(|m| m.live.contains(&id)), || {
                format!("I1: {id:?} is not listed by its module")
            })?;
            must(self.recency.contains(instance.known, id), || {
                format!("I2: {id:?} is not in the order")
            })?;
        }
        must(self.recency.len() == self.instances.len(), || {
            format!(
                "I2: {} in the order, {} live",
                self.recency.len(),
                self.instances.len()
            )
        })
    }

    fn recount_requests(&self) -> Check {
        for (id, request) in self.requests.iter() {
            if let Some((entry, seat)) = request.seat {
                let seat = self.entries.get(entry).map(|e| e.seats[seat]);
                must(matches!(seat, Some(Seat::Promised(to)) if to == id), || {
                    format!("Q1: {id:?} does not have its seat")
                })?;
            }
        }
        let followers = self.modules.iter().map(|(_, module)| &module.followers);
        let queues = [&self.room_queue, &self.awaiting_frees, &self.compilers];
        for sleeper in queues.into_iter().chain(followers).flat_map(|q| q.iter()) {
            let request = sleeper.request.and_then(|id| self.requests.get(id));
            let deadline = (sleeper.until < u64::MAX).then_some(sleeper.until);
            must(
                request.is_some_and(|r| r.asleep_until.unwrap_or(u64::MAX) == sleeper.until),
                || format!("Q3: {:?} sleeps until {deadline:?}", sleeper.request),
            )?;
        }
        let Some(by) = self.collecting else {
            return Ok(());
        };
        let first = self.requests.get(by).is_some() && self.is_first_for_room(by);
        must(first, || {
            format!("T2: {by:?} collects, and is not the first")
        })
    }

    fn recount_modules(&self) -> Check {
        let mut flights = 0;
        for (id, module) in self.modules.iter() {
            must(self.module_index.get(&module.key) == Some(&id), || {
                format!("S2: {id:?} is not named by its key")
            })?;
            let functions = self
                .functions
                .iter()
                .filter(|(_, f)| f.module == id)
                .count();
            must(functions == module.functions, || {
                format!(
                    "M1: {id:?} counts {} functions of {functions}",
                    module.functions
                )
            })?;
            let pins = self
                .requests
                .iter()
                .filter(|(_, r)| r.module == Some(id))
                .count();
            must(pins == module.pins, || {
                format!("M2, Q2: {id:?} counts {} pins of {pins}", module.pins)
            })?;
            let live = self
                .instances
                .iter()
                .filter(|(_, i)| i.module == id)
                .count();
            let dying = self
                .dying
                .iter()
                .filter(|(_, d)| d.module == Some(id))
                .count();
            must(live == module.live.len() && dying == module.dying, || {
                format!(
                    "M3: {id:?} lists {} of {live} live, {} of {dying} dying",
                    module.live.len(),
                    module.dying
                )
            })?;
            must(live == 0 || module.is_loaded(), || {
                format!("M4: {id:?} has {live} instances and no code")
            })?;
            must(module.functions > 0 || !module.is_unused(), || {
                format!("M5: {id:?} is a record of nothing")
            })?;
            let leaving = module.leaving;
            must(
                leaving.is_none() || leaving == self.collecting && module.is_loaded(),
                || format!("M7: the code of {id:?} is collected for nobody"),
            )?;
            if let Phase::InFlight { leader } = &module.phase {
                flights += 1;
                let leads = self
                    .requests
                    .get(*leader)
                    .is_some_and(|r| r.module == Some(id));
                must(leads, || {
                    format!("M2: the leader of {id:?} does not pin it")
                })?;
            }
        }
        let loaded = self.modules.iter().filter(|(_, m)| m.is_loaded()).count();
        must(loaded == self.loaded, || {
            format!("M6: {loaded} modules are loaded, {} counted", self.loaded)
        })?;
        must(self.module_index.len() == self.modules.len(), || {
            "S2: stale keys".into()
        })?;
        must(flights == self.compiling, || {
            format!("C1: {flights} flights, {} counted", self.compiling)
        })
    }

    /// **L2**, which `recount` leaves out because lowered limits may break it.
    pub fn is_overdrawn(&self) -> bool {
        self.ledger.is_overdrawn()
    }
}
