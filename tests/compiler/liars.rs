//! Processes that begin as a compiler does, and then say or make what none would. The liar is this very program, started
//! again; a compiler behind it says and makes what has to be right.

use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::{Child, Command};
use std::sync::Arc;
use std::{env, io};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use wasm_pool::{AcquireError, CompilerError, CompilerProcess, Function, ModuleError, Pool};

use crate::common::temp_dir::TempDir;
use crate::common::{answering, charges, check, definition};
use crate::{alone, builder, children};

/// Says how the process lies.
const LIE: &str = "WASM_POOL_TEST_LIE";

/// What a compiler says when it has made an artifact, and begins to say otherwise, in the first version of what is said.
fn done(what: u8, number: u64) -> Vec<u8> {
    let mut said = vec![4, 1, 0, 0, 0, what];
    said.extend(number.to_le_bytes());
    said
}

fn receive(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<File>)> {
    let mut bytes = [0; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(&socket, &mut into, &mut control, RecvFlags::empty())?;
    let length = received.bytes;
    let files = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.map(File::from).collect(),
        _ => Vec::new(),
    });
    let files = files.collect();
    Ok((bytes[..length].to_vec(), files))
}

fn send(socket: impl AsFd, bytes: &[u8], files: &[File]) -> io::Result<()> {
    let files: Vec<BorrowedFd<'_>> = files.iter().map(File::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    }
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// A compiler that is none of the pool's.
struct Honest {
    socket: OwnedFd,
    process: Child,
}

impl Honest {
    fn start() -> io::Result<Self> {
        let kinds = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (socket, theirs) = socketpair(kinds.0, kinds.1, SocketFlags::CLOEXEC, None)?;
        let program = env!("CARGO_BIN_EXE_wasm-pool-compiler");
        let process = Command::new(program).stdin(theirs).spawn()?;
        Ok(Self { socket, process })
    }

    fn ask(&self, bytes: &[u8], files: &[File]) -> io::Result<Vec<u8>> {
        send(&self.socket, bytes, files)?;
        Ok(receive(&self.socket)?.0)
    }

    /// An artifact as it should be.
    fn compile(&self, wasm: &[u8]) -> io::Result<Vec<u8>> {
        let mut job = vec![3, 1, 0, 0, 0];
        job.extend((wasm.len() as u64).to_le_bytes());
        job.extend((1_u64 << 30).to_le_bytes());
        let (source, artifact) = (in_memory(wasm)?, in_memory(&[])?);
        let said = self.ask(&job, &[source, artifact.try_clone()?])?;
        assert_eq!(said, done(0, 0));
        let mut made = vec![0; artifact.metadata()?.len() as usize];
        artifact.read_exact_at(&mut made, 0)?;
        Ok(made)
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Only where a pool has started this program as its compiler: then it lies, and ends.
#[test]
fn a_liar() {
    if let Ok(lie) = env::var(LIE) {
        live_and_lie(&lie).expect("a socket to lie through");
    }
}

fn live_and_lie(lie: &str) -> io::Result<()> {
    let pool = io::stdin();
    let honest = Honest::start()?;
    let (setup, _) = receive(&pool)?;
    let ready = honest.ask(&setup, &[])?;
    let good = honest.compile(&wasm(7))?;
    let of_another = honest.compile(&wasm(77))?;
    // What comes now may take no more than two descriptors.
    drop(honest);
    send(&pool, &ready, &[])?;
    let (_, files) = receive(&pool)?;
    let artifact = &files[1];
    let make = |bytes: &[u8]| artifact.write_all_at(bytes, 0).map(|()| done(0, 0));
    let said = match lie {
        "says nothing and ends" => return Ok(()),
        "says nonsense" => vec![0xFF; 7],
        "says that it is ready" => ready,
        "makes nothing" => make(&[])?,
        "makes garbage" => make(&[0x5A; 64 << 10])?,
        "makes it of something else" => make(&of_another)?,
        "changes a bit" => {
            let mut changed = good;
            changed[999] ^= 1;
            make(&changed)?
        }
        "cuts it" => make(&good[..good.len() / 2])?,
        "needs all there is" => done(1, u64::MAX),
        "fails without a reason" => done(2, u64::MAX),
        "has no memory" => done(3, 0),
        "does not lie" => make(&good)?,
        other => panic!("nobody lies like this: {other}"),
    };
    send(&pool, &said, &[])?;
    // Until it is ended.
    receive(&pool).map(drop)
}

fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let file = rustix::fs::memfd_create("file", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(bytes)?;
    Ok(file)
}

/// What is compiled: it returns this number.
fn wasm(number: i32) -> Vec<u8> {
    answering(number)
}

/// A program that lies like this.
fn liar(folder: &TempDir, lie: &str) -> CompilerProcess {
    let path = folder.path().join("compiler");
    let program = env::current_exe().unwrap();
    let text = format!(
        "#!/bin/sh\n{LIE}=\"{lie}\" exec {} --exact liars::a_liar --test-threads=1 --nocapture\n",
        program.display()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    CompilerProcess::helper(path).first_cap(64 << 20)
}

/// A pool whose compiler lies like this, and a function of it.
fn pool_of(folder: &TempDir, lie: &str) -> (Pool, Function<(), i32>) {
    let pool = builder(1 << 30, liar(folder, lie)).build().unwrap();
    let f = pool.define(definition("f", wasm(7))).unwrap();
    (pool, f)
}

fn failure(lie: &str) -> Arc<ModuleError> {
    let folder = TempDir::new();
    let (pool, f) = pool_of(&folder, lie);
    let before = charges(&pool);
    let error = f.acquire(1).map(drop).unwrap_err();
    assert_eq!(charges(&pool), before, "{lie}: {error}");
    check(&pool);
    let AcquireError::Module { source, .. } = error else {
        panic!("{lie}: {error}");
    };
    assert_eq!(pool.stats().modules_loaded, 0);
    drop((f, pool));
    crate::common::until(|| children().is_empty());
    source
}

fn is_garbled(error: &ModuleError) -> bool {
    matches!(error, ModuleError::Process(CompilerError::Garbled { .. }))
}

#[test]
fn what_a_liar_says_is_an_error_and_what_it_makes_is_never_loaded() {
    let _alone = alone();
    // What these programs do is what a compiler does, but for the lie.
    let folder = TempDir::new();
    let (pool, f) = pool_of(&folder, "does not lie");
    assert_eq!(f.call(1, ()).unwrap(), 7);
    drop((f, pool));
    for lie in [
        "says nonsense",
        "says that it is ready",
        "makes nothing",
        "makes garbage",
        "makes it of something else",
        "changes a bit",
        "cuts it",
    ] {
        let error = failure(lie);
        assert!(is_garbled(&error), "{lie}: {error:?}");
    }
    let error = failure("says nothing and ends");
    let died = matches!(
        &*error,
        ModuleError::Process(CompilerError::Died {
            status: Some(0),
            ..
        })
    );
    assert!(died, "{error:?}");
    for lie in ["needs all there is", "has no memory"] {
        let error = failure(lie);
        assert!(
            matches!(&*error, ModuleError::TooExpensive { .. }),
            "{lie}: {error:?}"
        );
    }
    let error = failure("fails without a reason");
    assert!(matches!(&*error, ModuleError::Compile(_)), "{error:?}");
}

/// It may do several jobs, and is not asked again.
#[test]
fn who_has_lied_once_does_nothing_more() {
    let _alone = alone();
    for lie in ["makes garbage", "says nonsense"] {
        let folder = TempDir::new();
        let process = liar(&folder, lie).max_jobs(4).warm(1);
        let pool = builder(1 << 30, process).build().unwrap();
        let before = children();
        assert_eq!(before.len(), 1);
        let f = pool.define::<(), i32>(definition("f", wasm(7))).unwrap();
        f.acquire(1).map(drop).unwrap_err();
        crate::common::until(|| children().is_disjoint(&before));
    }
}
