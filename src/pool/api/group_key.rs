//! Groups as keyed calls take them.

use std::fmt;
use std::sync::Arc;

use crate::pool::Pool;
use crate::pool::hot::entry_hash::group_hash;
use crate::state::{Group, GroupView};

/// A group with its hash: what [`Function::acquire`](crate::Function::acquire) and all others that name a group find
/// their instances by. [`Pool::group`] makes one.
///
/// It is for hosts that lease for the same groups again and again, by more functions than they want to resolve
/// ([`Function::in_group`](crate::Function::in_group)): a warm acquire by it does not look at the group's name, and costs as
/// much as one by a number.
///
/// A small `Copy` value (40 bytes), which no pool knows of: it costs nothing beside itself, however many are made, and
/// names the same group in every pool. It contains a number or a name of up to 22 bytes ([`Self::detached`]); a
/// longer name it borrows.
///
/// ```
/// # use wasm_pool::{Definition, Function, Group, Pool};
/// # let pool = Pool::builder().build()?;
/// # let wasm = wat::parse_str(r#"(module (func (export "f") (result i32) i32.const 3))"#)?;
/// let f: Function<(), i32> = pool.define(Definition::new("f").wasm(wasm))?;
/// let reports = pool.group("reports");
/// assert_eq!(f.call(reports, ())?, 3);
/// assert_eq!(f.call("reports", ())?, 3);       // the same group, and the same instance
/// assert_eq!(pool.stats().misses, 1);
/// assert_eq!(reports.to_group(), Group::from("reports"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct GroupKey<'a> {
    pub(crate) hash: u64,
    pub(crate) view: GroupView<'a>,
}

impl<T: Send + 'static> Pool<T> {
    /// A group with its hash, for calls that are made often: of a number, a name or a [`Group`], whose text it
    /// borrows if that is longer than 22 bytes. Takes no lock and allocates nothing.
    #[inline]
    pub fn group<'a>(&self, group: impl Into<GroupKey<'a>>) -> GroupKey<'a> {
        group.into()
    }
}

impl<'a> GroupKey<'a> {
    #[inline(always)]
    fn of(view: GroupView<'a>) -> Self {
        Self {
            hash: group_hash(view),
            view,
        }
    }

    /// The same key, borrowing nothing: to be kept beside the text that it was made of. `None` for a name that is
    /// longer than 22 bytes.
    pub fn detached(self) -> Option<GroupKey<'static>> {
        let view = match self.view {
            GroupView::Id(id) => GroupView::Id(id),
            GroupView::Short(words) => GroupView::Short(words),
            GroupView::Nobody => GroupView::Nobody,
            GroupView::Long(_) => return None,
        };
        let hash = self.hash;
        Some(GroupKey { hash, view })
    }

    /// The group. Allocates if its name is longer than 22 bytes.
    pub fn to_group(&self) -> Group {
        self.view.to_group()
    }
}

impl From<u64> for GroupKey<'_> {
    #[inline(always)]
    fn from(number: u64) -> Self {
        Self::of(GroupView::Id(number))
    }
}

impl<'a> From<&'a str> for GroupKey<'a> {
    #[inline]
    fn from(name: &'a str) -> Self {
        Self::of(GroupView::of_name(name))
    }
}

impl<'a> From<&'a String> for GroupKey<'a> {
    #[inline]
    fn from(name: &'a String) -> Self {
        Self::from(name.as_str())
    }
}

impl<'a> From<&'a Group> for GroupKey<'a> {
    #[inline]
    fn from(group: &'a Group) -> Self {
        Self::of(group.view())
    }
}

/// By the group: two that are equal are keys of the same group.
impl PartialEq for GroupKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.view == other.view
    }
}

impl Eq for GroupKey<'_> {}

impl fmt::Debug for GroupKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GroupKey").field(&self.to_group()).finish()
    }
}

/// What names a group in a call: a number, a name, a [`Group`], or a [`GroupKey`], whose hash is known.
///
/// A host that has a type of its own for its tenants or roles implements it for that type:
///
/// ```
/// use wasm_pool::{AsGroup, GroupKey};
///
/// struct Tenant {
///     name: String,
/// }
///
/// impl AsGroup for &Tenant {
///     fn key(&self) -> GroupKey<'_> {
///         GroupKey::from(&self.name)
///     }
/// }
/// ```
pub trait AsGroup {
    /// The group, with its hash. Called once for each call; what is borrowed is looked at until the call has its instance.
    fn key(&self) -> GroupKey<'_>;
}

impl AsGroup for GroupKey<'_> {
    #[inline(always)]
    fn key(&self) -> GroupKey<'_> {
        *self
    }
}

impl AsGroup for u64 {
    #[inline(always)]
    fn key(&self) -> GroupKey<'_> {
        GroupKey::from(*self)
    }
}

/// For a type that names a group by what it borrows.
macro_rules! as_group {
    ($($ty:ty: $self:ident => $borrowed:expr;)+) => {
        $(impl AsGroup for $ty {
            #[inline]
            fn key(&$self) -> GroupKey<'_> {
                GroupKey::from($borrowed)
            }
        })+
    };
}

as_group! {
    &str: self => *self;
    String: self => self;
    &String: self => *self;
    Arc<str>: self => &**self;
    Group: self => self;
    &Group: self => *self;
}
