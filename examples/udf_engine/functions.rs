//! The catalogue of functions, and how an engine's values become a guest's: by the SQL types that
//! a function was created with, known only at run time.

use std::fmt;

use wasm_pool::{CallError, DefineError, Definition, Function, Lease, Pool};
use wasmtime::Val;

/// A value of the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Double(f64),
    Int(i32),
    Text(String),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Equal; doubles to twelve digits, since libraries differ in the last.
    pub fn agrees_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Double(a), Self::Double(b)) => {
                (a - b).abs() <= 1e-12 * a.abs().max(b.abs()).max(1e4)
            }
            _ => self == other,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Double(x) => write!(f, "{x}"),
            Self::Int(n) => write!(f, "{n}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// An SQL type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Double,
    Int,
    Text,
}

impl Type {
    const fn name(self) -> &'static str {
        match self {
            Self::Double => "double",
            Self::Int => "int",
            Self::Text => "text",
        }
    }
}

/// A function as the engine's catalogue has it: `CREATE FUNCTION name(args) RETURNS ...`.
#[derive(Debug, Clone, Copy)]
pub struct Udf {
    pub name: &'static str,
    args: &'static [Type],
    returns: Type,
    pub wasm: &'static [u8],
}

macro_rules! guest {
    ($file:literal) => {
        include_bytes!(concat!("../guests/prebuilt/", $file, ".wasm"))
    };
}

pub const HAVERSINE: Udf = Udf {
    name: "geo.haversine",
    args: &[Type::Double, Type::Double, Type::Double, Type::Double],
    returns: Type::Double,
    wasm: guest!("geo_haversine"),
};
pub const LEVENSHTEIN: Udf = Udf {
    name: "text.levenshtein",
    args: &[Type::Text, Type::Text],
    returns: Type::Int,
    wasm: guest!("text_levenshtein"),
};
pub const SOUNDEX: Udf = Udf {
    name: "text.soundex",
    args: &[Type::Text],
    returns: Type::Text,
    wasm: guest!("text_soundex"),
};
pub const SHA256: Udf = Udf {
    name: "hash.sha256",
    args: &[Type::Text],
    returns: Type::Text,
    wasm: guest!("hash_sha256"),
};
pub const EXTRACT: Udf = Udf {
    name: "json.extract",
    args: &[Type::Text, Type::Text],
    returns: Type::Text,
    wasm: guest!("json_extract"),
};
pub const MARKDOWN: Udf = Udf {
    name: "text.markdown",
    args: &[Type::Text],
    returns: Type::Text,
    wasm: guest!("text_markdown"),
};
pub const REGEX_MATCH: Udf = Udf {
    name: "text.regex_match",
    args: &[Type::Text, Type::Text],
    returns: Type::Int,
    wasm: guest!("text_regex_match"),
};

impl Udf {
    /// Defines the function in a pool. Its types are checked against the module's by the first
    /// call; nothing is compiled before that.
    pub fn define(&self, pool: &Pool) -> Result<Function, DefineError> {
        let definition = Definition::new(self.name)
            .args(self.args.iter().map(|ty| ty.name()))
            .wasm(self.wasm);
        pool.define(definition)
    }

    /// Calls a leased instance for one row. After an error the lease must not be used again:
    /// arguments may be left behind in the guest.
    pub fn call(&self, lease: &mut Lease<'_>, args: &[Value]) -> Result<Value, CallError> {
        // As in SQL: a function of NULL is NULL.
        if args.contains(&Value::Null) {
            return Ok(Value::Null);
        }
        let mut params = Vec::with_capacity(2 * args.len());
        for arg in args {
            match arg {
                Value::Double(x) => params.push(Val::from(*x)),
                Value::Int(n) => params.push(Val::from(*n)),
                Value::Text(text) => {
                    // The guest frees it.
                    let (pointer, length) = lease.pass_bytes(text.as_bytes())?.params();
                    params.extend([Val::from(pointer), Val::from(length)]);
                }
                Value::Null => {}
            }
        }
        let results = lease.call_values(&params)?;
        Ok(match (self.returns, &results[0]) {
            (Type::Double, Val::F64(bits)) => Value::Double(f64::from_bits(*bits)),
            (Type::Int, Val::I32(n)) => Value::Int(*n),
            (Type::Text, Val::I64(packed)) => match lease.take_string(*packed)? {
                Some(text) => Value::Text(text),
                None => Value::Null,
            },
            (returns, other) => {
                unreachable!("{} returned {other:?} for a {}", self.name, returns.name())
            }
        })
    }
}
