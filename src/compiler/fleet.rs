//! The processes of a pool: those that wait for a job, and one for each job under way.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::error::CompilerError;
use super::order::{Failure, Sandbox, Stop};
use super::process::{Event, Process, STACK};
use super::process_memory::MemoryUse;
use super::settings::{CompilerProcess, Program};
use super::starter::Starter;
use super::wire::{Ready, Setup};
use crate::artifacts::EngineKey;
use crate::runtime::EngineSettings;
use crate::sync::unchecked::Mutex;

/// How long a process may take until it is ready, on a machine that is busy with other things.
const START: Duration = Duration::from_secs(30);
/// How often somebody who waits for a process looks whether that is of any use still.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// By how many bytes one process that waits may differ from another: how far the allocator has got, where the kernel
/// has put what.
const SLACK: u64 = 512 << 10;

/// What of processes is asked for. Dropped, all of them end.
pub(crate) struct Compilers {
    program: PathBuf,
    pub(super) settings: CompilerProcess,
    setup: Setup,
    pub(super) key: EngineKey,
    /// What one has that waits for its first job.
    idle_use: MemoryUse,
    sandbox: Sandbox,
    /// Dropped before the thread that has started them, which they do not outlive.
    idle: Mutex<Idle>,
    starter: Starter,
}

#[derive(Default)]
struct Idle {
    waiting: Vec<Warm>,
    /// Of those that are to wait.
    starting: usize,
    closed: bool,
}

/// A process that has no job.
pub(super) struct Warm {
    pub process: Process,
    /// It has said so.
    pub is_ready: bool,
    pub jobs: u64,
    started: Instant,
}

impl Compilers {
    /// Starts the first process, and sees that it compiles for the pool's engine: of these settings, or the host's own
    /// if there are none.
    pub fn start(
        settings: CompilerProcess,
        engine: Option<EngineSettings>,
        key: &EngineKey,
    ) -> Result<Self, CompilerError> {
        let program = match &settings.program {
            // The program may not be found from the directory that it is started in.
            Program::Helper(path) => match path.canonicalize() {
                Ok(found) => found,
                Err(source) => {
                    let program = path.clone();
                    return Err(CompilerError::Start { program, source });
                }
            },
            // What this process runs, whatever has that name now.
            Program::This => PathBuf::from("/proc/self/exe"),
        };
        let starter = Starter::new(program.clone()).map_err(CompilerError::System)?;
        let setup = Setup {
            engine,
            niceness: settings.niceness,
        };
        let mut compilers = Self {
            program,
            settings,
            setup,
            key: *key,
            idle_use: MemoryUse::default(),
            sandbox: Sandbox {
                landlock: false,
                seccomp: false,
            },
            idle: Mutex::default(),
            starter,
        };
        let mut first = compilers.start_one()?;
        let ready = compilers.make_ready(&mut first, &|| None);
        let ready = ready.map_err(|failure| match failure {
            Failure::Process(error) => error,
            // Nothing else ends it.
            _ => CompilerError::System(std::io::ErrorKind::Other.into()),
        })?;
        let memory = first.process.memory();
        compilers.idle_use = memory.ok_or(CompilerError::Unsupported)?;
        compilers.sandbox = Sandbox {
            landlock: ready.landlock,
            seccomp: ready.seccomp,
        };
        if compilers.settings.warm > 0 {
            compilers.idle.lock().waiting.push(first);
        }
        Ok(compilers)
    }

    /// Of the first of them.
    pub fn sandbox(&self) -> Sandbox {
        self.sandbox
    }

    /// Bytes that a process holds at most when it has no job yet. (What it can write to is counted whether it has
    /// written there or not; what only its loader has written to is counted beside it, by what it is.)
    fn idle_bytes(&self) -> u64 {
        let MemoryUse {
            data, anonymous, ..
        } = self.idle_use;
        data.saturating_add(anonymous).saturating_add(SLACK)
    }

    /// Bytes that all processes together hold at most that wait.
    pub fn standing_bytes(&self) -> u64 {
        let growth = match self.settings.max_jobs {
            1 => 0,
            _ => self.settings.max_growth,
        };
        let each = self.idle_bytes().saturating_add(growth);
        each.saturating_mul(self.settings.warm as u64)
    }

    /// Bytes that a process holds at most beside the heap and the files of its job.
    pub fn fixed_bytes(&self) -> u64 {
        self.idle_bytes().saturating_add(STACK)
    }

