//! What is put on whose bill: counts as things happen, and what is held over time whenever that changes.

use alloc::vec::Vec;

use crate::state::{
    Amounts, Bill, Bills, EntryId, Failure, FunctionId, Group, InstanceId, ModuleId, PerBudget,
    Phase, RequestId, Slots, State, Types, Usage, over_time, sum,
};

/// The bills of all groups and functions, and what the pool has held: of one instant.
pub struct AllBills<H: Types> {
    pub groups: Vec<(Group, Bill)>,
    pub other_groups: Bill,
    pub functions: Vec<(FunctionId<H>, Bill)>,
    pub other_functions: Bill,
    /// Units of each budget, times the nanoseconds that they were charged.
    pub charged: PerBudget<u128>,
}

impl<H: Types> State<H> {
    /// Every entry, and its function, which may have been removed.
    pub fn entry_handles(&self) -> impl Iterator<Item = (&H::Entry, FunctionId<H>)> {
        self.entries
            .iter()
            .map(|(_, entry)| (&entry.handle, entry.function))
    }

    fn bill(&mut self, entry: EntryId<H>, add: impl Fn(&mut Bill)) {
        if let Some(bills) = &mut self.bills
            && let Some(entry) = self.entries.get(entry)
        {
            bills.add(Some(entry.function), Some(&entry.group), add);
        }
    }

    /// For the entry that a request is for; or its function alone; or nobody.
    fn bill_request(&mut self, id: RequestId<H>, add: impl Fn(&mut Bill)) {
        let Some(request) = self.requests.get(id) else {
            if let Some(bills) = &mut self.bills {
                bills.add(None, None, add);
            }
            return;
        };
        let entry = request.seat.map(|(entry, _)| entry).or(request.grows);
        let entry = entry.filter(|entry| self.entries.get(*entry).is_some());
        let function = request.function;
        match (entry, &mut self.bills) {
            (Some(entry), _) => self.bill(entry, add),
            (None, Some(bills)) => bills.add(function, None, add),
            (None, None) => {}
        }
    }

    pub(crate) fn bill_miss(&mut self, entry: EntryId<H>) {
        self.bill(entry, |bill| bill.misses += 1);
    }

    pub(crate) fn bill_block(&mut self, entry: EntryId<H>) {
        self.bill(entry, |bill| bill.blocks += 1);
    }

    pub(crate) fn bill_growth_refusal(&mut self, entry: EntryId<H>) {
        self.bill(entry, |bill| bill.growth_refusals += 1);
    }

    pub(crate) fn bill_room_wait(&mut self, id: RequestId<H>) {
        self.bill_request(id, |bill| bill.room_waits += 1);
    }

    pub(crate) fn bill_refusal(&mut self, id: RequestId<H>) {
        self.bill_request(id, |bill| bill.refusals += 1);
    }

    /// The same, of somebody who has no request.
    pub(crate) fn bill_refusal_of(&mut self, entry: EntryId<H>) {
        self.bill(entry, |bill| bill.refusals += 1);
    }

    /// A call of the entry's guest has failed.
    pub fn bill_failure(&mut self, entry: EntryId<H>, failure: Failure) {
        self.bill(entry, |bill| bill.failures[failure as usize] += 1);
    }

    /// A compiler has run for the request for so many nanoseconds, and has made something or not.
    pub fn bill_compilation(&mut self, id: RequestId<H>, nanos: u64, succeeded: bool) {
        self.bill_request(id, |bill| {
            bill.compilations += u64::from(succeeded);
            bill.compile_nanos += nanos;
        });
    }

    /// What the slots of an entry have counted that is forgotten.
    pub fn bill_usage(&mut self, function: FunctionId<H>, group: &Group, usage: &Usage) {
        if let Some(bills) = &mut self.bills {
            bills.add(Some(function), Some(group), |bill| bill.usage.add(usage));
        }
    }

    pub(crate) fn enter_bills(&mut self, entry: EntryId<H>) {
        if let Some(bills) = &mut self.bills {
            let entry = &self.entries[entry];
            bills.enter(entry.function, &entry.group);
        }
    }

    pub(crate) fn leave_bills(&mut self, function: FunctionId<H>, group: &Group) {
        let is_defined = self.functions.get(function).is_some();
        if let Some(bills) = &mut self.bills {
            bills.leave(function, group, is_defined);
        }
    }

    pub(crate) fn begin_function_bill(&mut self, function: FunctionId<H>) {
        if let Some(bills) = &mut self.bills {
            bills.begin_function(function);
        }
    }

