//! What an instance may spend on fiber stacks.
//!
//! Wasmtime asks for a stack without saying for which store. So whoever polls a store's future says
//! whose purse is open meanwhile.

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::Mutex;

use super::meter::GrowthAccount;
use crate::state::Amounts;

/// One instance's.
pub(crate) struct Purse(Mutex<Contents>);

struct Contents {
    /// Stacks that are charged: those that exist, and always one.
    charged: u32,
    exist: u32,
    /// What one takes.
    stack: Amounts,
    account: Arc<dyn GrowthAccount>,
}

/// A store wanted a second stack (a host function that calls its guest again as a task), and the
/// budget has no room.
#[derive(Debug, thiserror::Error)]
#[error("the stack budget has no room for another stack of this instance")]
pub(crate) struct NoStack;

thread_local! {
    static OPEN: RefCell<Option<Arc<Purse>>> = const { RefCell::new(None) };
}

/// Closes the purse when it goes, and opens the one that was open before.
pub(crate) struct Opened(Option<Arc<Purse>>);

impl Purse {
    /// With one stack charged already.
    pub fn new(stack: Amounts, account: Arc<dyn GrowthAccount>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Contents {
            charged: 1,
            exist: 0,
            stack,
            account,
        })))
    }

    /// The instance is another account's from now on.
    pub fn settle(&self, account: Arc<dyn GrowthAccount>) {
        self.0.lock().account = account;
    }

    /// Stacks made on this thread are this instance's, until the guard goes.
    pub fn open(self: &Arc<Self>) -> Opened {
        Opened(OPEN.with(|open| open.borrow_mut().replace(self.clone())))
    }

    pub fn current() -> Option<Arc<Self>> {
        OPEN.with(|open| open.borrow().clone())
    }

    /// A stack is about to be made.
    pub fn spend(&self) -> Result<(), NoStack> {
        let (stack, account) = {
            let mut purse = self.0.lock();
            if purse.exist < purse.charged {
                purse.exist += 1;
                return Ok(());
            }
            (purse.stack, purse.account.clone())
        };
        // The pool's lock is taken in there: not within this one.
        if !account.charge(stack) {
            return Err(NoStack);
        }
        let mut purse = self.0.lock();
        purse.charged += 1;
        purse.exist += 1;
        Ok(())
    }

    /// A stack is gone. One stays charged for the next call.
    pub fn put_back(&self) {
        let (stack, account) = {
            let mut purse = self.0.lock();
            purse.exist -= 1;
            if purse.charged == 1 {
                return;
            }
            purse.charged -= 1;
            (purse.stack, purse.account.clone())
        };
        account.refund(stack);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        OPEN.with(|open| *open.borrow_mut() = self.0.take());
    }
}
