//! The process that compiles: it reads jobs from its standard input, one after the other, until that is closed.

use std::collections::TryReserveError;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, getpid, kill_process, nice};
use wasmtime::{Config, Engine};

use super::wire::{Done, Job, MARK, Ready, Setup};
use super::{sandbox, socket};
use crate::artifacts::{ArtifactKey, Codec, EngineKey, FOOTER_BYTES, Seal, module_hash};
use crate::runtime::{compiler_config, is_scarce, refused_by_system};
use crate::sync::unchecked::thread;

/// Stack of the thread that watches the pool, in bytes.
const WATCHER_STACK: usize = 64 << 10;
/// Bytes of an error's texts. They may quote names of the module.
const LONGEST_ERROR: usize = 64 << 10;

/// Makes a process of this program one that compiles, if that is what it was started for: by a pool that was built
/// with [`CompilerProcess::this_program`](crate::CompilerProcess::this_program). Then it does not return; otherwise it does, at
/// once. It is to be the first call of `main`: what the program does before that, each process that compiles
/// does as well, and what it holds then, each of them holds.
///
/// ```
/// // At the beginning of `main`:
/// wasm_pool::serve_compiler();
/// // What follows is the host's own program.
/// ```
///
/// A host that brings its own engine calls [`serve_compiler_with`].
pub fn serve_compiler() {
    if is_asked_for() {
        exit(serve(None));
    }
}

/// The same, for pools with an engine of the host's own ([`PoolBuilder::engine`](crate::PoolBuilder::engine)): `config` makes the
/// configuration that the engine was made of. Pools that make their own engine are served as well.
pub fn serve_compiler_with(config: impl FnOnce() -> wasmtime::Result<Config>) {
    if is_asked_for() {
        exit(serve(Some(Box::new(config))));
    }
}

/// The mark may be there by accident, or be inherited; the socket as well may not.
pub(super) fn is_asked_for() -> bool {
    std::env::var_os(MARK).is_some() && socket::is_one(io::stdin())
}

type MakeConfig<'a> = Box<dyn FnOnce() -> wasmtime::Result<Config> + 'a>;

/// The status to exit with.
fn serve(config: Option<MakeConfig<'_>>) -> i32 {
    match try_serve(config) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error:#}");
            1
        }
    }
}

fn try_serve(config: Option<MakeConfig<'_>>) -> wasmtime::Result<()> {
    // Should the pool's process be gone already, there is nothing to receive.
    sandbox::die_with_parent()?;
    sandbox::close_others()?;
    sandbox::give_up_privileges()?;
    let stdin = io::stdin();
    let pool = stdin.as_fd();
    let setup = socket::receive(pool)?;
    let Some(setup) = Setup::decode(setup.bytes()) else {
        return Err(wasmtime::Error::msg("the pool is of another version"));
    };
    if setup.niceness > 0 {
        let _ = nice(setup.niceness.into());
    }
    watch_pool()?;
    // The host's own code: it may need files.
    let config = match (&setup.engine, config) {
        (Some(engine), _) => Some(engine.config()),
        (None, Some(config)) => Some(config()?),
        (None, None) => None,
    };
    let landlock = sandbox::leave_files_alone();
    let seccomp = sandbox::forget_system_calls();
    let compiler = config.map(|config| compiler_config(&config)).transpose()?;
    let engine = match &compiler {
        Some((config, _)) => Some(Engine::new(config)?),
        None => None,
    };
    let ready = Ready {
        key: compiler.as_ref().map(|(_, key)| *key.as_bytes()),
        landlock,
        seccomp,
    };
    socket::send(pool, &ready.encode(), &[])?;
    match (compiler, engine) {
        (Some((config, key)), Some(engine)) => do_jobs(pool, &config, &key, engine),
        _ => Ok(()),
    }
}

/// Ends this process when the pool's end of the socket is closed, also in the middle of a compilation.
fn watch_pool() -> io::Result<()> {
    let watch = || {
        let stdin = io::stdin();
        let mut hang_up = [PollFd::new(&stdin, PollFlags::RDHUP)];
        while poll(&mut hang_up, None).is_err() || hang_up[0].revents().is_empty() {}
        let this: Pid = getpid();
        let _ = kill_process(this, Signal::KILL);
    };
    thread::Builder::new()
        .stack_size(WATCHER_STACK)
        .spawn(watch)?;
    Ok(())
}

fn do_jobs(
    pool: BorrowedFd<'_>,
    config: &Config,
    key: &EngineKey,
    first: Engine,
) -> wasmtime::Result<()> {
    let mut engine = Some(first);
    loop {
        let message = socket::receive(pool)?;
        if message.bytes().is_empty() {
            return Ok(());
        }
        let job = Job::decode(message.bytes());
        let files = <[File; 2]>::try_from(message.files).ok();
        let Some((job, [wasm, out])) = job.zip(files) else {
            return Err(wasmtime::Error::msg("the pool sends no job"));
        };
        // An engine that has compiled keeps what the compiler has made: so each job has one of its own.
        let made = match engine.take() {
            Some(engine) => Ok(engine),
            None => Engine::new(config),
        };
        let done = made.and_then(|engine| do_job(&engine, key, &job, wasm, &out));
        let done = done.unwrap_or_else(|error| explain(&error, &out));
        socket::send(pool, &done.encode(), &[])?;
    }
}

fn do_job(
    engine: &Engine,
    key: &EngineKey,
    job: &Job,
    file: File,
    mut out: &File,
) -> wasmtime::Result<Done> {
    let (mut wasm, length) = (Vec::new(), usize::try_from(job.wasm_bytes)?);
    wasm.try_reserve_exact(length)?;
    wasm.resize(length, 0);
    // Where the pool has stopped writing is where a read would begin.
    file.read_exact_at(&mut wasm, 0)?;
    drop(file);
    // Some valid modules make the compiler panic.
    let compiled = catch_unwind(AssertUnwindSafe(|| engine.precompile_module(&wasm)));
    let panicked = |_| Err(wasmtime::Error::msg("the compiler panicked"));
    let code = compiled.unwrap_or_else(panicked)?;
    let key = ArtifactKey::new(*key, module_hash(&wasm));
    drop(wasm);
    let bytes = code.len() as u64;
    let whole = bytes.next_multiple_of(FOOTER_BYTES as u64) + FOOTER_BYTES as u64;
    if whole > job.artifact_bytes {
        return Ok(Done::TooLarge(whole));
    }
    let artifact = Seal::digest().encode(key, Codec::Raw, &code, bytes);
    for part in artifact.parts() {
        out.write_all(part)?;
    }
    Ok(Done::Compiled)
}

/// Why, for the pool: in the file where the artifact would be.
fn explain(error: &wasmtime::Error, mut out: &File) -> Done {
    let refused = refused_by_system(error).is_some_and(|refused| is_scarce(&refused));
    if refused || error.chain().any(|cause| cause.is::<TryReserveError>()) {
        return Done::OutOfMemory;
    }
    let mut texts = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string().replace('\0', "");
        if texts.len() + text.len() >= LONGEST_ERROR {
            break;
        }
        texts.extend(text.as_bytes());
        texts.push(0);
    }
    match out.write_all(&texts) {
        Ok(()) => Done::Failed(texts.len() as u64),
        Err(_) => Done::Failed(0),
    }
}
