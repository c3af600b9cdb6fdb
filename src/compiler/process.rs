//! One process that compiles, as its pool sees it: started, limited, told what to do, killed, and gone.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, pidfd_open,
    pidfd_send_signal, prlimit, waitid,
};

use super::process_memory::{MemoryUse, memory_of};
use super::socket::{self, Received};
use super::wire::MARK;

/// Bytes of what it has said on its standard error that are read when it has died.
const LAST_WORDS: u64 = 4 << 10;
/// Bytes of stack that it may use; not counted as data by the kernel, so counted beside it.
pub(super) const STACK: u64 = 2 << 20;
/// Descriptors: its standard streams, and the two files of a job.
const DESCRIPTORS: u64 = 5;

/// A process that this one has started. Dropped, it is killed, and waited for: nothing is left of it, nor of its memory.
pub(super) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    socket: OwnedFd,
    stderr: PipeReader,
    is_reaped: bool,
}

/// How it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Death {
    pub how: How,
    /// What it said last.
    pub words: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Exited(i32),
    Killed(i32),
    /// Somebody else of this process's has waited for it.
    Unknown,
}

/// What comes from it.
pub(super) enum Event {
    Message(Received),
    /// It is dead, or has closed its end.
    End,
    /// The time is over.
    Nothing,
}

/// What it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessLimits {
    pub data: u64,
    pub space: u64,
    /// What it may write to a file.
    pub file: u64,
    /// Seconds that it runs, all in all.
    pub cpu: u64,
}

impl Process {
    /// Starts the program. It has no environment but what marks it, no directory, no descriptor but a socket, nothing,
    /// and a pipe for what it says.
    pub fn start(program: &Path) -> io::Result<Self> {
        let (ours, theirs) = socket::pair()?;
        let (stderr, last_words) = io::pipe()?;
        let child = Command::new(program)
            .arg0("wasm-pool-compiler")
            .env_clear()
            .env(MARK, "1")
            // One heap of glibc's, and not one for each thread.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(last_words)
            .current_dir("/")
            // Signals of a terminal are not for it.
            .process_group(0)
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        // Nobody has waited for it yet, so the number is still its own.
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let mut child = child;
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.into());
            }
        };
        Ok(Self {
            pid,
            pidfd,
            socket: ours,
            stderr,
            is_reaped: false,
        })
    }

    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether it has not ended, as far as can be seen now.
    pub fn is_alive(&self) -> bool {
        let mut watched = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = timespec(Duration::ZERO);
        poll(&mut watched, Some(&now)).is_ok_and(|ended| ended == 0)
    }

    pub fn send(&self, message: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        socket::send(&self.socket, message, files)
    }

    /// Waits until it says something, or ends, or the time has come.
    pub fn next(&self, until: Instant) -> io::Result<Event> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut watched = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(&self.pidfd, PollFlags::IN),
            ];
            match poll(&mut watched, Some(&timespec(left))) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let [socket, pidfd] = watched.map(|watched| watched.revents());
            // What it has said before it died comes first.
            if !socket.is_empty() {
                return match socket::receive(&self.socket) {
                    Ok(received) if received.bytes().is_empty() => Ok(Event::End),
                    Ok(received) => Ok(Event::Message(received)),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Event::End),
                    Err(error) => Err(error),
                };
            }
            if !pidfd.is_empty() {
                return Ok(Event::End);
            }
            if left.is_zero() {
                return Ok(Event::Nothing);
            }
        }
    }

    /// Sets limits that it cannot raise. False if they would have to be raised: it was given lower ones before, and
    /// this process has no privilege to take those back.
    pub fn limit(&self, limits: &ProcessLimits) -> io::Result<bool> {
        let all = [
            (Resource::Data, limits.data, 0),
            (Resource::As, limits.space, 0),
            (Resource::Stack, STACK, 0),
            (Resource::Fsize, limits.file, 0),
            (Resource::Nofile, DESCRIPTORS, 0),
            (Resource::Core, 0, 0),
            // At the first, a signal tells that it was this limit.
            (Resource::Cpu, limits.cpu, 1),
        ];
        for (resource, limit, beyond) in all {
            let new = Rlimit {
                current: Some(limit),
                maximum: Some(limit.saturating_add(beyond)),
            };
            match prlimit(Some(self.pid), resource, new) {
                Ok(_) => {}
                Err(rustix::io::Errno::PERM) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    pub fn memory(&self) -> Option<MemoryUse> {
        memory_of(self.id())
    }

    /// Kills it, if it lives, and waits until its memory is free.
    pub fn end(mut self) -> Death {
        self.reap()
    }

    /// As `end`, of one that somebody else keeps.
    pub fn reap(&mut self) -> Death {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let how = loop {
            let id = WaitId::PidFd(self.pidfd.as_fd());
            match waitid(id, WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(Some(status)) => {
                    let exited = status.exit_status().map(How::Exited);
                    let killed = || status.terminating_signal().map(How::Killed);
                    break exited.or_else(killed).unwrap_or(How::Unknown);
                }
                Ok(None) => break How::Unknown,
                Err(_) => {
                    // Another has waited for it, or the system does by itself: it is dead when its descriptor says so.
                    let mut watched = [PollFd::new(&self.pidfd, PollFlags::IN)];
                    while poll(&mut watched, None).is_err_and(|e| e == rustix::io::Errno::INTR) {}
                    break How::Unknown;
                }
            }
        };
        self.is_reaped = true;
        Death {
            how,
            words: self.last_words(),
        }
    }

    /// What is in the pipe, and no more: whoever might still write to it is not waited for.
    fn last_words(&mut self) -> String {
        let mut words = Vec::new();
        if rustix::io::ioctl_fionbio(&self.stderr, true).is_ok() {
            let _ = (&mut self.stderr).take(LAST_WORDS).read_to_end(&mut words);
        }
        String::from_utf8_lossy(&words).trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.reap();
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
