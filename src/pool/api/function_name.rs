//! Which function: a name and argument types, as two things. Tenants choose both.

use std::sync::Arc;

/// Which of a pool's functions: a name alone (all its overloads), or with argument types.
///
/// Made from both, or from one text. In a text, as in an argument type, spaces matter only between two
/// words: `math.add(bigint,bigint)` is `math.add(bigint, bigint)`.
///
/// ```
/// # use wasm_pool::{Definition, Function, Pool};
/// # let pool = Pool::builder().build()?;
/// # let wasm = wat::parse_str(r#"(module (func (export "sum") (param i64 i64) (result i64)
/// #     local.get 0 local.get 1 i64.add))"#)?;
/// let sum = Definition::new("sum").args(["int", "decimal(10, 2)"]).wasm(wasm);
/// pool.define::<(i64, i64), i64>(sum)?;
///
/// let by_name: Function = pool.function("sum")?;
/// let by_both: Function = pool.function(("sum", ["int", "decimal(10,2)"]))?;
/// let by_text: Function = pool.function("sum(int, decimal(10, 2))")?;
/// assert_eq!(by_both.name(), "sum");
/// assert_eq!(by_both.signature(), "sum(int, decimal(10, 2))");
/// # assert_eq!(by_name.signature(), by_both.signature());
/// # assert_eq!(by_text.signature(), by_both.signature());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionName {
    /// For errors.
    given: String,
    /// Name, and argument types if they were given; `None` if no function can be called so.
    parts: Option<(String, Option<Arc<str>>)>,
}

/// Why a function cannot have this name, or these argument types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Its name.
    #[error("the name {0}")]
    Name(TextError),
    /// One of its argument types.
    #[error("the type of argument {position} {problem}")]
    Argument {
        /// Which, from 1.
        position: usize,
        /// What is wrong with it.
        problem: TextError,
    },
    /// All argument types together.
    #[error("its argument types take {bytes} bytes, and may take {max}")]
    ArgumentsTooLong {
        /// Bytes that they take, separated by a comma and a space.
        bytes: usize,
        /// Bytes that they may take.
        max: usize,
    },
}

/// What is wrong with a name or an argument type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
    /// It is longer than names are.
    #[error("has {bytes} bytes, and may have {max}")]
    TooLong {
        /// Bytes that it has.
        bytes: usize,
        /// Bytes that it may have.
        max: usize,
    },
    /// A character that could be mistaken: a control character; in a name also white space, a
    /// parenthesis or a comma.
    #[error("contains {0:?}")]
    Character(char),
    /// A bracket is not closed, or closes nothing.
    #[error("has brackets that do not match")]
    Brackets,
    /// A comma outside of brackets: these are several types.
    #[error("has a comma outside of brackets, as if it were several types")]
    Comma,
}

/// Bytes of a name, or of one argument type.
const LONGEST: usize = 512;
/// Bytes of all argument types together.
const LONGEST_ARGUMENTS: usize = 8 << 10;

impl FunctionName {
    /// As it was given.
    pub(crate) fn given(&self) -> &str {
        &self.given
    }

    /// Its name, and its argument types if they were given; `None` if no function has such a name.
    pub(crate) fn parts(&self) -> Option<(&str, Option<&str>)> {
        let (name, arguments) = self.parts.as_ref()?;
        Some((name, arguments.as_deref()))
    }

    fn of_text(given: &str) -> Self {
        let text = given.trim();
        let parts = match text.split_once('(') {
            None => Some((text.to_owned(), None)),
            Some((name, rest)) => rest.strip_suffix(')').and_then(|types| {
                let types = split(types)?;
                Some((name.trim_end().to_owned(), Some(join(&types).ok()?)))
            }),
        };
        let given = given.to_owned();
        Self { given, parts }
    }
}

impl From<&str> for FunctionName {
    fn from(text: &str) -> Self {
        Self::of_text(text)
    }
}

impl From<&String> for FunctionName {
    fn from(text: &String) -> Self {
        Self::of_text(text)
    }
}

impl From<String> for FunctionName {
    fn from(text: String) -> Self {
        Self::of_text(&text)
    }
}

impl<N, A> From<(N, A)> for FunctionName
where
    N: AsRef<str>,
    A: IntoIterator,
    A::Item: AsRef<str>,
{
    fn from((name, types): (N, A)) -> Self {
        let name = name.as_ref();
        let types: Vec<_> = types.into_iter().map(|t| t.as_ref().to_owned()).collect();
        let arguments = join(&types).ok();
        Self {
            given: format!("{name}({})", types.join(", ")),
            parts: arguments.map(|arguments| (name.to_owned(), Some(arguments))),
        }
    }
}

/// The name in a signature: what stands before its argument types. No name has a parenthesis in it.
pub(crate) fn name_of(signature: &str) -> &str {
    signature.split('(').next().unwrap_or(signature)
}

