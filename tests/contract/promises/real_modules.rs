//! Modules that others built for browsers, called for what they are for: see tests/real/README.md.

use wasm_pool::{Definition, Function, Imports, Lease, ManualClock, Pool, StoreData};
use wasmtime::{Caller, Linker, Memory, Val};

use crate::common::{check, check_empty, wat};

fn real(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/real/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn pool() -> Pool {
    let builder = Pool::builder().clock(ManualClock::new()).no_housekeeper();
    builder.build().unwrap()
}

/// What argon2-browser imports: `a.a` copies within its memory, `a.b` grows it, which it need not here.
fn argon2_imports(pool: &Pool) -> Imports {
    let add = |linker: &mut Linker<StoreData<()>>| {
        linker.func_wrap(
            "a",
            "a",
            |mut caller: Caller<'_, StoreData<()>>, to: i32, from: i32, count: i32| {
                let memory = caller
                    .get_export("c")
                    .and_then(|memory| memory.into_memory());
                let memory = memory.ok_or_else(|| wasmtime::Error::msg("no memory"))?;
                let [to, from, count] = [to, from, count].map(|n| n.cast_unsigned() as usize);
                memory
                    .data_mut(&mut caller)
                    .copy_within(from..from + count, to);
                wasmtime::Result::Ok(to as i32)
            },
        )?;
        linker.func_wrap("a", "b", |_: i32| 0_i32)?;
        Ok(())
    };
    pool.imports().functions(add).build().unwrap()
}

type Argon2 = (
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
);

