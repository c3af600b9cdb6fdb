//! Who holds what, asked of the core.

use std::sync::Arc;

use crate::pool::api::holders::Holder;
use crate::pool::hot::entry::Entry;
use crate::pool::shared::{Shared, ShellTypes, State};
use crate::state::{self, Budget, Group, signature};

impl<T: Send + 'static> Shared<T> {
    /// The largest holders of each of these budgets, of one group if it is given. Under the lock: see `State::largest_holders` for its
    /// bound.
    pub(crate) fn holders(
        state: &State<T>,
        budgets: &[Budget],
        most: usize,
        of: Option<&Group>,
    ) -> Vec<Vec<Holder>> {
        let is_leased = |entry: &Arc<Entry<T>>, seat| entry.slot(seat).is_leased();
        let largest = state
            .largest_holders(budgets, most, of, is_leased)
            .into_iter();
        largest
            .map(|holdings| holdings.into_iter().map(holder).collect())
            .collect()
    }
}

fn holder<T: Send + 'static>(holding: state::Holding<ShellTypes<T>>) -> Holder {
    let (signature, group) = match holding.holder {
        state::Holder::Entry(entry) => (
            entry.target.signature.clone(),
            Some(entry.target.group.clone()),
        ),
        state::Holder::Code(name, arguments) => (signature(&name, &arguments).into(), None),
    };
    Holder {
        signature,
        group,
        leased: holding.leased,
        idle: holding.idle,
    }
}
