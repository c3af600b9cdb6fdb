//! The tenants' functions, each in a module of its own.

use wasm_pool::{Budget, DefineError, Definition, Function, Pool};

const ADD: &[u8] = include_bytes!("../guests/prebuilt/math_add.wasm");

/// One page more with each call, until there is no more: then −1.
const LEAK: &str = r#"(module (memory 1)
    (func (export "f") (result i32) i32.const 1 memory.grow))"#;

const CRASH: &str = r#"(module (memory 1) (func (export "f") (result i32) unreachable))"#;

pub type Add = Function<(i64, i64), i64>;

pub struct Guests {
    pub quiet: Vec<Add>,
    pub flood: Vec<Add>,
    pub leak: Function<(), i32>,
    pub crash: Function<(), i32>,
}

/// The same module with other bytes: a section that nobody reads.
fn salted(salt: u8) -> Vec<u8> {
    let mut wasm = ADD.to_vec();
    wasm.extend([0, 3, 1, b's', salt]);
    wasm
}

fn define(pool: &Pool, tenant: &str, from: u8, count: u8) -> Result<Vec<Add>, DefineError> {
    let one = |n: u8| {
        let definition = Definition::new(format!("{tenant}.add_{n}")).wasm(salted(from + n));
        pool.define(definition.export("add"))
    };
    (0..count).map(one).collect()
}

impl Guests {
    pub fn define(pool: &Pool) -> Result<Self, Box<dyn std::error::Error>> {
        let of_text = |name: &str, text: &str| -> Result<_, Box<dyn std::error::Error>> {
            let wasm = wat::parse_str(text)?;
            Ok(pool.define(Definition::new(name).wasm(wasm).export("f"))?)
        };
        Ok(Self {
            quiet: define(pool, "quiet", 0, 12)?,
            flood: define(pool, "flood", 100, 120)?,
            leak: of_text("leaky.f", LEAK)?,
            crash: of_text("crashing.f", CRASH)?,
        })
    }
}

/// Bytes that the code of one such module takes.
pub fn code_of_one() -> Result<u64, Box<dyn std::error::Error>> {
    let pool = Pool::builder().build()?;
    let [add] = &define(&pool, "one", 0, 1)?[..] else {
        unreachable!("one was asked for");
    };
    add.call(1, (1, 2))?;
    Ok(pool.stats().budget(Budget::Code).charged)
}