/// Argon2id, version 1.3, two passes over 256 KiB, one lane.
fn argon2id(lease: &mut Lease<'_, Argon2, i32, ()>, password: &[u8], salt: &[u8]) -> Vec<u8> {
    const LENGTH: usize = 32;
    let instance = lease.instance();
    let memory: Memory = instance.get_memory(lease.store_mut(), "c").unwrap();
    let malloc = lease.export::<i32, i32>("f").unwrap();
    let mut place = |bytes: &[u8]| {
        let at = malloc.call(lease, bytes.len() as i32).unwrap();
        memory.write(lease.store_mut(), at as usize, bytes).unwrap();
        at
    };
    let (password_at, salt_at) = (place(password), place(salt));
    let hash = place(&[0; LENGTH]);
    let (password, salt) = (password.len() as i32, salt.len() as i32);
    let parameters = (
        2,
        256,
        1,
        password_at,
        password,
        salt_at,
        salt,
        hash,
        LENGTH as i32,
        0,
        0,
        2,
        0x13,
    );
    assert_eq!(lease.call(parameters).unwrap(), 0);
    memory.data(lease.store())[hash as usize..][..LENGTH].to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two modules of Emscripten's that import other things as `a.a`: argon2 a function, and (as quickjs
/// does) another its memory.
#[test]
fn promise_25_argon2_lives_beside_a_module_that_imports_its_memory_as_a_a() {
    let pool = pool();
    let definition = Definition::new("hash.argon2id")
        .wasm(real("argon2"))
        .export("e");
    let argon2: Function<Argon2, i32> = pool
        .define(definition.imports(&argon2_imports(&pool)))
        .unwrap();
    let quickjs = wat(r#"(module (import "a" "a" (memory 256 32768))
        (func (export "u") (result i32) memory.size))"#);
    let memory = pool.imports().memory("a", "a").build().unwrap();
    let definition = Definition::new("quickjs").wasm(quickjs).export("u");
    let pages: Function<(), i32> = pool.define(definition.imports(&memory)).unwrap();
    assert_eq!(pages.call(1, ()).unwrap(), 256);

    let mut lease = argon2.acquire(1).unwrap();
    // The vector of the reference implementation's own tests.
    let hash = argon2id(&mut lease, b"password", b"somesalt");
    let expected = "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe";
    assert_eq!(hex(&hash), expected);
    drop(lease);
    check(&pool);
    pool.close();
    check_empty(&pool);
}

/// What web-tree-sitter imports, with the numbers that its JavaScript gives: the memory, the table, where
/// the stack, the heap and its own data are, and functions that only matter when something is parsed.
fn tree_sitter_imports(pool: &Pool) -> Imports {
    let add = |linker: &mut Linker<StoreData<()>>| {
        linker.func_wrap("env", "emscripten_resize_heap", |_: i32| 0_i32)?;
        linker.func_wrap("env", "_abort_js", || ())?;
        linker.func_wrap("env", "tree_sitter_query_progress_callback", |_: i32| 0_i32)?;
        linker.func_wrap("env", "tree_sitter_progress_callback", |_: i32, _: i32| {
            0_i32
        })?;
        let parse = |_: i32, _: i32, _: i32, _: i32, _: i32| ();
        linker.func_wrap("env", "tree_sitter_parse_callback", parse)?;
        linker.func_wrap("env", "tree_sitter_log_callback", |_: i32, _: i32| ())?;
        let wasi = "wasi_snapshot_preview1";
        linker.func_wrap(wasi, "fd_write", |_: i32, _: i32, _: i32, _: i32| 0_i32)?;
        linker.func_wrap(wasi, "fd_seek", |_: i32, _: i64, _: i32, _: i32| 0_i32)?;
        linker.func_wrap(wasi, "fd_close", |_: i32| 0_i32)?;
        Ok(())
    };
    let imports = pool
        .imports()
        .functions(add)
        .memory("env", "memory")
        .table_with_minimum("env", "__indirect_function_table", 31)
        .global("env", "__stack_pointer", Val::I32(82_240))
        .global("env", "__memory_base", Val::I32(1024))
        .global("env", "__table_base", Val::I32(1))
        .global("GOT.mem", "__stack_low", Val::I32(16_704))
        .global("GOT.mem", "__stack_high", Val::I32(82_240))
        .global("GOT.mem", "__heap_base", Val::I32(82_240));
    imports.build().unwrap()
}

#[test]
fn promise_26_tree_sitter_runs_with_a_memory_a_table_and_globals_of_the_hosts() {
    let pool = pool();
    let imports = tree_sitter_imports(&pool);
    let definition = Definition::new("ts.malloc").wasm(real("web-tree-sitter"));
    let malloc: Function<i32, i32> = pool.define(definition.imports(&imports)).unwrap();
    let mut places = Vec::new();
    for group in 0..3 {
        let mut lease = malloc.acquire(group).unwrap();
        let run = |lease: &mut Lease<'_, i32, i32, ()>, name: &str| {
            let export = lease.export::<(), ()>(name).unwrap();
            export.call(lease, ()).unwrap();
        };
        // As its JavaScript begins.
        run(&mut lease, "__wasm_apply_data_relocs");
        run(&mut lease, "__wasm_call_ctors");
        let init = lease.export::<(), i32>("ts_init").unwrap();
        let transfer = init.call(&mut lease, ()).unwrap() as usize;
        run(&mut lease, "ts_parser_new_wasm");
        let memory = lease.memory().expect("the one that it imports");
        let word = |lease: &mut Lease<'_, i32, i32, ()>, at: usize| {
            let bytes = memory.data(lease.store())[at..][..4].try_into().unwrap();
            i32::from_le_bytes(bytes)
        };
        let parser = word(&mut lease, transfer);
        assert_ne!(parser, 0, "a parser was made");
        let text = lease.call(64).unwrap();
        memory
            .write(lease.store_mut(), text as usize, b"tree-sitter\0")
            .unwrap();
        let compare = lease.export::<(i32, i32, i32), i32>("strncmp").unwrap();
        assert_eq!(compare.call(&mut lease, (text, text, 11)).unwrap(), 0);
        let delete = lease.export::<i32, ()>("ts_parser_delete").unwrap();
        delete.call(&mut lease, parser).unwrap();
        places.push((parser, text));
        assert!(lease.memory_bytes() >= 512 << 16);
    }
    // Each instance began afresh: none saw another's heap.
    assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
    assert_eq!(check(&pool).compilations, 1);
    pool.close();
    check_empty(&pool);
}