    /// What a function has used that is about to be another one, which has its name and its bill from then on.
    pub(crate) fn take_function_bill(&mut self, function: FunctionId<H>) -> Bill {
        let now = self.now;
        let bills = self.bills.as_mut();
        bills.map_or_else(Bill::default, |bills| bills.take_bill(function, now))
    }

    pub(crate) fn add_to_function_bill(&mut self, function: FunctionId<H>, bill: &Bill) {
        let bills = self.bills.as_mut();
        if let Some(account) = bills.and_then(|bills| bills.functions.get_mut(&function)) {
            account.bill.add(bill);
        }
    }

    pub(crate) fn end_function_bill(&mut self, function: FunctionId<H>) {
        if let Some(bills) = &mut self.bills {
            bills.end_function(function);
        }
    }

    /// An instance of the entry is charged so much more.
    pub(crate) fn bill_held(&mut self, entry: EntryId<H>, more: &Amounts) {
        self.change_account(entry, |bills, function, group, now| {
            let accounts = bills.accounts(function, group);
            accounts.for_each(|account| account.note_held(more, now));
        });
    }

    /// An instance of the entry is charged so much less.
    pub(crate) fn bill_lost(&mut self, entry: EntryId<H>, less: &Amounts) {
        self.change_account(entry, |bills, function, group, now| {
            let accounts = bills.accounts(function, group);
            accounts.for_each(|account| account.note_lost(less, now));
        });
    }

    fn change_account(
        &mut self,
        entry: EntryId<H>,
        change: impl FnOnce(&mut Bills<H>, FunctionId<H>, &Group, u64),
    ) {
        let now = self.now;
        if let Some(bills) = &mut self.bills
            && let Some(entry) = self.entries.get(entry)
        {
            change(bills, entry.function, &entry.group, now);
        }
    }

    /// The instance runs its module's code from now on.
    pub(crate) fn bill_code(&mut self, entry: EntryId<H>, module: ModuleId<H>) {
        if let Some(bills) = &mut self.bills
            && let Phase::Loaded { charge, .. } = &self.modules[module].phase
        {
            bills.use_code(module, charge.amounts(), entry, self.now);
        }
    }

    /// The instance goes: what it was leased for, and its part of the code.
    pub(crate) fn close_bill_of(&mut self, id: InstanceId<H>, slots: &mut impl Slots<H>) {
        self.settle_lease(id, slots);
        let Some(instance) = self.instances.get(id) else {
            return;
        };
        let (entry, module) = (instance.entry, instance.module);
        self.change_account(entry, |bills, function, group, now| {
            let due = bills.leave_code(module, entry, now);
            let accounts = bills.accounts(function, group);
            accounts.for_each(|account| account.bill.held = sum(&account.bill.held, &due));
        });
    }

    /// Puts on the bill for how long the instance was leased since that was last asked: before its charge changes.
    pub(crate) fn settle_lease(&mut self, id: InstanceId<H>, slots: &mut impl Slots<H>) {
        if self.bills.is_none() {
            return;
        }
        let Some(instance) = self.instances.get(id) else {
            return;
        };
        let home = &self.entries[instance.entry].handle;
        let nanos = slots.leased_nanos(home, instance.seat(), self.now);
        let leased = over_time(&instance.charge.amounts(), nanos);
        self.bill(instance.entry, |bill| {
            bill.leased = sum(&bill.leased, &leased);
        });
    }

    /// All bills as of now; `None` if none are kept. Looks at each instance, group and function.
    pub fn bills(&mut self, slots: &mut impl Slots<H>) -> Option<AllBills<H>> {
        let now = self.now;
        for id in self.instances.ids() {
            self.settle_lease(id, slots);
        }
        let bills = self.bills.as_mut()?;
        let due: Vec<_> = bills.settle_code(now).collect();
        for (entry, due) in due {
            self.change_account(entry, |bills, function, group, _| {
                let accounts = bills.accounts(function, group);
                accounts.for_each(|account| account.bill.held = sum(&account.bill.held, &due));
            });
        }
        let bills = self.bills.as_mut()?;
        (bills.groups.values_mut()).for_each(|account| account.settle(now));
        (bills.functions.values_mut()).for_each(|account| account.settle(now));
        let groups = bills.groups.iter();
        let functions = bills.functions.iter();
        Some(AllBills {
            groups: groups.map(|(g, a)| (g.clone(), a.bill.clone())).collect(),
            other_groups: bills.other_groups.clone(),
            functions: functions.map(|(f, a)| (*f, a.bill.clone())).collect(),
            other_functions: bills.other_functions.clone(),
            charged: *self.ledger.charged_over_time(),
        })
    }
}
