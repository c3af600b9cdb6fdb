//! After a compilation, the heap goes back to the system: what the process keeps, with the hook `on_compiled` and without it.
//!
//! `cargo run --release --example give_back -- some.wasm`; without a file, a guest of the tree.

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use wasm_pool::{Artifacts, MemoryStore, Pool};

    let file = std::env::args().nth(1).unwrap_or_else(|| {
        let tree = env!("CARGO_MANIFEST_DIR");
        format!("{tree}/examples/guests/prebuilt/text_markdown.wasm")
    });
    let wasm = std::fs::read(&file)?;
    for trims in [false, true] {
        let artifacts = Artifacts::builder().store(MemoryStore::new(1)).build();
        let pool = Pool::builder()
            .artifacts(&artifacts)
            .on_compiled(move |compiled| {
                let before = memory::resident();
                if trims {
                    memory::trim();
                }
                println!(
                    "{}: compiled in {} ms, {} MiB reserved; resident {} KiB, then {} KiB",
                    compiled.signature,
                    compiled.time.as_millis(),
                    compiled.reserved_bytes >> 20,
                    before >> 10,
                    memory::resident() >> 10,
                );
            })
            .build()?;
        let name = if trims { "trimmed" } else { "kept" };
        println!("resident before: {} KiB", memory::resident() >> 10);
        pool.precompile([(name, &wasm)]).for_each(drop);
        println!("resident after: {} KiB", memory::resident() >> 10);
    }
    Ok(())
}

#[cfg(target_os = "linux")]
mod memory {
    #![allow(unsafe_code, reason = "an allocator is asked in C")]

    /// Bytes of this process that are in memory.
    pub fn resident() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split_whitespace().nth(1);
        pages
            .and_then(|pages| pages.parse().ok())
            .map_or(0, |pages: u64| pages * 4096)
    }

    /// Asks glibc to give back what it does not use; other allocators have other means.
    pub fn trim() {
        #[cfg(target_env = "gnu")]
        // SAFETY: it may be called at any time, from any thread.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this asks Linux what is resident");
}
