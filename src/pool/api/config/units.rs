//! Sizes, times and counts as people write them: one whole number, and a unit.

use std::fmt;

/// What may be written for something.
pub(crate) struct Rules {
    /// With its article, for errors.
    pub what: &'static str,
    /// For errors: what would be right.
    pub allowed: &'static str,
    /// How much each is. An empty one says that a number may stand alone.
    pub units: &'static [(&'static str, u128)],
    pub most: u128,
    /// The one word that says that there is none.
    pub none: Option<&'static str>,
}

/// Why a text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {what}: {problem}; {allowed}")]
pub(crate) struct UnitError {
    given: String,
    what: &'static str,
    problem: Problem,
    allowed: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("it is empty")]
    Empty,
    #[error("it is negative")]
    Negative,
    #[error("it has a fraction")]
    Fraction,
    #[error("it does not begin with a number")]
    NoNumber,
    #[error("it has no unit")]
    NoUnit,
    #[error("there is no unit {0:?}")]
    UnknownUnit(String),
    #[error("it is too much")]
    TooMuch,
}

impl Rules {
    /// How much a text says; `None` for the word that says that there is none.
    pub fn read(&self, given: &str) -> Result<Option<u128>, UnitError> {
        let text = given.trim();
        if Some(text) == self.none {
            return Ok(None);
        }
        let amount = self.amount(text).map_err(|problem| UnitError {
            given: given.chars().take(64).collect(),
            what: self.what,
            problem,
            allowed: self.allowed,
        })?;
        Ok(Some(amount))
    }

    fn amount(&self, text: &str) -> Result<u128, Problem> {
        let end = text.find(|c: char| !c.is_ascii_digit());
        let (number, rest) = text.split_at(end.unwrap_or(text.len()));
        if number.is_empty() {
            return Err(match text.chars().next() {
                None => Problem::Empty,
                Some('-') => Problem::Negative,
                Some('.') => Problem::Fraction,
                Some(_) => Problem::NoNumber,
            });
        }
        if rest.starts_with('.') {
            return Err(Problem::Fraction);
        }
        let unit = rest.trim_start();
        let known = self.units.iter().find(|(name, _)| *name == unit);
        let (_, each) = known.ok_or_else(|| match unit {
            "" => Problem::NoUnit,
            _ => Problem::UnknownUnit(unit.chars().take(16).collect()),
        })?;
        let number = number.parse().ok();
        let amount = number.and_then(|number: u128| number.checked_mul(*each));
        let amount = amount.filter(|amount| *amount <= self.most);
        amount.ok_or(Problem::TooMuch)
    }

    /// A number that stands alone.
    pub fn read_number(&self, number: i128) -> Result<Option<u128>, UnitError> {
        self.read(&number.to_string())
    }
}

/// An amount in the largest unit that it is a whole number of.
pub(crate) struct Spelled<'a>(pub &'a Rules, pub Option<u128>);

impl fmt::Display for Spelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rules, amount) = self;
        let Some(amount) = amount else {
            return f.write_str(rules.none.unwrap_or_default());
        };
        let fits = |(_, each): &&(&str, u128)| amount.is_multiple_of(*each);
        // Of two names of one unit, the first.
        let units = rules.units.iter().rev().filter(fits);
        let (unit, each) = match amount {
            0 => rules.units.first().copied().unwrap_or(("", 1)),
            _ => units
                .max_by_key(|(_, each)| each)
                .copied()
                .unwrap_or(("", 1)),
        };
        write!(f, "{}{unit}", amount / each)
    }
}

const KI: u128 = 1 << 10;
const K: u128 = 1000;

#[rustfmt::skip]
const BYTES: &[(&str, u128)] = &[
    ("", 1), ("B", 1),
    ("Ki", KI), ("Mi", KI * KI), ("Gi", KI * KI * KI), ("Ti", KI * KI * KI * KI), ("Pi", KI * KI * KI * KI * KI),
    ("KiB", KI), ("MiB", KI * KI), ("GiB", KI * KI * KI), ("TiB", KI * KI * KI * KI), ("PiB", KI * KI * KI * KI * KI),
    ("K", K), ("M", K * K), ("G", K * K * K), ("T", K * K * K * K), ("P", K * K * K * K * K),
    ("KB", K), ("MB", K * K), ("GB", K * K * K), ("TB", K * K * K * K), ("PB", K * K * K * K * K),
    ("k", K), ("kB", K),
];

/// Of nanoseconds.
const TIMES: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
    ("d", 24 * 3600 * SECOND),
];

const SECOND: u128 = 1_000_000_000;

const LONGEST: u128 = u64::MAX as u128 * SECOND + (SECOND - 1);

pub(crate) const SIZE: Rules = Rules {
    what: "a size",
    allowed: "a size is a whole number of bytes, or has one of the units B, K, M, G, T, P (thousands, \
        also KB and so on) and Ki, Mi, Gi, Ti, Pi (1024, also KiB and so on), and is less than 16384 Pi",
    units: BYTES,
    most: u64::MAX as u128,
    none: None,
};

pub(crate) const SIZE_LIMIT: Rules = Rules {
    what: "a limit",
    allowed: "a limit is \"unlimited\", or a whole number of bytes, or has one of the units B, K, M, G, T, P \
        (thousands, also KB and so on) and Ki, Mi, Gi, Ti, Pi (1024, also KiB and so on), and is less than 16384 Pi",
    none: Some("unlimited"),
    ..SIZE
};

pub(crate) const COUNT: Rules = Rules {
    what: "a count",
    allowed: "a count is a whole number",
    units: &[("", 1)],
    most: u64::MAX as u128,
    none: None,
};

