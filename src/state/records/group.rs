//! On whose behalf a call runs.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

/// The scheduling group, tenant or role on whose behalf a call runs. Instances are never shared
/// across groups.
///
/// A group is a number or a name (or [`Group::NOBODY`]); the two never collide. Numbers and names of up to 22 bytes cost
/// nothing to copy; a longer name is shared text, allocated when it is made from a `&str`.
///
/// ```
/// use wasm_pool::Group;
/// assert_ne!(Group::from(7), Group::from("7"));
/// assert_eq!(Group::from("reports").to_string(), "reports");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(Repr);

/// Bytes of a name that is kept in place: as many as fit beside its length in three words.
const SHORT: usize = 22;

/// A short name is never kept as a long one: so equal names are equal in every way.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Id(u64),
    /// Its bytes, filled up with zeros, and how many they are.
    Short([u8; SHORT], u8),
    Long(Arc<str>),
    Nobody,
}

impl Default for Group {
    /// The group of a host that has only one: number 0.
    fn default() -> Self {
        Self::from(0)
    }
}

impl Group {
    /// No group: in errors about what is done on nobody's behalf, such as
    /// [`Pool::prepare`](crate::Pool::prepare). It has neither a number nor a name, so that no other is equal to
    /// it.
    pub const NOBODY: Self = Self(Repr::Nobody);

    /// Its number, if it is one.
    pub fn number(&self) -> Option<u64> {
        match self.0 {
            Repr::Id(id) => Some(id),
            _ => None,
        }
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Repr::Id(_) | Repr::Nobody => None,
            Repr::Short(bytes, len) => {
                let name = bytes.get(..usize::from(*len)).unwrap_or_default();
                core::str::from_utf8(name).ok()
            }
            Repr::Long(name) => Some(name),
        }
    }
}

impl From<u64> for Group {
    fn from(id: u64) -> Self {
        Self(Repr::Id(id))
    }
}

impl From<&str> for Group {
    fn from(name: &str) -> Self {
        Self(short(name).unwrap_or_else(|| Repr::Long(name.into())))
    }
}

impl From<String> for Group {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<&String> for Group {
    fn from(name: &String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<Arc<str>> for Group {
    fn from(name: Arc<str>) -> Self {
        Self(short(&name).unwrap_or(Repr::Long(name)))
    }
}

fn short(name: &str) -> Option<Repr> {
    let mut bytes = [0; SHORT];
    bytes
        .get_mut(..name.len())?
        .copy_from_slice(name.as_bytes());
    Some(Repr::Short(bytes, u8::try_from(name.len()).ok()?))
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
            Repr::Short(bytes, len) => {
                let name = bytes.get(..usize::from(*len)).unwrap_or_default();
                f.write_str(core::str::from_utf8(name).unwrap_or_default())
            }
            Repr::Long(name) => f.write_str(name),
            Repr::Nobody => f.write_str("nobody"),
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Id(id) => write!(f, "Group({id})"),
            Repr::Nobody => f.write_str("Group::NOBODY"),
            _ => write!(f, "Group({:?})", alloc::format!("{self}")),
        }
    }
}
