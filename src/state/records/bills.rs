//! Who has used what: by group, and by function.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use hashbrown::HashMap;

use super::amounts::{Amounts, PerBudget};
use super::bill::{Account, Bill, over_time, sum};
use super::entries::EntryId;
use super::functions::FunctionId;
use super::group::Group;
use super::modules::ModuleId;
use crate::state::Types;

/// All accounts. What is counted stands in one account of a group and in one of a function; so the sums are the same.
///
/// Code is shared: what a module's code holds is divided among the entries that have live instances of it, in equal parts,
/// at each moment; while there are none, it is nobody's.
pub struct Bills<H: Types> {
    // In boxes: a table in which groups come and go may have four times as many places as they are.
    pub groups: HashMap<Group, Box<Account>>,
    pub functions: HashMap<FunctionId<H>, Box<Account>>,
    /// Groups without an entry, by how often any had lost its last one when they did.
    gone: BTreeMap<u64, Group>,
    partings: u64,
    /// How many of them are kept apart.
    max_gone: usize,
    /// Of groups that are not kept apart any more, and of what was done for none.
    pub other_groups: Bill,
    /// Of functions that are removed, and of what was done for none.
    pub other_functions: Bill,
    code: HashMap<ModuleId<H>, CodeParts>,
    /// **B3** Has each pair of a module and an entry with live instances of it, and how many those are.
    users: HashMap<(ModuleId<H>, EntryId<H>), Box<CodeUser>>,
}

/// How a module's code is divided.
struct CodeParts {
    holds: Amounts,
    /// Entries that divide it.
    users: u64,
    /// What one had to bear that was there from the beginning.
    part: PerBudget<u128>,
    settled_at: u64,
}

impl CodeParts {
    fn settle(&mut self, now: u64) {
        let nanos = now.saturating_sub(self.settled_at);
        self.settled_at = self.settled_at.max(now);
        if self.users > 0 {
            let users = u128::from(self.users);
            let all = over_time(&self.holds, nanos);
            let part = PerBudget::from_fn(|budget| all[budget] / users);
            self.part = sum(&self.part, &part);
        }
    }
}

struct CodeUser {
    instances: usize,
    /// Of `CodeParts::part`, what is not its own, or is on its bill already.
    settled: PerBudget<u128>,
}

impl CodeUser {
    fn settle(&mut self, parts: &CodeParts) -> PerBudget<u128> {
        let due = PerBudget::from_fn(|budget| parts.part[budget] - self.settled[budget]);
        self.settled = parts.part;
        due
    }
}

impl<H: Types> Bills<H> {
    pub fn new(max_gone: usize) -> Self {
        Self {
            groups: HashMap::new(),
            functions: HashMap::new(),
            gone: BTreeMap::new(),
            partings: 0,
            max_gone,
            other_groups: Bill::default(),
            other_functions: Bill::default(),
            code: HashMap::new(),
            users: HashMap::new(),
        }
    }

    /// There is a new entry.
    pub fn enter(&mut self, function: FunctionId<H>, group: &Group) {
        self.functions.entry(function).or_default().entries += 1;
        match self.groups.get_mut(group) {
            Some(account) => {
                account.entries += 1;
                if account.entries == 1 {
                    self.gone.remove(&account.parting);
                }
            }
            None => {
                let account = self.groups.entry(group.clone()).or_default();
                account.entries = 1;
            }
        }
    }

    /// There is a new function.
    pub fn begin_function(&mut self, id: FunctionId<H>) {
        self.functions.entry(id).or_default();
    }

    /// A function is about to be another one: what it has used so far.
    pub fn take_bill(&mut self, id: FunctionId<H>, now: u64) -> Bill {
        let account = self.functions.get_mut(&id);
        account.map_or_else(Bill::default, |account| {
            account.settle(now);
            core::mem::take(&mut account.bill)
        })
    }