    pub(super) fn idle_use(&self) -> MemoryUse {
        self.idle_use
    }

    /// A process that is ready: one that waits, or a new one.
    pub(super) fn take(&self, stop: &dyn Fn() -> Option<Stop>) -> Result<Warm, Failure> {
        loop {
            let waiting = self.idle.lock().waiting.pop();
            let Some(mut warm) = waiting else {
                return self.take_new(stop);
            };
            // One that has died meanwhile, or is not what it should be any more, is no use; a new one says why.
            if warm.process.is_alive() && self.make_ready(&mut warm, stop).is_ok() {
                return Ok(warm);
            }
        }
    }

    pub(super) fn take_new(&self, stop: &dyn Fn() -> Option<Stop>) -> Result<Warm, Failure> {
        let mut new = self.start_one()?;
        self.make_ready(&mut new, stop)?;
        Ok(new)
    }

    fn start_one(&self) -> Result<Warm, CompilerError> {
        let process = self
            .starter
            .start()
            .map_err(|source| CompilerError::Start {
                program: self.program.clone(),
                source,
            })?;
        // If it is dead already, that will be seen.
        let _ = process.send(&self.setup.encode(), &[]);
        Ok(Warm {
            process,
            is_ready: false,
            jobs: 0,
            started: Instant::now(),
        })
    }

    /// Waits until it is ready, and sees that it is what it should be.
    fn make_ready(
        &self,
        warm: &mut Warm,
        stop: &dyn Fn() -> Option<Stop>,
    ) -> Result<Ready, Failure> {
        let program = || self.program.clone();
        if warm.is_ready {
            return Ok(Ready {
                key: Some(*self.key.as_bytes()),
                landlock: self.sandbox.landlock,
                seccomp: self.sandbox.seccomp,
            });
        }
        let message = loop {
            if let Some(stop) = stop() {
                return Err(Failure::Stopped(stop));
            }
            let late = warm.started + START;
            let event = warm.process.next(late.min(Instant::now() + LOOK));
            match event.map_err(CompilerError::System)? {
                Event::Message(message) => break Some(message),
                Event::End => break None,
                Event::Nothing if Instant::now() >= late => {
                    return Err(Failure::Process(CompilerError::NotReady {
                        program: program(),
                        waited: START,
                    }));
                }
                Event::Nothing => {}
            }
        };
        let ready = message.and_then(|message| Ready::decode(message.bytes()));
        let Some(ready) = ready else {
            return Err(Failure::Process(CompilerError::NoCompiler {
                program: program(),
                said: warm.process.reap().words,
            }));
        };
        let error = match ready.key {
            Some(key) if key == *self.key.as_bytes() => {
                warm.is_ready = true;
                return Ok(ready);
            }
            Some(_) => CompilerError::OtherEngine { program: program() },
            None => CompilerError::NoEngine { program: program() },
        };
        Err(Failure::Process(error))
    }

    /// Takes back one that has done its job, if it may do another.
    pub(super) fn put_back(&self, warm: Warm) {
        let grown = |memory: MemoryUse| memory.data.saturating_sub(self.idle_use.data);
        let stays = warm.jobs < self.settings.max_jobs
            && (warm.process.memory()).is_some_and(|m| grown(m) <= self.settings.max_growth);
        if stays {
            let mut idle = self.idle.lock();
            if !idle.closed && idle.waiting.len() + idle.starting < self.settings.warm {
                return idle.waiting.push(warm);
            }
        }
        drop(warm);
    }

    /// Starts as many as are to wait. One that cannot be started is missed when it is needed, and not before.
    pub(super) fn refill(&self) {
        loop {
            {
                let mut idle = self.idle.lock();
                if idle.closed || idle.waiting.len() + idle.starting >= self.settings.warm {
                    return;
                }
                idle.starting += 1;
            }
            let started = self.start_one();
            let mut idle = self.idle.lock();
            idle.starting -= 1;
            match started {
                Ok(warm) if !idle.closed => idle.waiting.push(warm),
                other => {
                    drop(idle);
                    return drop(other);
                }
            }
        }
    }

    /// Ends all that wait, and starts none any more. Those that have a job end with it.
    pub fn close(&self) {
        let waiting = {
            let mut idle = self.idle.lock();
            idle.closed = true;
            std::mem::take(&mut idle.waiting)
        };
        drop(waiting);
    }
}
