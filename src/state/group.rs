//! On whose behalf a call runs.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

/// The scheduling group, tenant or role on whose behalf a call runs. Instances are never shared
/// across groups.
///
/// A group is a number or a name; the two never collide. Numbers cost nothing to copy; a name is
/// shared text, allocated when it is made from a `&str`.
///
/// ```
/// use wasm_pool::Group;
/// assert_ne!(Group::from(7), Group::from("7"));
/// assert_eq!(Group::from("reports").to_string(), "reports");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(Repr);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Id(u64),
    Name(Arc<str>),
}

impl Default for Group {
    /// The group of a host that has only one: number 0.
    fn default() -> Self {
        Self::from(0)
    }
}

impl From<u64> for Group {
    fn from(id: u64) -> Self {
        Self(Repr::Id(id))
    }
}

impl From<&str> for Group {
    fn from(name: &str) -> Self {
        Self(Repr::Name(name.into()))
    }
}

impl From<String> for Group {
    fn from(name: String) -> Self {
        Self(Repr::Name(name.into()))
    }
}

impl From<&String> for Group {
    fn from(name: &String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<Arc<str>> for Group {
    fn from(name: Arc<str>) -> Self {
        Self(Repr::Name(name))
    }
}

impl From<&Group> for Group {
    fn from(group: &Group) -> Self {
        group.clone()
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Id(id) => write!(f, "{id}"),
            Repr::Name(name) => f.write_str(name),
        }
    }
}