    /// An entry is forgotten, whose function may be gone.
    pub fn leave(&mut self, function: FunctionId<H>, group: &Group, is_defined: bool) {
        if let Some(account) = self.functions.get_mut(&function) {
            account.entries -= 1;
        }
        if !is_defined {
            self.end_function(function);
        }
        if let Some(account) = self.groups.get_mut(group) {
            account.entries -= 1;
            if account.entries == 0 {
                self.partings += 1;
                account.parting = self.partings;
                self.gone.insert(self.partings, group.clone());
                self.forget_gone();
            }
        }
    }

    /// The function is removed: its bill is closed with its last entry.
    pub fn end_function(&mut self, id: FunctionId<H>) {
        if let Some(account) = self.functions.get(&id)
            && account.entries == 0
        {
            self.other_functions.add(&account.bill);
            self.functions.remove(&id);
        }
    }

    /// Those that are gone for longest are not kept apart.
    fn forget_gone(&mut self) {
        while self.gone.len() > self.max_gone {
            let Some((_, group)) = self.gone.pop_first() else {
                return;
            };
            if let Some(account) = self.groups.remove(&group) {
                self.other_groups.add(&account.bill);
            }
        }
    }

    /// To whom something goes that was done for a function, for a group: or for nobody.
    pub fn add(
        &mut self,
        function: Option<FunctionId<H>>,
        group: Option<&Group>,
        add: impl Fn(&mut Bill),
    ) {
        let function = function.and_then(|id| self.functions.get_mut(&id));
        add(function.map_or(&mut self.other_functions, |account| &mut account.bill));
        let group = group.and_then(|group| self.groups.get_mut(group));
        add(group.map_or(&mut self.other_groups, |account| &mut account.bill));
    }

    /// Both accounts of an entry.
    pub fn accounts(
        &mut self,
        function: FunctionId<H>,
        group: &Group,
    ) -> impl Iterator<Item = &mut Account> {
        let function = self.functions.get_mut(&function);
        let both = function.into_iter().chain(self.groups.get_mut(group));
        both.map(|account| &mut **account)
    }

    /// An instance of the module, whose code is charged so much, was made for the entry.
    pub fn use_code(&mut self, module: ModuleId<H>, holds: Amounts, entry: EntryId<H>, now: u64) {
        let parts = self.code.entry(module).or_insert_with(|| CodeParts {
            holds,
            users: 0,
            part: PerBudget::default(),
            settled_at: now,
        });
        parts.settle(now);
        let user = self.users.entry((module, entry)).or_insert_with(|| {
            parts.users += 1;
            Box::new(CodeUser {
                instances: 0,
                settled: parts.part,
            })
        });
        user.instances += 1;
    }

    /// An instance of the module has gone. What the entry had to bear of the code since it was last asked.
    pub fn leave_code(
        &mut self,
        module: ModuleId<H>,
        entry: EntryId<H>,
        now: u64,
    ) -> PerBudget<u128> {
        let (Some(parts), Some(user)) = (
            self.code.get_mut(&module),
            self.users.get_mut(&(module, entry)),
        ) else {
            return PerBudget::default();
        };
        parts.settle(now);
        let due = user.settle(parts);
        user.instances -= 1;
        if user.instances == 0 {
            parts.users -= 1;
            let is_last = parts.users == 0;
            self.users.remove(&(module, entry));
            if is_last {
                self.code.remove(&module);
            }
        }
        due
    }

    /// What each entry had to bear of code since it was last asked.
    pub fn settle_code(&mut self, now: u64) -> impl Iterator<Item = (EntryId<H>, PerBudget<u128>)> {
        let Self { code, users, .. } = self;
        code.values_mut().for_each(|parts| parts.settle(now));
        users.iter_mut().filter_map(|((module, entry), user)| {
            let parts = code.get(module)?;
            Some((*entry, user.settle(parts)))
        })
    }

    /// Instances of a module that an entry has, as they are counted.
    pub fn instances_of(&self, module: ModuleId<H>, entry: EntryId<H>) -> usize {
        let user = self.users.get(&(module, entry));
        user.map_or(0, |user| user.instances)
    }

    /// Instances, as they are counted.
    pub fn all_instances(&self) -> usize {
        self.users.values().map(|user| user.instances).sum()
    }
}
