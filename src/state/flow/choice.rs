//! Choosing modules, the least worthy first, at a cost that does not grow with their number.
//!
//! There are two things that looking at all modules would find out, and that are found out for few:
//!
//! - **Which is worth least.** A choice walks through the candidates in an order drawn by chance, looks at
//!   [`SAMPLE`] of them, and takes the least worthy; then it looks at one more. So the least worthy of all
//!   is chosen when there are not more than that, and one of the lowest few per cent otherwise; and who
//!   takes all, meets each once.
//! - **How lately each was used.** Warm leases tell nobody. So a candidate's worth is that of its last use
//!   that is known, and the slots of its instances are looked at when it would be chosen: as in the order
//!   of instances, only what looks old is refreshed. How often it was used since, its slots say too, so a
//!   module loses nothing by being looked at seldom.

use alloc::vec::Vec;

use crate::state::{
    Arena, Candidate, Entry, Instance, InstanceId, ModuleId, Slots, Stamp, State, Types, Worth,
};

/// How many modules are compared for each that is chosen.
const SAMPLE: usize = 64;

/// A generator of the same numbers in each run (SplitMix64).
pub struct Chance(u64);

impl Chance {
    pub const fn new() -> Self {
        Self(0x5EED)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        (bits % bound as u64) as usize
    }
}

/// All places from 0 on, each once: from one to the next by a step that has no factor in common with
/// their number.
struct Walk {
    places: usize,
    next: usize,
    step: usize,
    left: usize,
}

impl Walk {
    fn new(places: usize, chance: &mut Chance) -> Self {
        let mut walk = Self {
            places,
            next: 0,
            step: 1,
            left: places,
        };
        if places > 1 {
            walk.next = chance.below(places);
            walk.step = 1 + chance.below(places - 1);
            while common_factor(walk.step, places) > 1 {
                // 1 has none, so this ends.
                walk.step = walk.step % (places - 1) + 1;
            }
        }
        walk
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let place = self.next;
        self.next = (self.next + self.step) % self.places;
        Some(place)
    }
}

fn common_factor(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        b => common_factor(b, a % b),
    }
}

/// A module that was looked at.
struct Looked<H: Types> {
    worth: Worth,
    module: ModuleId<H>,
    /// Whether its slots were looked at, too.
    refreshed: bool,
}

/// One choice of modules after the other, for one plan. While it lasts, no module is settled.
pub struct Choice<H: Types> {
    walk: Walk,
    looked: Vec<Looked<H>>,
}

impl<H: Types> Choice<H> {
    fn take_least(&mut self) -> Option<Looked<H>> {
        let order = |(_, a): &(usize, &Looked<H>), (_, b): &(usize, &Looked<H>)| {
            (a.worth.total_cmp(&b.worth)).then(a.module.cmp(&b.module))
        };
        let (place, _) = self.looked.iter().enumerate().min_by(order)?;
        Some(self.looked.swap_remove(place))
    }
}

impl<H: Types> State<H> {
    pub(crate) fn begin_choice(&mut self) -> Choice<H> {
        self.modules.settle();
        let places = self.modules.candidates().len();
        Choice {
            walk: Walk::new(places, &mut self.chance),
            looked: Vec::with_capacity(places.min(SAMPLE)),
        }
    }

    /// The least worthy of those that are looked at now; each candidate once, in the end.
    pub(crate) fn choose(
        &mut self,
        choice: &mut Choice<H>,
        slots: &impl Slots<H>,
    ) -> Option<ModuleId<H>> {
        let (policy, now) = (self.config.policy, self.now);
        loop {
            while choice.looked.len() < SAMPLE
                && let Some(place) = choice.walk.next()
            {
                let candidate = &self.modules.candidates()[place];
                choice.looked.push(Looked {
                    worth: candidate.worth(policy, now),
                    module: candidate.module,
                    refreshed: false,
                });
            }
            let least = choice.take_least()?;
            let id = least.module;
            if least.refreshed || !self.refresh_module(id, slots) {
                return Some(id);
            }
            choice.looked.push(Looked {
                worth: Candidate::of(id, &self.modules[id]).worth(policy, now),
                module: id,
                refreshed: true,
            });
        }
    }

    /// Looks at the slots of all instances of a module; whether it was used since that was known.
    pub(crate) fn refresh_module(&mut self, id: ModuleId<H>, slots: &impl Slots<H>) -> bool {
        let live = &self.modules[id].live;
        let (mut newest, mut uses) = (Stamp::default(), 0);
        for &instance in live {
            newest = newest.max(self.last_used(instance, slots));
            uses += note_uses(&mut self.instances[instance], &self.entries, slots);
        }
        let is_later = newest > self.modules[id].history.last_used;
        if is_later {
            self.modules[id].history.used_often(newest, uses);
        }
        is_later
    }

    /// Leases of an instance that was idle, since this was last asked.
    pub(crate) fn new_uses(&mut self, id: InstanceId<H>, slots: &impl Slots<H>) -> u64 {
        note_uses(&mut self.instances[id], &self.entries, slots)
    }
}

fn note_uses<H: Types>(
    instance: &mut Instance<H>,
    entries: &Arena<Entry<H>>,
    slots: &impl Slots<H>,
) -> u64 {
    let uses = slots.uses(&entries[instance.entry].handle, instance.seat);
    // Less than before, in an entry that is forgotten: it has handed its count on.
    let new = uses.saturating_sub(instance.known_uses);
    instance.known_uses = uses;
    new
}
