//! Types of imports: what modules ask for beside what the host has.

use wasmparser::{
    AbstractHeapType as Abstract, FuncType, HeapType as Declared, MemoryType, TableType, TypeRef,
    ValType as DeclaredValue,
};
use wasmtime::{Finality, HeapType, Val, ValType};

/// Pages of wasm.
pub(super) const PAGE: u64 = 64 << 10;

/// Whether the value is in a store, and so cannot be in others.
pub(crate) fn is_of_a_store(value: &Val) -> bool {
    match value {
        Val::FuncRef(reference) => reference.is_some(),
        Val::ExternRef(reference) => reference.is_some(),
        Val::AnyRef(reference) => reference.is_some(),
        Val::ExnRef(reference) => reference.is_some(),
        Val::ContRef(reference) => reference.is_some(),
        Val::I32(_) | Val::I64(_) | Val::F32(_) | Val::F64(_) | Val::V128(_) => false,
    }
}

/// The type of what a module imports twice under the same names: it must be of both.
pub(super) fn both(before: Option<TypeRef>, ty: TypeRef) -> Option<TypeRef> {
    let most = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
    let ty = match (before, ty) {
        (None, ty) => return Some(ty),
        (Some(TypeRef::Memory(one)), TypeRef::Memory(other)) if one.memory64 == other.memory64 => {
            TypeRef::Memory(MemoryType {
                initial: one.initial.max(other.initial),
                maximum: most(one.maximum, other.maximum),
                ..one
            })
        }
        (Some(TypeRef::Table(one)), TypeRef::Table(other))
            if one.table64 == other.table64 && one.element_type == other.element_type =>
        {
            TypeRef::Table(TableType {
                initial: one.initial.max(other.initial),
                maximum: most(one.maximum, other.maximum),
                ..one
            })
        }
        (Some(before), ty) => (before == ty).then_some(ty)?,
    };
    is_possible(&ty).then_some(ty)
}

/// Whether something of this type can be made, be it only a small one.
pub(super) fn is_possible(ty: &TypeRef) -> bool {
    match ty {
        TypeRef::Memory(ty) => {
            let most = if ty.memory64 { 1 << 48 } else { 1 << 16 };
            ty.initial <= ty.maximum.unwrap_or(u64::MAX).min(most)
        }
        TypeRef::Table(ty) => {
            let most = if ty.table64 {
                u64::MAX
            } else {
                u64::from(u32::MAX)
            };
            ty.element_type.is_nullable() && ty.initial <= ty.maximum.unwrap_or(u64::MAX).min(most)
        }
        _ => true,
    }
}

/// Whether a global of the module's type can begin with this value. References are null.
pub(super) fn may_hold(declared: DeclaredValue, value: &Val) -> bool {
    let is_null_of = |tops: &[Abstract]| match declared {
        DeclaredValue::Ref(ty) if ty.is_nullable() => match ty.heap_type() {
            Declared::Abstract { ty, .. } => tops.contains(&ty),
            // Of a type of the module's own: wasmtime compares them for each instance.
            _ => true,
        },
        _ => false,
    };
    match value {
        Val::I32(_) => declared == DeclaredValue::I32,
        Val::I64(_) => declared == DeclaredValue::I64,
        Val::F32(_) => declared == DeclaredValue::F32,
        Val::F64(_) => declared == DeclaredValue::F64,
        Val::V128(_) => declared == DeclaredValue::V128,
        Val::FuncRef(_) => is_null_of(&[Abstract::Func, Abstract::NoFunc]),
        Val::ExternRef(_) => is_null_of(&[Abstract::Extern, Abstract::NoExtern]),
        Val::AnyRef(_) => is_null_of(&[
            Abstract::Any,
            Abstract::Eq,
            Abstract::I31,
            Abstract::Struct,
            Abstract::Array,
            Abstract::None,
        ]),
        Val::ExnRef(_) => is_null_of(&[Abstract::Exn, Abstract::NoExn]),
        Val::ContRef(_) => is_null_of(&[Abstract::Cont, Abstract::NoCont]),
    }
}

