//! What an instance may spend on fiber stacks.
//!
//! Wasmtime asks for a stack without saying for which store. So whoever polls a store's future opens its
//! instance's quota meanwhile, and new stacks are charged to the innermost that is open on the thread. A
//! quota also knows where its stacks lie: whoever runs on one while it is open can tell what is left of it.

use std::cell::RefCell;
use std::mem::{self, ManuallyDrop};
use std::sync::Arc;

use super::meter::GrowthAccount;
use super::stack::{self, StackBounds};
use super::stack_area::StackArea;
use crate::state::Amounts;
use crate::sync::{Mutex, thread_local};

/// One instance's.
pub(crate) struct StackQuota(Mutex<Contents>);

struct Contents {
    /// Stacks that are charged: those that exist, and always one.
    charged: u32,
    exist: u32,
    /// Where those lie.
    stacks: Vec<StackBounds>,
    /// What one takes.
    stack: Amounts,
    /// Where others lie that were made ahead, as they were found to be.
    area: Option<StackArea>,
    account: Arc<dyn GrowthAccount>,
}

/// A store wanted a second stack (a host function that calls its guest again as a task), and the
/// budget has no room.
#[derive(Debug, thiserror::Error)]
#[error("the stack budget has no room for another stack of this instance")]
pub(crate) struct NoStack;

/// The quotas that are open on a thread: host functions of one instance call others.
struct Open {
    innermost: Option<Arc<StackQuota>>,
    /// Innermost last; allocates only while there are any.
    others: Vec<Arc<StackQuota>>,
}

impl Open {
    /// From the inside.
    fn iter(&self) -> impl Iterator<Item = &Arc<StackQuota>> {
        self.innermost.iter().chain(self.others.iter().rev())
    }
}

thread_local! {
    // Never dropped: it holds nothing when nothing is polled, and so it is there for the destructors of
    // the thread's other variables, which may call a guest.
    static OPEN: ManuallyDrop<RefCell<Open>> = const {
        ManuallyDrop::new(RefCell::new(Open { innermost: None, others: Vec::new() }))
    };
}

/// Closes the quota when it is dropped: the one before is the innermost again.
pub(crate) struct Opened {
    /// What was remembered of the stack then.
    stack: StackBounds,
}

impl StackQuota {
    /// With one stack charged already.
    pub(super) fn new(
        stack: Amounts,
        area: Option<StackArea>,
        account: Arc<dyn GrowthAccount>,
    ) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Contents {
            charged: 1,
            exist: 0,
            stacks: Vec::new(),
            stack,
            area,
            account,
        })))
    }

    /// The instance is another account's from now on.
    pub fn rebind(&self, account: Arc<dyn GrowthAccount>) {
        self.0.lock().account = account;
    }

    /// Stacks made on this thread are this instance's, until the guard goes.
    pub fn open(self: &Arc<Self>) -> Opened {
        OPEN.with(|open| {
            let mut open = open.borrow_mut();
            if let Some(outer) = open.innermost.replace(self.clone()) {
                open.others.push(outer);
            }
        });
        let stack = stack::remembered();
        Opened { stack }
    }

    /// Whose stacks are made on this thread.
    pub fn innermost() -> Option<Arc<Self>> {
        OPEN.with(|open| open.borrow().innermost.clone())
    }

    /// The stack that `here` is on, if it belongs to a quota that is open on this thread.
    pub fn open_stack(here: usize) -> Option<StackBounds> {
        let on = |stack_quota: &Arc<Self>| {
            let stack_quota = stack_quota.0.lock();
            let mut stacks = stack_quota.stacks.iter().copied();
            let own = stacks.find(|stack| stack.below(here).is_some());
            own.or_else(|| stack_quota.area?.stack_at(here))
        };
        OPEN.with(|open| open.borrow().iter().find_map(on))
    }

    /// The system refuses a stack that is charged: evicts some instances that are idle; whether there were any.
    pub fn relieve(&self, count: usize) -> bool {
        let account = self.0.lock().account.clone();
        account.relieve(count)
    }

    /// A stack is about to be made.
    pub fn spend(&self) -> Result<(), NoStack> {
        let (stack, account) = {
            let mut stack_quota = self.0.lock();
            if stack_quota.exist < stack_quota.charged {
                stack_quota.exist += 1;
                return Ok(());
            }
            (stack_quota.stack, stack_quota.account.clone())
        };
        // The pool's lock is taken in there: not within this one.
        if !account.charge(stack) {
            return Err(NoStack);
        }
        let mut stack_quota = self.0.lock();
        stack_quota.charged += 1;
        stack_quota.exist += 1;
        Ok(())
    }

    /// The stack that was charged exists, and lies here.
    pub fn made(&self, stack: StackBounds) {
        self.0.lock().stacks.push(stack);
    }

    /// The stack is about to go.
    pub fn ends(&self, ended: StackBounds) {
        stack::forget(ended);
        self.0.lock().stacks.retain(|stack| *stack != ended);
    }

    /// A stack is gone. One stays charged for the next call.
    pub fn refund_stack(&self) {
        let (stack, account) = {
            let mut stack_quota = self.0.lock();
            stack_quota.exist -= 1;
            if stack_quota.charged == 1 {
                return;
            }
            stack_quota.charged -= 1;
            (stack_quota.stack, stack_quota.account.clone())
        };
        account.refund(stack);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let (closed, left) = OPEN.with(|open| {
            let mut open = open.borrow_mut();
            let outer = open.others.pop();
            let closed = mem::replace(&mut open.innermost, outer);
            let left = open.others.is_empty().then(|| mem::take(&mut open.others));
            (closed, left)
        });
        // The fiber may go on elsewhere, and its stack may end there.
        stack::remember(self.stack);
        drop((closed, left));
    }
}
