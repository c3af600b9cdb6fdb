//! The program `wasm-pool-compiler`: it compiles modules for a pool, which starts it, and does nothing else.

fn main() {
    wasm_pool::serve_compiler();
    eprintln!("This program is started by a wasm-pool that compiles in processes.");
    std::process::exit(2);
}
