//! On whose behalf a call runs.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::hash::{Hash, Hasher};

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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Repr {
    Id(u64),
    /// Its bytes, filled up with zeros, and then how many they are.
    Short([u8; SHORT + 1]),
    Long(Arc<str>),
    Nobody,
}

/// A group as it is compared: a copy of a number or a short name, which fits into registers, or the text of a long
/// name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupView<'a> {
    Id(u64),
    /// Its bytes, filled up with zeros, and how many they are on top of the last word.
    Short([u64; 3]),
    Long(&'a str),
    Nobody,
}

const LENGTH_SHIFT: u32 = 48;

impl<'a> GroupView<'a> {
    /// Looks at each byte once, but for those of the text of a long name: at none.
    #[inline]
    pub fn of_name(name: &'a str) -> Self {
        let bytes = name.as_bytes();
        if bytes.len() > SHORT {
            return Self::Long(name);
        }
        let from = |start| word(bytes.get(start..).unwrap_or_default());
        let length = (bytes.len() as u64) << LENGTH_SHIFT;
        Self::Short([from(0), from(8), from(16) | length])
    }

    pub fn to_group(self) -> Group {
        Group(match self {
            Self::Id(id) => Repr::Id(id),
            Self::Short(words) => {
                let bytes = words.into_iter().flat_map(u64::to_le_bytes);
                let mut short = [0; SHORT + 1];
                short
                    .iter_mut()
                    .zip(bytes)
                    .for_each(|(to, from)| *to = from);
                Repr::Short(short)
            }
            Self::Long(name) => Repr::Long(name.into()),
            Self::Nobody => Repr::Nobody,
        })
    }
}

/// Up to eight bytes, filled up with zeros: in one or two moves of a fixed length, which may overlap.
#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    if let Some(eight) = bytes.first_chunk() {
        return u64::from_le_bytes(*eight);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk::<4>()) {
        let last = u64::from(u32::from_le_bytes(*last)) << (8 * (bytes.len() - 4));
        return u64::from(u32::from_le_bytes(*first)) | last;
    }
    let add = |word: u64, byte: &u8| word << 8 | u64::from(*byte);
    bytes.iter().rev().fold(0, add)
}

/// As [`GroupView::Short`] has them: the last word is of the last seven bytes, in place of the last eight.
#[inline(always)]
fn short_words(bytes: &[u8; SHORT + 1]) -> [u64; 3] {
    let word_at = |start| {
        let word = bytes.get(start..).and_then(<[u8]>::first_chunk);
        word.map_or(0, |word| u64::from_le_bytes(*word))
    };
    [word_at(0), word_at(8), word_at(15) >> 8]
}

impl Hash for Repr {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.view().hash(hasher);
    }
}

impl Repr {
    #[inline(always)]
    fn view(&self) -> GroupView<'_> {
        match self {
            Self::Id(id) => GroupView::Id(*id),
            Self::Short(bytes) => GroupView::Short(short_words(bytes)),
            Self::Long(name) => GroupView::Long(name),
            Self::Nobody => GroupView::Nobody,
        }
    }

    /// The bytes of a short name.
    fn short_name(bytes: &[u8; SHORT + 1]) -> &str {
        let [name @ .., len] = bytes;
        let name = name.get(..usize::from(*len)).unwrap_or_default();
        core::str::from_utf8(name).unwrap_or_default()
    }
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

    /// What it is compared by.
    #[inline(always)]
    pub(crate) fn view(&self) -> GroupView<'_> {
        self.0.view()
    }

    /// Whether it is this one. Where it is known what kind of group that is, nothing is asked but that.
    #[inline(always)]
    pub(crate) fn is(&self, group: GroupView<'_>) -> bool {
        match (&self.0, group) {
            (Repr::Id(own), GroupView::Id(id)) => *own == id,
            (Repr::Short(own), GroupView::Short(words)) => short_words(own) == words,
            (Repr::Long(own), GroupView::Long(name)) => **own == *name,
            (Repr::Nobody, GroupView::Nobody) => true,
            _ => false,
        }
    }

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
            Repr::Short(bytes) => Some(Repr::short_name(bytes)),
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
        GroupView::of_name(name).to_group()
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
        match GroupView::of_name(&name) {
            GroupView::Long(_) => Self(Repr::Long(name)),
            short => short.to_group(),
        }
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
            Repr::Short(bytes) => f.write_str(Repr::short_name(bytes)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn names_of_every_length_are_kept_whole_and_compared_whole() {
        let name = "abcdefghijklmnopqrstuvwxyz";
        for len in 0..name.len() {
            let group = Group::from(&name[..len]);
            assert_eq!(group.name(), Some(&name[..len]));
            assert_eq!(format!("{group}"), name[..len]);
            assert!(group.view() == GroupView::of_name(&name[..len]));
            assert!(group.is(group.view()));
            assert_eq!(group.view().to_group(), group);
            for changed in 0..len {
                let mut other = name.as_bytes()[..len].to_vec();
                other[changed] = b'!';
                let other = Group::from(core::str::from_utf8(&other).expect("it is text"));
                assert_ne!(group, other);
                assert!(!group.is(other.view()), "{group} {other}");
            }
            // Zeros fill up what is short: they are no part of a name, but where they are.
            let with_a_zero = format!("{group}\0");
            assert!(!group.is(Group::from(with_a_zero).view()));
        }
    }

    #[test]
    fn a_group_takes_three_words() {
        assert_eq!(size_of::<Group>(), 24);
    }
}