pub(crate) const COUNT_LIMIT: Rules = Rules {
    what: "a limit",
    allowed: "a limit of these is a whole number, or \"unlimited\"",
    none: Some("unlimited"),
    ..COUNT
};

pub(crate) const TIME: Rules = Rules {
    what: "a time",
    allowed: "a time is a whole number with one of the units ns, us, ms, s, m, h, d, as in \"10ms\", and has at \
        most 18446744073709551615 seconds",
    units: TIMES,
    most: LONGEST,
    none: None,
};

pub(crate) const TIMEOUT: Rules = Rules {
    what: "a time",
    allowed: "a time is \"never\", or a whole number with one of the units ns, us, ms, s, m, h, d, as in \"10ms\", \
        and has at most 18446744073709551615 seconds",
    none: Some("never"),
    ..TIME
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_what_they_say() {
        for (rules, text, amount) in [
            (&SIZE, "0", 0),
            (&SIZE, "17", 17),
            (&SIZE, "17B", 17),
            (&SIZE, "512Mi", 512 << 20),
            (&SIZE, "1Gi", 1 << 30),
            (&SIZE, " 64 KiB ", 64 << 10),
            (&SIZE, "100MB", 100_000_000),
            (&SIZE, "3k", 3000),
            (&SIZE, "2P", 2_000_000_000_000_000),
            (&SIZE, "16383Pi", 16383 << 50),
            (&SIZE, "18446744073709551615", u64::MAX.into()),
            (&TIME, "1h", 3600 * SECOND),
            (&TIME, "30s", 30 * SECOND),
            (&TIME, "10ms", 10_000_000),
            (&TIME, "1d", 86_400 * SECOND),
            (&TIME, "3m", 180 * SECOND),
            (&TIME, "5 us", 5000),
            (&TIME, "5µs", 5000),
            (
                &TIME,
                "18446744073709551615s",
                u128::from(u64::MAX) * SECOND,
            ),
            (&COUNT, "65536", 65536),
        ] {
            assert_eq!(rules.read(text), Ok(Some(amount)), "{text}");
        }
        assert_eq!(SIZE_LIMIT.read("unlimited"), Ok(None));
        assert_eq!(TIMEOUT.read(" never"), Ok(None));
    }

    #[test]
    fn nonsense_says_why() {
        let unknown = |unit: &str| Problem::UnknownUnit(unit.into());
        for (rules, text, problem) in [
            (&SIZE, "", Problem::Empty),
            (&SIZE, "  ", Problem::Empty),
            (&SIZE, "-1", Problem::Negative),
            (&SIZE, "1.5Gi", Problem::Fraction),
            (&SIZE, ".5Gi", Problem::Fraction),
            (&SIZE, "Mi", Problem::NoNumber),
            (&SIZE, "+1", Problem::NoNumber),
            (&SIZE, "unlimited", Problem::NoNumber),
            (&SIZE, "1Mo", unknown("Mo")),
            (&SIZE, "1mi", unknown("mi")),
            (&SIZE, "1_000", unknown("_000")),
            (&SIZE, "1Ki2", unknown("Ki2")),
            (&SIZE, "16384Pi", Problem::TooMuch),
            (&SIZE, "18446744073709551616", Problem::TooMuch),
            (&SIZE, "9".repeat(99).as_str(), Problem::TooMuch),
            (&TIME, "30", Problem::NoUnit),
            (&TIME, "1h30m", unknown("h30m")),
            (&TIME, "1w", unknown("w")),
            (&TIME, "18446744073709551616s", Problem::TooMuch),
            (
                &TIME,
                "340282366920938463463374607431768211455d",
                Problem::TooMuch,
            ),
            (&TIME, "never", Problem::NoNumber),
            (&COUNT, "1Ki", unknown("Ki")),
        ] {
            let error = rules.read(text).unwrap_err();
            assert_eq!(error.problem, problem, "{text}");
            assert!(error.to_string().ends_with(rules.allowed), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_spelled_is_read_again(amount: u64, zeros in 0_u32..64) {
            for amount in [amount, amount << zeros, amount / 1000 * 1000] {
                let amount = Some(u128::from(amount));
                for rules in [&SIZE, &SIZE_LIMIT, &COUNT, &TIME, &TIMEOUT] {
                    let text = Spelled(rules, amount).to_string();
                    prop_assert_eq!(rules.read(&text), Ok(amount), "{}", text);
                }
            }
        }

        #[test]
        fn any_text_is_an_amount_or_an_error(text: String) {
            for rules in [&SIZE, &SIZE_LIMIT, &COUNT, &COUNT_LIMIT, &TIME, &TIMEOUT] {
                if let Ok(Some(amount)) = rules.read(&text) {
                    prop_assert!(amount <= rules.most);
                }
            }
        }
    }

    #[test]
    fn the_largest_unit_is_spelled() {
        for (rules, amount, text) in [
            (&SIZE, 0, "0"),
            (&SIZE, 512 << 20, "512Mi"),
            (&SIZE, 100_000_000, "100M"),
            (&SIZE, 1023, "1023"),
            (&TIME, 0, "0ns"),
            (&TIME, 86_400 * SECOND, "1d"),
            (&TIME, 1500 * 1_000_000, "1500ms"),
            (&TIME, 5000, "5us"),
            (&COUNT, 49_152, "49152"),
        ] {
            assert_eq!(Spelled(rules, Some(amount)).to_string(), text);
        }
        assert_eq!(Spelled(&TIMEOUT, None).to_string(), "never");
    }
}
