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
    /// Its bytes, filled up with zeros, and how many they are.
    Short([u8; SHORT], u8),
    Long(Arc<str>),
    Nobody,
}

/// A short name is hashed in words, and without its length: whoever finds something by a hash compares.
impl Hash for Repr {
    #[inline]
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        match self {
            Self::Id(id) => hasher.write_u64(*id),
            Self::Short(bytes, len) => {
                let (first, rest) = bytes.split_first_chunk().unwrap_or((&[0; 8], &[]));
                hasher.write_u64(u64::from_le_bytes(*first));
                if *len > 8 {
                    let ends = (rest.first_chunk(), rest.last_chunk());
                    let (second, last) = (ends.0.unwrap_or(&[0; 8]), ends.1.unwrap_or(&[0; 8]));
                    hasher.write_u64(u64::from_le_bytes(*second));
                    hasher.write_u64(u64::from_le_bytes(*last));
                }
            }
            Self::Long(name) => name.hash(hasher),
            Self::Nobody => {}
        }
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

/// In two or three moves of a fixed length, which may overlap: a name of any length is copied without a call.
#[inline]
fn short(name: &str) -> Option<Repr> {
    let (name, mut bytes) = (name.as_bytes(), [0; SHORT]);
    if name.len() > SHORT {
        return None;
    }
    if name.len() >= 8 {
        copy_ends::<8>(name, &mut bytes)?;
        if let (Some(place), Some(middle)) = (bytes.get_mut(8..16), name.get(8..16)) {
            place.copy_from_slice(middle);
        }
    } else if name.len() >= 4 {
        copy_ends::<4>(name, &mut bytes)?;
    } else {
        bytes
            .iter_mut()
            .zip(name)
            .for_each(|(to, from)| *to = *from);
    }
    Some(Repr::Short(bytes, u8::try_from(name.len()).ok()?))
}

/// The first `N` bytes, and the last.
#[inline(always)]
fn copy_ends<const N: usize>(name: &[u8], bytes: &mut [u8; SHORT]) -> Option<()> {
    *bytes.first_chunk_mut()? = *name.first_chunk::<N>()?;
    let last = bytes.get_mut(name.len() - N..)?.first_chunk_mut()?;
    *last = *name.last_chunk::<N>()?;
    Some(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;

    /// Counts what it is given.
    #[derive(Default)]
    struct Words(Vec<u64>);

    impl Hasher for Words {
        fn write(&mut self, _: &[u8]) {
            unreachable!("short names and numbers are hashed in words");
        }

        fn write_u64(&mut self, word: u64) {
            self.0.push(word);
        }

        fn finish(&self) -> u64 {
            0
        }
    }

    #[test]
    fn names_of_every_length_are_copied_whole_and_hashed_whole() {
        let name = "abcdefghijklmnopqrstuvwxyz";
        for len in 0..name.len() {
            let group = Group::from(&name[..len]);
            assert_eq!(group.name(), Some(&name[..len]));
            assert_eq!(format!("{group}"), name[..len]);
            for changed in 0..len.min(SHORT) {
                let mut other = name.as_bytes()[..len].to_vec();
                other[changed] = b'!';
                let other = Group::from(core::str::from_utf8(&other).expect("it is text"));
                assert_ne!(group, other);
                if len <= SHORT {
                    let words = [&group, &other].map(|group| {
                        let mut words = Words::default();
                        group.0.hash(&mut words);
                        words.0
                    });
                    assert_ne!(words[0], words[1], "{group} {other}");
                }
            }
        }
    }
}
