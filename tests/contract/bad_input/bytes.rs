//! Bytes that were wasm once.

use super::*;

/// Define, lease, call, remove: whatever comes of it, the host is well and nothing stays charged.
fn try_everything(pool: &Pool, wasm: Vec<u8>, export: &str) {
    let definition = Definition::new("fuzz").wasm(wasm).export(export);
    if let Ok(function) = pool.define::<Dynamic, Dynamic>(definition.clone()) {
        for call in 0..2 {
            let Ok(mut lease) = function.acquire(call) else {
                continue;
            };
            let ty = lease.instance();
            let ty = ty.get_func(lease.store_mut(), export).unwrap();
            let ty = ty.ty(lease.store());
            let default = |ty| wasmtime::Val::default_for_ty(&ty);
            let params: Option<Vec<_>> = ty.params().map(default).collect();
            if let Some(params) = params {
                let _ = lease.call_values(&params);
                let _ = lease.pass_bytes(b"some bytes");
            }
        }
        check(pool);
        pool.remove("fuzz").unwrap();
    }
    // The typed check at the door reads what the module declares as well.
    if pool.define::<(i32, i32), i64>(definition).is_ok() {
        pool.remove("fuzz").unwrap();
    }
    assert_eq!(check(pool).modules_known, 0);
    check_empty(pool);
}

fn fuzzed() -> Pool {
    quiet()
        .fuel(100_000)
        .max_instance_memory(4 * MIB)
        .limits(Limits::new().memory(16 * MIB).code(16 * MIB))
        .build()
        .unwrap()
}

const SMALL: [(&str, &str); 8] = [
    ("math_add", "add"),
    ("state_counter", "next"),
    ("rogue_trap", "trap_if"),
    ("rogue_recurse", "recurse"),
    ("rogue_spin", "spin"),
    ("geo_haversine", "haversine"),
    ("rogue_leak", "leak"),
    ("text_soundex", "soundex"),
];

#[derive(Debug, Clone)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Splice(usize, prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => (at(), 1..40usize).prop_map(|(at, count)| Mutation::Cut(at, count)),
        1 => (at(), 1..40usize).prop_map(|(at, count)| Mutation::Repeat(at, count)),
        1 => (0..SMALL.len(), at(), at()).prop_map(|(other, a, b)| Mutation::Splice(other, a, b)),
    ]
}

fn mutate(wasm: &mut Vec<u8>, mutation: &Mutation) {
    if wasm.is_empty() {
        return;
    }
    let range = |wasm: &Vec<u8>, at: &prop::sample::Index, count: usize| {
        let at = at.index(wasm.len());
        at..wasm.len().min(at + count)
    };
    match mutation {
        Mutation::Flip(at, bit) => {
            let at = at.index(wasm.len());
            wasm[at] ^= 1 << bit;
        }
        Mutation::Set(at, byte) => {
            let at = at.index(wasm.len());
            wasm[at] = *byte;
        }
        Mutation::Cut(at, count) => drop(wasm.drain(range(wasm, at, *count))),
        Mutation::Repeat(at, count) => {
            let range = range(wasm, at, *count);
            let copy = wasm[range.clone()].to_vec();
            wasm.splice(range.start..range.start, copy);
        }
        Mutation::Splice(other, at, from) => {
            let other = guest(SMALL[*other].0);
            wasm.truncate(at.index(wasm.len()));
            wasm.extend(&other[from.index(other.len())..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let pool = fuzzed();
        try_everything(&pool, bytes.clone(), "f");
        bytes.splice(0..0, *b"\0asm\x01\0\0\0");
        try_everything(&pool, bytes, "f");
    }

    #[test]
    fn mutated_guests_never_panic(
        which in 0..SMALL.len(),
        mutations in prop::collection::vec(mutation(), 1..4),
    ) {
        let (name, export) = SMALL[which];
        let mut wasm = guest(name);
        for mutation in &mutations {
            mutate(&mut wasm, mutation);
        }
        try_everything(&fuzzed(), wasm, export);
    }
}
