//! The wasm types of functions, as far as a host can read them.

use std::fmt;

use wasmparser::ValType as Declared;
use wasmtime::{Val, ValType};

use crate::pool::api::names::named;

/// Parameters and results of a function, as its module declares them.
///
/// ```
/// # use wasm_pool::{Definition, Function, FunctionType, Pool, ValueType};
/// # let pool = Pool::builder().build()?;
/// # let wasm = wat::parse_str(r#"(module (func (export "f") (param i32 i32) (result i64) i64.const 0))"#)?;
/// let f: Function = pool.define(Definition::new("f").args(["text"]).wasm(wasm))?;
/// let ty = f.ty();
/// assert_eq!(ty.to_string(), "(i32, i32) -> i64");
/// assert_eq!(ty, FunctionType::new([ValueType::I32, ValueType::I32], [ValueType::I64]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct FunctionType {
    /// What it takes.
    pub params: Vec<ValueType>,
    /// What it returns.
    pub results: Vec<ValueType>,
}

/// The type of a wasm value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ValueType {
    /// 32 bits of an integer, signed or not.
    I32,
    /// 64 bits of an integer, signed or not.
    I64,
    /// A floating-point number of 32 bits.
    F32,
    /// A floating-point number of 64 bits.
    F64,
    /// 128 bits of several numbers.
    V128,
    /// A reference to any function, or null.
    FuncRef,
    /// A reference to something of the host's, or null.
    ExternRef,
    /// Any other reference: of a type of the module's own, to what is collected, or never null.
    Reference,
}

impl ValueType {
    /// Every type.
    pub const ALL: [Self; 8] = [
        Self::I32,
        Self::I64,
        Self::F32,
        Self::F64,
        Self::V128,
        Self::FuncRef,
        Self::ExternRef,
        Self::Reference,
    ];

    /// The name that WebAssembly's text format has for it; `reference` for [`Self::Reference`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::V128 => "v128",
            Self::FuncRef => "funcref",
            Self::ExternRef => "externref",
            Self::Reference => "reference",
        }
    }

    /// The type of a value: the least that can be said of it without its store.
    pub fn of(value: &Val) -> Self {
        match value {
            Val::I32(_) => Self::I32,
            Val::I64(_) => Self::I64,
            Val::F32(_) => Self::F32,
            Val::F64(_) => Self::F64,
            Val::V128(_) => Self::V128,
            Val::FuncRef(_) => Self::FuncRef,
            Val::ExternRef(_) => Self::ExternRef,
            _ => Self::Reference,
        }
    }

    fn declared(ty: &Declared) -> Self {
        match ty {
            Declared::I32 => Self::I32,
            Declared::I64 => Self::I64,
            Declared::F32 => Self::F32,
            Declared::F64 => Self::F64,
            Declared::V128 => Self::V128,
            Declared::Ref(ty) if ty.is_nullable() && ty.is_func_ref() => Self::FuncRef,
            Declared::Ref(ty) if ty.is_nullable() && ty.is_extern_ref() => Self::ExternRef,
            Declared::Ref(_) => Self::Reference,
        }
    }

    fn compiled(ty: &ValType) -> Self {
        match ty {
            ValType::I32 => Self::I32,
            ValType::I64 => Self::I64,
            ValType::F32 => Self::F32,
            ValType::F64 => Self::F64,
            ValType::V128 => Self::V128,
            ValType::Ref(ty) if ty.is_nullable() && ty.heap_type().is_func() => Self::FuncRef,
            ValType::Ref(ty) if ty.is_nullable() && ty.heap_type().is_extern() => Self::ExternRef,
            ValType::Ref(_) => Self::Reference,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

named!(ValueType, "a value type");

impl FunctionType {
    /// From what it takes and what it returns.
    pub fn new(
        params: impl IntoIterator<Item = ValueType>,
        results: impl IntoIterator<Item = ValueType>,
    ) -> Self {
        Self {
            params: params.into_iter().collect(),
            results: results.into_iter().collect(),
        }
    }

    pub(crate) fn declared(ty: &wasmparser::FuncType) -> Self {
        let types = |types: &[Declared]| types.iter().map(ValueType::declared).collect();
        Self {
            params: types(ty.params()),
            results: types(ty.results()),
        }
    }
}

impl fmt::Display for FunctionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |types: &[ValueType]| {
            types
                .iter()
                .map(|ty| ty.name())
                .collect::<Vec<_>>()
                .join(", ")
        };
        write!(f, "({}) -> ", list(&self.params))?;
        match &self.results[..] {
            [one] => write!(f, "{one}"),
            all => write!(f, "({})", list(all)),
        }
    }
}

/// What a parameter takes, as far as a value can be checked against it without its store.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    ty: ValueType,
    nullable: bool,
}

impl Parameter {
    pub(crate) fn declared(ty: &Declared) -> Self {
        Self {
            ty: ValueType::declared(ty),
            nullable: matches!(ty, Declared::Ref(ty) if ty.is_nullable()),
        }
    }

    pub(crate) fn compiled(ty: &ValType) -> Self {
        Self {
            ty: ValueType::compiled(ty),
            nullable: matches!(ty, ValType::Ref(ty) if ty.is_nullable()),
        }
    }

    pub(crate) fn ty(self) -> ValueType {
        self.ty
    }

    fn takes(self, value: &Val) -> bool {
        let given = ValueType::of(value);
        match self.ty {
            ValueType::Reference => is_reference(given) && (self.nullable || !is_null(value)),
            expected => given == expected,
        }
    }
}

fn is_reference(ty: ValueType) -> bool {
    use ValueType::{ExternRef, FuncRef, Reference};
    matches!(ty, FuncRef | ExternRef | Reference)
}

fn is_null(value: &Val) -> bool {
    match value {
        Val::FuncRef(reference) => reference.is_none(),
        Val::ExternRef(reference) => reference.is_none(),
        Val::AnyRef(reference) => reference.is_none(),
        Val::ExnRef(reference) => reference.is_none(),
        Val::ContRef(reference) => reference.is_none(),
        _ => false,
    }
}

/// Why a function cannot be called with these values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentsError {
    /// They are more or less than it takes.
    #[error("it takes {expected} values, and was given {given}")]
    Count {
        /// How many it takes.
        expected: usize,
        /// How many there are.
        given: usize,
    },
    /// One of them is of another type.
    #[error("value {position} is {given}, and should be {expected}")]
    Type {
        /// Which, from 1.
        position: usize,
        /// What it should be.
        expected: ValueType,
        /// What it is.
        given: ValueType,
    },
    /// One of them is null.
    #[error("value {position} is null, and may not be")]
    Null {
        /// Which, from 1.
        position: usize,
    },
}

/// Whether values may be passed. References that are not null are not looked into: only their store knows
/// more.
pub(crate) fn check_values(
    params: impl ExactSizeIterator<Item = Parameter>,
    values: &[Val],
) -> Result<(), ArgumentsError> {
    if params.len() != values.len() {
        return Err(ArgumentsError::Count {
            expected: params.len(),
            given: values.len(),
        });
    }
    for (index, (param, value)) in params.zip(values).enumerate() {
        let (position, given) = (index + 1, ValueType::of(value));
        match param.takes(value) {
            true => {}
            false if is_reference(given) && param.ty == ValueType::Reference => {
                return Err(ArgumentsError::Null { position });
            }
            false => {
                return Err(ArgumentsError::Type {
                    position,
                    expected: param.ty,
                    given,
                });
            }
        }
    }
    Ok(())
}
