//! How fields are written with `serde` whose types cannot say it themselves.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::state::{Budget, PerBudget};

/// For shared text.
pub(crate) fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// For what is shared.
pub(crate) fn shared<V: Serialize, S: Serializer>(
    value: &Arc<V>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.serialize(serializer)
}

/// By budget.
pub(crate) fn by_budget<V: Serialize + Copy, S: Serializer>(
    values: &PerBudget<V>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(values.iter().map(|(budget, value)| (budget.name(), value)))
}

/// By budget, in the order of `Budget::ALL`.
pub(crate) fn in_order<V: Serialize, S: Serializer>(
    values: &[V],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(Budget::ALL.iter().map(|budget| budget.name()).zip(values))
}

/// By budget, of what is counted in nanoseconds: in seconds.
pub(crate) fn seconds_by_budget<S: Serializer>(
    values: &PerBudget<u128>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let seconds = |(budget, nanos): (Budget, u128)| (budget.name(), nanos as f64 / 1e9);
    serializer.collect_map(values.iter().map(seconds))
}