/// Nothing in a name can be taken for argument types, or for another name that looks the same.
pub(crate) fn check_name(name: &str) -> Result<(), NameError> {
    let may_not_be = |c: &char| c.is_control() || c.is_whitespace() || matches!(c, '(' | ')' | ',');
    check_length(name)
        .and_then(|()| match name.chars().find(may_not_be) {
            Some(found) => Err(TextError::Character(found)),
            None => Ok(()),
        })
        .map_err(NameError::Name)
}

/// The types as one text: which types they were can be read from it, since no type has a comma outside
/// of brackets.
pub(crate) fn join<S: AsRef<str>>(types: &[S]) -> Result<Arc<str>, NameError> {
    let mut joined = String::new();
    for (index, text) in types.iter().enumerate() {
        let in_position = |problem| NameError::Argument {
            position: index + 1,
            problem,
        };
        if index > 0 {
            joined.push_str(", ");
        }
        joined.push_str(&argument_type(text.as_ref()).map_err(in_position)?);
    }
    match joined.len() {
        ..=LONGEST_ARGUMENTS => Ok(joined.into()),
        bytes => Err(NameError::ArgumentsTooLong {
            bytes,
            max: LONGEST_ARGUMENTS,
        }),
    }
}

/// The type as all spell it: one space between two words, after each comma, and between a bracket that
/// closes and a word; and nowhere else.
fn argument_type(text: &str) -> Result<String, TextError> {
    check_length(text)?;
    if let Some(found) = text.chars().find(|c| c.is_control() && !c.is_whitespace()) {
        return Err(TextError::Character(found));
    }
    let mut spelled = String::with_capacity(text.len());
    let mut open = Vec::new();
    let mut space = false;
    for c in text.chars() {
        if c.is_whitespace() {
            space = true;
            continue;
        }
        match c {
            '(' | '<' | '[' => open.push(closing(c)),
            ')' | '>' | ']' if open.pop() != Some(c) => return Err(TextError::Brackets),
            ',' if open.is_empty() => return Err(TextError::Comma),
            _ => {}
        }
        let apart = match spelled.chars().last() {
            Some(',') => true,
            Some(')' | '>' | ']') => is_of_a_word(c),
            Some(before) => space && is_of_a_word(before) && is_of_a_word(c),
            None => false,
        };
        if apart {
            spelled.push(' ');
        }
        spelled.push(c);
        space = false;
    }
    match (open.is_empty(), spelled.is_empty()) {
        (true, false) => Ok(spelled),
        (true, true) => Err(TextError::Empty),
        (false, _) => Err(TextError::Brackets),
    }
}

fn check_length(text: &str) -> Result<(), TextError> {
    match text.len() {
        0 => Err(TextError::Empty),
        1..=LONGEST => Ok(()),
        bytes => Err(TextError::TooLong {
            bytes,
            max: LONGEST,
        }),
    }
}

fn closing(bracket: char) -> char {
    match bracket {
        '(' => ')',
        '<' => '>',
        _ => ']',
    }
}

/// All but brackets and commas: next to those, a space says nothing.
fn is_of_a_word(c: char) -> bool {
    !matches!(c, '(' | ')' | '<' | '>' | '[' | ']' | ',')
}

/// The types between the parentheses of a text; `None` if no types are spelled like this.
fn split(types: &str) -> Option<Vec<&str>> {
    if types.len() > 2 * LONGEST_ARGUMENTS {
        return None;
    }
    if types.trim().is_empty() {
        return Some(Vec::new());
    }
    let mut depth = 0_usize;
    let is_between = |c: char| {
        match c {
            '(' | '<' | '[' => depth += 1,
            ')' | '>' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    Some(types.split(is_between).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_spelled_in_one_way() {
        for (given, spelled) in [
            ("bigint", "bigint"),
            (" double \t precision ", "double precision"),
            ("decimal( 10,2 )", "decimal(10, 2)"),
            ("decimal (10 , 2)", "decimal(10, 2)"),
            (
                "map<text,frozen<list<int>>>",
                "map<text, frozen<list<int>>>",
            ),
            (
                "timestamp ( 3 )with time zone",
                "timestamp(3) with time zone",
            ),
            ("int [ ]", "int[]"),
        ] {
            let once = argument_type(given).unwrap();
            assert_eq!(once, spelled);
            assert_eq!(argument_type(&once).unwrap(), spelled, "it stays so");
        }
    }

    #[test]
    fn a_list_of_types_and_its_text_are_the_same() {
        let types = ["map<text, frozen<list<int>>>", "decimal(10, 2)", "int[]"];
        let text = join(&types).unwrap();
        let again: Vec<_> = split(&text).unwrap().iter().map(|t| t.trim()).collect();
        assert_eq!(again, types);
    }

    #[test]
    fn what_could_be_several_types_is_none() {
        for (given, problem) in [
            ("a, b", TextError::Comma),
            ("", TextError::Empty),
            ("  ", TextError::Empty),
            ("a(b", TextError::Brackets),
            ("a)b", TextError::Brackets),
            ("a(b>", TextError::Brackets),
            ("a\0b", TextError::Character('\0')),
        ] {
            assert_eq!(argument_type(given).unwrap_err(), problem, "{given:?}");
        }
    }
}
