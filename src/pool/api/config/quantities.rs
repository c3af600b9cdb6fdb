//! Values of a configuration that serde reads and writes by the rules of [`units`](super::units).

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units::{COUNT, COUNT_LIMIT, Rules, SIZE, SIZE_LIMIT, Spelled, TIME, TIMEOUT};

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub u64);

/// Bytes, or no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SizeLimit(pub Option<u64>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub u64);

impl Count {
    /// What is more is no limit.
    pub fn few(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

/// A count, or no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountLimit(pub Option<u64>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time(pub Duration);

/// A time, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeout(pub Option<Duration>);

/// What is written by some rules.
pub(crate) trait Quantity: Sized {
    const RULES: Rules;

    /// Amounts are in bytes, nanoseconds or pieces, and never more than the rules allow.
    fn of(amount: Option<u128>) -> Self;
}

/// What a quantity holds.
trait Amount {
    fn of(amount: Option<u128>) -> Self;

    fn amount(&self) -> Option<u128>;
}

impl Amount for u64 {
    fn of(amount: Option<u128>) -> Self {
        u64::try_from(amount.unwrap_or_default()).unwrap_or(u64::MAX)
    }

    fn amount(&self) -> Option<u128> {
        Some((*self).into())
    }
}

impl Amount for Duration {
    fn of(amount: Option<u128>) -> Self {
        let nanos = amount.unwrap_or_default();
        let subsec = u32::try_from(nanos % 1_000_000_000).unwrap_or_default();
        Duration::new(u64::of(Some(nanos / 1_000_000_000)), subsec)
    }

    fn amount(&self) -> Option<u128> {
        Some(self.as_nanos())
    }
}

impl<A: Amount> Amount for Option<A> {
    fn of(amount: Option<u128>) -> Self {
        amount.map(|amount| A::of(Some(amount)))
    }

    fn amount(&self) -> Option<u128> {
        self.as_ref().and_then(A::amount)
    }
}

macro_rules! quantity {
    ($ty:ident, $rules:expr) => {
        impl Quantity for $ty {
            const RULES: Rules = $rules;

            fn of(amount: Option<u128>) -> Self {
                Self(Amount::of(amount))
            }
        }

        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match (self.0.amount(), Self::RULES.units) {
                    (Some(count), [("", 1)]) => serializer.serialize_u64(u64::of(Some(count))),
                    (amount, _) => serializer.collect_str(&Spelled(&Self::RULES, amount)),
                }
            }
        }

        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(Read(PhantomData))
            }
        }
    };
}

quantity!(Size, SIZE);
quantity!(SizeLimit, SIZE_LIMIT);
quantity!(Count, COUNT);
quantity!(CountLimit, COUNT_LIMIT);
quantity!(Time, TIME);
quantity!(Timeout, TIMEOUT);

struct Read<Q>(PhantomData<Q>);

impl<Q: Quantity> Visitor<'_> for Read<Q> {
    type Value = Q;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Q::RULES.what, Q::RULES.allowed)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Q, E> {
        self.visit_i128(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Q, E> {
        self.visit_i128(number.into())
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Q, E> {
        Q::RULES.read_number(number).map(Q::of).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Q, E> {
        Q::RULES.read(text).map(Q::of).map_err(E::custom)
    }
}

/// A field of a plain type that is read and written as the quantity `Q`:
/// `#[serde(with = "Field::<Size>")]`.
pub(crate) struct Field<Q>(PhantomData<Q>);

impl<Q: Quantity> Field<Q> {
    pub fn deserialize<'de, V, D>(from: D) -> Result<Option<V>, D::Error>
    where
        D: Deserializer<'de>,
        Q: Deserialize<'de> + Into<V>,
    {
        Ok(Option::<Q>::deserialize(from)?.map(Q::into))
    }

    pub fn serialize<V, S>(value: &Option<V>, serializer: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        V: Copy + Into<Q>,
        Q: Serialize,
    {
        value.map(V::into).serialize(serializer)
    }
}

macro_rules! plain {
    ($ty:ident, $plain:ty) => {
        impl From<$ty> for $plain {
            fn from(value: $ty) -> Self {
                value.0
            }
        }

        impl From<$plain> for $ty {
            fn from(value: $plain) -> Self {
                Self(value)
            }
        }
    };
}

plain!(Size, u64);
plain!(Count, u64);
plain!(Time, Duration);
