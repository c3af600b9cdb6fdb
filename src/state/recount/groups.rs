//! What groups hold, and what is on bills, counted again.

use alloc::format;
use alloc::vec::Vec;

use super::{Check, must, none};
use crate::state::records::instances::Instance;
use crate::state::records::modules::Phase;
use crate::state::{Amounts, Budget, Entry, Share, ShareId, State, Types};

impl<H: Types> State<H> {
    pub(super) fn recount_shares(&self) -> Check {
        must(self.shares.is_indexed(), || {
            format!("G4: {} shares are not named once each", self.shares.len())
        })?;
        let mut entries = self.entries.iter();
        let astray = entries.find(|(id, _)| {
            let share = self.shares.find(self.share_group(*id));
            let share = share.and_then(|share| self.shares.get(share));
            share.is_some_and(|share| !share.entries.contains(id))
        });
        let with_share = self
            .entries
            .iter()
            .filter(|(id, _)| self.share_of(*id).is_some());
        let (with_share, mut listed) = (with_share.count(), self.shares.iter());
        let listed = listed.by_ref().map(|(_, s)| s.entries.len()).sum::<usize>();
        must(astray.is_none() && listed == with_share, || {
            let astray = astray.map(|(id, _)| id);
            format!("G1: {listed} of {with_share} entries are listed by shares; astray: {astray:?}")
        })?;
        let mut answered = self.shares.answered_for();
        let gone = answered.find(|id| self.entries.get(*id).is_none());
        must(gone.is_none(), || {
            format!("G7: {gone:?} counts in another group's share, and is not there")
        })?;
        let all_limited = self.config.group_terms.limits_anything();
        let needed = |share: &Share<H>| share.is_named || !share.entries.is_empty();
        let needless = self.shares.iter().find(|(_, share)| !needed(share));
        let all_have_one = !all_limited || with_share == self.entries.len();
        must(needless.is_none() && all_have_one, || {
            let needless = needless.map(|(id, _)| id);
            let entries = self.entries.len();
            format!(
                "G5: {needless:?} is needless, or {with_share} of {entries} entries have a share"
            )
        })?;
        for (id, share) in self.shares.iter() {
            let add = |all: Amounts, one: Amounts| all.saturating_add(&one);
            let of_it = |i: &Instance<H>| self.share_of(i.entry) == Some(id);
            let instances = self.instances.iter().filter(|(_, i)| of_it(i));
            let instances = instances.map(|(_, i)| i.charge.amounts());
            let instances = instances.fold(Amounts::ZERO, add);
            must(instances == share.instances, || {
                let counted = share.instances;
                format!("G2: {id:?} holds {instances:?}, and {counted:?} are counted")
            })?;
            let own = share.entries.iter().map(|id| self.entries[*id].occupied());
            let seats = own.sum::<usize>();
            must(seats == share.seats, || {
                let counted = share.seats;
                format!("G6: {id:?} has {seats} seats, and {counted} are counted")
            })?;
            let used = (self.modules.iter()).filter(|(_, m)| m.users.contains(&id));
            let code = used.map(|(_, m)| match &m.phase {
                Phase::Loaded { charge, .. } => charge.amounts(),
                _ => Amounts::ZERO,
            });
            let code = code.fold(Amounts::ZERO, add);
            must(code == share.code, || {
                let counted = share.code;
                format!("G3: {id:?} uses code of {code:?}, and {counted:?} are counted")
            })?;
        }
        let unlisted = self.modules.iter().find(|(_, module)| {
            let live = module.live.iter().map(|id| &self.instances[*id]);
            let counts = |id: &ShareId<H>| self.shares.get(*id).is_some_and(Share::counts_code);
            let mut shares = live.filter_map(|i| self.share_of(i.entry)).filter(counts);
            let missing = shares.any(|share| !module.users.contains(&share));
            let mut users = module.users.iter();
            let gone = users.any(|id| self.shares.get(*id).is_none());
            missing || gone || !module.users.is_empty() && !module.is_loaded()
        });
        none(unlisted, |(id, _)| {
            format!("M10: the users of {id:?} are not those that have its instances")
        })
    }

    pub(super) fn recount_bills(&self) -> Check {
        let Some(bills) = &self.bills else {
            return Ok(());
        };
        let holds = |of_it: &dyn Fn(&Entry<H>) -> bool| {
            let live = self.instances.iter();
            let of_it = live.filter(|(_, i)| of_it(&self.entries[i.entry]));
            of_it.fold(Amounts::ZERO, |sum, (_, i)| {
                sum.saturating_add(&i.charge.amounts())
            })
        };
        let entries = |of_it: &dyn Fn(&Entry<H>) -> bool| {
            self.entries.iter().filter(|(_, e)| of_it(e)).count()
        };
        let by_group = bills.groups.iter().map(|(group, account)| {
            let of_it = move |e: &Entry<H>| e.group == *group;
            (account, holds(&of_it), entries(&of_it))
        });
        let by_function = bills.functions.iter().map(|(function, account)| {
            let of_it = move |e: &Entry<H>| e.function == *function;
            (account, holds(&of_it), entries(&of_it))
        });
        let accounts: Vec<_> = by_group.chain(by_function).collect();
        let counted = |bills: usize| accounts.iter().take(bills).map(|(_, _, entries)| entries);
        let of_groups: usize = counted(bills.groups.len()).sum();
        let all: usize = counted(accounts.len()).sum();
        let mut wrong = accounts
            .iter()
            .filter(|(account, _, entries)| account.entries != *entries);
        let is_right = wrong.next().is_none();
        must(
            is_right && of_groups == self.entries.len() && all == 2 * of_groups,
            || {
                format!(
                    "B2: {of_groups} of {} entries have a group's bill",
                    self.entries.len()
                )
            },
        )?;
        let mut wrong = accounts
            .iter()
            .filter(|(account, holds, _)| account.holds != *holds);
        none(wrong.next(), |(account, holds, _)| {
            format!(
                "B1: {holds:?} is held, and {:?} is on a bill",
                account.holds
            )
        })?;
        let mut instances = self.instances.iter();
        let astray = instances.find(|(_, instance)| {
            let alike = |(_, i): &(_, &Instance<H>)| {
                i.module == instance.module && i.entry == instance.entry
            };
            let live = self.instances.iter().filter(alike).count();
            bills.instances_of(instance.module, instance.entry) != live
        });
        let (counted, live) = (bills.all_instances(), self.instances.len());
        must(astray.is_none() && counted == live, || {
            let astray = astray.map(|(id, _)| id);
            format!("B3: {counted} of {live} instances use code; not {astray:?}")
        })
    }
}
