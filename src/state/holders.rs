//! Who holds most of a budget: for whoever was refused, and for reports.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::records::amounts::{Amounts, Budget};
use super::records::entries::{Entry, Seat};
use super::records::functions::Function;
use super::records::group::Group;
use super::records::modules::{Module, ModuleId, Phase};
use super::{State, Types};

/// What one holder has of a budget.
pub struct Holding<H: Types> {
    pub holder: Holder<H>,
    /// Of leases, of requests under way, and of code that they need.
    pub leased: u64,
    pub idle: u64,
}

pub enum Holder<H: Types> {
    /// The instances of one (function, group).
    Entry(H::Entry),
    /// The code of a module, or what is prepared to be it, by one of the functions that use it: name and
    /// arguments.
    Code(Arc<str>, Arc<str>),
}

/// Seats, and modules, that are counted at the most: it is under the lock.
const BATCH: usize = 16 << 10;

/// The largest so far, in order.
struct Largest<X> {
    most: usize,
    list: Vec<(u64, u64, X)>,
}

impl<X> Largest<X> {
    fn offer(&mut self, leased: u64, idle: u64, who: X) {
        let size = leased.saturating_add(idle);
        let smaller = |(l, i, _): &(u64, u64, X)| l.saturating_add(*i) < size;
        let place = self.list.iter().position(smaller);
        let place = place.unwrap_or(self.list.len());
        if size > 0 && place < self.most {
            self.list.insert(place, (leased, idle, who));
            self.list.truncate(self.most);
        }
    }
}

enum Found<'a, H: Types> {
    Entry(&'a Entry<H>),
    Module(ModuleId<H>),
}

impl<H: Types> State<H> {
    /// The largest holders of each of these budgets, the largest first. Looks at 16,384 seats and as many
    /// modules at the most; of more, it is the largest of these. Of one group, only what counts in its share.
    pub fn largest_holders(
        &self,
        budgets: &[Budget],
        most: usize,
        of: Option<&Group>,
        is_leased: impl Fn(&H::Entry, usize) -> bool,
    ) -> Vec<Vec<Holding<H>>> {
        let empty = |_: &Budget| Largest {
            most,
            list: Vec::new(),
        };
        let mut largest: Vec<_> = budgets.iter().map(empty).collect();
        let mut looked_at = 0;
        for (id, entry) in self.entries.iter() {
            if of.is_some_and(|group| group != self.share_group(id)) {
                continue;
            }
            looked_at += entry.seats.len();
            let (leased, idle) = self.held_by(entry, &is_leased);
            for (budget, largest) in budgets.iter().zip(&mut largest) {
                largest.offer(leased.get(*budget), idle.get(*budget), Found::Entry(entry));
            }
            if looked_at >= BATCH {
                break;
            }
        }
        let share = of.map(|group| self.shares.find(group));
        let is_meant = |module: &Module<H>| match share {
            None => true,
            Some(share) => share.is_some_and(|share| module.users.contains(&share)),
        };
        let modules = self.modules.iter().take(BATCH);
        for (id, module) in modules.filter(|(_, module)| is_meant(module)) {
            let (held, in_use) = match &module.phase {
                Phase::Loaded { charge, .. } => {
                    (charge.amounts(), self.is_in_use(module, &is_leased))
                }
                // With a seat, it counts for the seat's entry.
                Phase::InFlight { leader } if self.requests[*leader].seat.is_none() => {
                    (self.requests[*leader].held.amounts(), true)
                }
                _ => continue,
            };
            for (budget, largest) in budgets.iter().zip(&mut largest) {
                let bytes = held.get(*budget);
                let (leased, idle) = if in_use { (bytes, 0) } else { (0, bytes) };
                largest.offer(leased, idle, Found::Module(id));
            }
        }
        let named = |(leased, idle, found)| {
            let holder = self.name_of(&found)?;
            Some(Holding {
                holder,
                leased,
                idle,
            })
        };
        let all = largest.into_iter();
        all.map(|largest| largest.list.into_iter().filter_map(named).collect())
            .collect()
    }

    /// What is leased or being made, and what is idle.
    fn held_by(
        &self,
        entry: &Entry<H>,
        is_leased: &impl Fn(&H::Entry, usize) -> bool,
    ) -> (Amounts, Amounts) {
        let (mut leased, mut idle) = (Amounts::ZERO, Amounts::ZERO);
        for (number, seat) in entry.seats.iter().enumerate() {
            match seat {
                Seat::Vacant => {}
                Seat::Promised(request) => {
                    leased = leased.saturating_add(&self.requests[*request].held.amounts());
                }
                Seat::Taken(instance) => {
                    let held = self.instances[*instance].charge.amounts();
                    match is_leased(&entry.handle, number) {
                        true => leased = leased.saturating_add(&held),
                        false => idle = idle.saturating_add(&held),
                    }
                }
            }
        }
        (leased, idle)
    }

    fn is_in_use(&self, module: &Module<H>, is_leased: &impl Fn(&H::Entry, usize) -> bool) -> bool {
        let mut live = module.live.iter().map(|id| &self.instances[*id]);
        module.pins > 0 || live.any(|i| is_leased(&self.entries[i.entry].handle, i.seat()))
    }

    /// `None` for code whose function is not found: it was removed, or there are too many.
    fn name_of(&self, found: &Found<'_, H>) -> Option<Holder<H>> {
        let module = match found {
            Found::Entry(entry) => return Some(Holder::Entry(entry.handle.clone())),
            Found::Module(module) => *module,
        };
        let uses = |f: &&Function<H>| f.module == module;
        let live = self.modules[module].live.first().and_then(|id| {
            let entry = &self.entries[self.instances[*id].entry];
            self.functions.get(entry.function)
        });
        let function = live.filter(uses).or_else(|| {
            let mut functions = self.functions.iter().map(|(_, f)| f).take(BATCH);
            functions.find(uses)
        })?;
        let arguments = function.arguments.clone();
        Some(Holder::Code(function.name.clone(), arguments))
    }
}