pub(super) fn value_name(value: &Val) -> &'static str {
    match value {
        Val::I32(_) => "i32",
        Val::I64(_) => "i64",
        Val::F32(_) => "f32",
        Val::F64(_) => "f64",
        Val::V128(_) => "v128",
        Val::FuncRef(_) => "funcref",
        Val::ExternRef(_) => "externref",
        Val::AnyRef(_) => "anyref",
        Val::ExnRef(_) => "exnref",
        Val::ContRef(_) => "contref",
    }
}

/// Whether the host's function can be of the declared type. Function types are compared by identity:
/// one that stands alone is the same as any other that stands alone and has the same structure.
pub(super) fn may_be(declared: &FuncType, host: &wasmtime::FuncType) -> bool {
    let plain = host.finality() == Finality::Final && host.supertype().is_none();
    let all = |declared: &[DeclaredValue], host: &mut dyn ExactSizeIterator<Item = ValType>| {
        declared.len() == host.len() && declared.iter().zip(host).all(|(d, h)| may_be_value(*d, &h))
    };
    !plain
        || all(declared.params(), &mut host.params())
            && all(declared.results(), &mut host.results())
}

/// Whether a type of the module can be the same as one of the host's.
fn may_be_value(declared: DeclaredValue, host: &ValType) -> bool {
    match (declared, host) {
        (DeclaredValue::I32, ValType::I32)
        | (DeclaredValue::I64, ValType::I64)
        | (DeclaredValue::F32, ValType::F32)
        | (DeclaredValue::F64, ValType::F64)
        | (DeclaredValue::V128, ValType::V128) => true,
        (DeclaredValue::Ref(declared), ValType::Ref(host)) => {
            declared.is_nullable() == host.is_nullable()
                && may_be_heap(declared.heap_type(), host.heap_type())
        }
        _ => false,
    }
}

fn may_be_heap(declared: Declared, host: &HeapType) -> bool {
    let Declared::Abstract { ty, .. } = declared else {
        // A type of the module's own: the host's must be one as well.
        return host.is_concrete();
    };
    match ty {
        Abstract::Func => matches!(host, HeapType::Func),
        Abstract::NoFunc => matches!(host, HeapType::NoFunc),
        Abstract::Extern => matches!(host, HeapType::Extern),
        Abstract::NoExtern => matches!(host, HeapType::NoExtern),
        Abstract::Any => matches!(host, HeapType::Any),
        Abstract::Eq => matches!(host, HeapType::Eq),
        Abstract::I31 => matches!(host, HeapType::I31),
        Abstract::Struct => matches!(host, HeapType::Struct),
        Abstract::Array => matches!(host, HeapType::Array),
        Abstract::None => matches!(host, HeapType::None),
        _ => true,
    }
}

pub(super) fn describe_memory(ty: &MemoryType) -> String {
    let index = if ty.memory64 { "64-bit " } else { "" };
    let bytes = |pages: u64| u128::from(pages) * u128::from(PAGE);
    let least = bytes(ty.initial);
    match ty.maximum {
        Some(pages) => format!("{index}memory of {least} to {} bytes", bytes(pages)),
        None => format!("{index}memory of {least} bytes or more"),
    }
}

pub(super) fn describe_table(ty: &TableType) -> String {
    let index = if ty.table64 { "64-bit " } else { "" };
    let (element, least) = (ty.element_type, ty.initial);
    match ty.maximum {
        Some(most) => format!("{index}table of {least} to {most} {element}"),
        None => format!("{index}table of {least} {element} or more"),
    }
}

pub(super) fn describe_global(ty: &wasmparser::GlobalType) -> String {
    let mutable = if ty.mutable { "mutable " } else { "" };
    format!("{mutable}global {}", ty.content_type)
}
