//! The functions, and what they should answer: computed in Rust, from their definitions.

use std::time::Duration;

use wasm_pool::{CallError, DefineError, Definition, Function, Lease, Pool, StoreData};
use wasmtime::{Linker, Val};

use crate::reference;

macro_rules! guest {
    ($file:literal) => {
        &include_bytes!(concat!("../guests/prebuilt/", $file, ".wasm"))[..]
    };
}

/// Asks its host for a price, which takes the host a while, and multiplies.
const TOTAL: &str = r#"(module
    (import "shop" "price" (func $price (param i64) (result i64)))
    (memory (export "memory") 1)
    (func (export "total") (param $item i64) (param $count i64) (result i64)
        (i64.mul (call $price (local.get $item)) (local.get $count))))"#;

/// The host's part: the guest's task sleeps meanwhile, and no thread does.
pub fn add_imports(linker: &mut Linker<StoreData<()>>) -> wasmtime::Result<()> {
    linker.func_wrap_async("shop", "price", |_, (item,): (i64,)| {
        Box::new(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            price(item)
        })
    })?;
    Ok(())
}

fn price(item: i64) -> i64 {
    item * 7 + 3
}

/// An argument of a function.
pub enum Arg {
    Int(i64),
    Text(String),
}

/// One function and its workload.
pub struct Guest {
    function: Function,
    returns_text: bool,
    /// The arguments of a row, and the answer.
    row: fn(u64) -> (Vec<Arg>, String),
}

/// Everything that the host offers its tenants.
pub struct Catalogue {
    pub guests: Vec<Guest>,
    /// Never returns; may take as long as any.
    pub spin: Function<i64, i64>,
    /// The same, with a time limit of its own.
    pub limited_spin: Function<i64, i64>,
}

/// What [`Catalogue::limited_spin`] may take.
pub const SPIN_LIMIT: Duration = Duration::from_millis(300);

impl Catalogue {
    /// Compiles nothing: the first tenant of each function has that done, on the pool's own threads.
    pub fn define(pool: &Pool) -> Result<Self, Box<dyn std::error::Error>> {
        let total = wat::parse_str(TOTAL)?;
        let spin = |name| {
            Definition::new(name)
                .wasm(guest!("rogue_spin"))
                .export("spin")
        };
        Ok(Self {
            guests: vec![
                Guest::define(pool, "math.add", guest!("math_add"), false, |n| {
                    let (a, b) = (n as i64, 1 << 40);
                    (vec![Arg::Int(a), Arg::Int(b)], (a + b).to_string())
                })?,
                Guest::define(pool, "shop.total", &total, false, |n| {
                    let (item, count) = (n as i64, n as i64 % 5);
                    let total = price(item) * count;
                    (vec![Arg::Int(item), Arg::Int(count)], total.to_string())
                })?,
                Guest::define(pool, "text.soundex", guest!("text_soundex"), true, |n| {
                    let name = ["Robert", "Tymczak", "Pfister", "Honeyman"][n as usize % 4];
                    (vec![Arg::Text(name.into())], reference::soundex(name))
                })?,
                Guest::define(pool, "hash.sha256", guest!("hash_sha256"), true, |n| {
                    let text = "row ".repeat(1 + n as usize % 50);
                    let digest = reference::sha256(text.as_bytes());
                    (vec![Arg::Text(text)], digest)
                })?,
                Guest::define(pool, "json.extract", guest!("json_extract"), true, |n| {
                    let document = format!(r#"{{"tenant": {{"row": {n}}}}}"#);
                    let pointer = Arg::Text("/tenant/row".into());
                    (vec![Arg::Text(document), pointer], n.to_string())
                })?,
            ],
            spin: pool.define(spin("rogue.spin"))?,
            limited_spin: pool.define(spin("rogue.limited_spin").call_timeout(SPIN_LIMIT))?,
        })
    }
}

impl Guest {
    fn define(
        pool: &Pool,
        name: &str,
        wasm: &[u8],
        returns_text: bool,
        row: fn(u64) -> (Vec<Arg>, String),
    ) -> Result<Self, DefineError> {
        Ok(Self {
            function: pool.define(Definition::new(name).wasm(wasm))?,
            returns_text,
            row,
        })
    }

    pub fn function(&self) -> &Function {
        &self.function
    }

    /// Calls a leased instance for a row; the answer, and what it should be.
    pub async fn call(&self, lease: &mut Lease<'_>, n: u64) -> Result<[String; 2], CallError> {
        let (args, expected) = (self.row)(n);
        let mut params = Vec::new();
        for arg in &args {
            match arg {
                Arg::Int(number) => params.push(Val::I64(*number)),
                Arg::Text(text) => {
                    // The guest frees it.
                    let passed = lease.pass_bytes_async(text.as_bytes()).await?;
                    let (pointer, length) = passed.params();
                    params.extend([Val::I32(pointer), Val::I32(length)]);
                }
            }
        }
        let results = lease.call_values_async(&params).await?;
        let answer = match (self.returns_text, &results[..]) {
            (false, [Val::I64(number)]) => number.to_string(),
            (true, [Val::I64(packed)]) => {
                let text = lease.take_string_async(*packed).await?;
                text.unwrap_or_default()
            }
            (_, other) => format!("{other:?}"),
        };
        Ok([answer, expected])
    }
}
