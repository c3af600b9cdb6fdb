//! Whether an export has the type that the host wants, asked of wasmtime itself.

use wasmparser::{FuncType, ValType as Declared};
use wasmtime::{Engine, Func, HeapType, RefType, Store, ValType, WasmParams, WasmResults};

/// Whether a function of the declared type can be called as `P` → `R`. True when that can only be
/// known from the compiled module (types with references of its own).
pub(crate) fn matches_types<P: WasmParams, R: WasmResults>(
    engine: &Engine,
    declared: &FuncType,
) -> bool {
    let all = |types: &[Declared]| types.iter().map(value_type).collect::<Option<Vec<_>>>();
    let (Some(params), Some(results)) = (all(declared.params()), all(declared.results())) else {
        return true;
    };
    let mut store = Store::new(engine, ());
    let ty = wasmtime::FuncType::new(engine, params, results);
    let func = Func::new(&mut store, ty, |_, _, _| Ok(()));
    func.typed::<P, R>(&store).is_ok()
}

fn value_type(declared: &Declared) -> Option<ValType> {
    Some(match declared {
        Declared::I32 => ValType::I32,
        Declared::I64 => ValType::I64,
        Declared::F32 => ValType::F32,
        Declared::F64 => ValType::F64,
        Declared::V128 => ValType::V128,
        Declared::Ref(ty) => {
            let heap_type = match ty {
                ty if ty.is_func_ref() => HeapType::Func,
                ty if ty.is_extern_ref() => HeapType::Extern,
                _ => return None,
            };
            ValType::Ref(RefType::new(ty.is_nullable(), heap_type))
        }
    })
}
