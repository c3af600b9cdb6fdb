//! One module, compiled in a process of its own.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use rustix::process::Signal;

use super::error::CompilerError;
use super::fleet::{Compilers, LOOK, Warm};
use super::order::{Cap, Failure, Made, Order};
use super::process::{Death, Event, How, ProcessLimits, STACK};
use super::process_memory::{MemoryUse, cpu_seconds};
use super::wire::{Done, Job};
use crate::artifacts::{ArtifactKey, Opened, Seal, SealedFile, Unsealed};
use crate::runtime::Report;

/// What allocations say that fail, in Rust's words.
const NO_HEAP: &str = "memory allocation of ";
/// Beyond what was seen to be enough, at least: the allocator does not do the same each time.
const SPARE: u64 = 256 << 10;
/// Of what it took, a larger module has this part more: 256 KiB were once too few.
const SPARE_SHARE: u64 = 8;
/// Bytes of an error's texts that are read.
const LONGEST_ERROR: u64 = 64 << 10;

impl Compilers {
    /// Bytes of heap that a host has set for the first try of each module.
    pub fn first_heap(&self) -> Option<u64> {
        self.settings.first_cap
    }

    /// Bytes of heap that a host allows any module.
    pub fn max_heap(&self) -> Option<u64> {
        self.settings.max_cap
    }

    /// Bytes to be reserved for an order: all that its process can hold, with its files.
    pub fn bytes(&self, wasm: u64, cap: &Cap) -> u64 {
        let files = wasm.saturating_add(cap.artifact);
        (self.fixed_bytes())
            .saturating_add(files)
            .saturating_add(cap.heap)
    }

    /// Compiles, and waits for it. Nothing is left of the process, nor of its memory, when this returns: but for one that may
    /// do another job, and waits for it.
    pub fn compile(&self, order: &Order<'_>) -> Result<Made, Failure> {
        let made = self.compile_in_one(order);
        if self.settings.max_jobs > 1 {
            // The process may have died, or done its last job.
            self.refill();
        }
        made
    }

    fn compile_in_one(&self, order: &Order<'_>) -> Result<Made, Failure> {
        let deadline = Instant::now() + self.settings.time_limit;
        let mut warm = self.take(order.stop)?;
        if !self.limit(&warm, &order.cap)? {
            warm = self.take_new(order.stop)?;
            self.limit(&warm, &order.cap)?;
        }
        warm.jobs += 1;
        (order.started)(warm.process.id());
        let system = |error| Failure::Process(CompilerError::System(error));
        let out = Unsealed::new(0).map_err(system)?;
        let job = Job {
            wasm_bytes: order.wasm.len() as u64,
            artifact_bytes: order.cap.artifact,
        };
        let sent = in_memory(order.wasm).and_then(|wasm| {
            let files = [wasm.file().as_fd(), out.file().as_fd()];
            warm.process.send(&job.encode(), &files)
        });
        match sent {
            // It is dead: why is seen below.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            other => other.map_err(system)?,
        }
        if self.settings.max_jobs == 1 {
            // The next process starts while this one works.
            self.refill();
        }
        let (warm, done) = self.wait(warm, deadline, order)?;
        self.collect(warm, done, out, order)
    }

    fn limit(&self, warm: &Warm, cap: &Cap) -> Result<bool, CompilerError> {
        let idle = self.idle_use();
        let now = warm.process.memory().unwrap_or(idle);
        let fresh = |now: u64, idle: u64| match warm.jobs {
            0 => now,
            _ => idle,
        };
        let limits = ProcessLimits {
            data: fresh(now.data, idle.data).saturating_add(cap.heap),
            space: fresh(now.space, idle.space)
                .saturating_add(cap.heap)
                .saturating_add(STACK),
            file: cap.artifact,
            cpu: match warm.jobs {
                0 => 0,
                _ => cpu_seconds(warm.process.id()),
            }
            .saturating_add(self.cpu_limit()),
        };
        warm.process.limit(&limits).map_err(CompilerError::System)
    }

    fn cpu_limit(&self) -> u64 {
        let limit = self.settings.cpu_time;
        let seconds = limit.as_secs();
        seconds.saturating_add(u64::from(limit.subsec_nanos() > 0))
    }

    /// Waits for its answer.
    fn wait(
        &self,
        warm: Warm,
        deadline: Instant,
        order: &Order<'_>,
    ) -> Result<(Warm, Done), Failure> {
        loop {
            if let Some(stop) = (order.stop)() {
                return Err(Failure::Stopped(stop));
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(Failure::Time(self.settings.time_limit));
            }
            let event = warm.process.next(deadline.min(now + LOOK));
            match event.map_err(CompilerError::System)? {
                Event::Nothing => {}
                Event::End => return Err(self.explain(warm.process.end())),
                Event::Message(message) => {
                    return match Done::decode(message.bytes()) {
                        Some(done) => Ok((warm, done)),
                        None => Err(garbled("it says what no compiler says")),
                    };
                }
            }
        }
    }

    fn explain(&self, death: Death) -> Failure {
        let Death { how, words } = death;
        let is = |signal: Signal| how == How::Killed(signal.as_raw());
        if words.contains(NO_HEAP) {
            Failure::Heap
        } else if is(Signal::XFSZ) {
            Failure::Artifact(0)
        } else if is(Signal::XCPU) {
            Failure::Time(self.settings.cpu_time)
        } else {
            let (status, signal) = match how {
                How::Exited(status) => (Some(status), None),
                How::Killed(signal) => (None, Some(signal)),
                How::Unknown => (None, None),
            };
            Failure::Process(CompilerError::Died {
                status,
                signal,
                said: words,
            })
        }
    }

    /// What it has made, proved and sealed.
    fn collect(
        &self,
        warm: Warm,
        done: Done,
        out: Unsealed,
        order: &Order<'_>,
    ) -> Result<Made, Failure> {
        let peak = warm.process.memory();
        let idle = self.idle_use();
        let grown = |memory: MemoryUse| memory.peak_space.saturating_sub(idle.space);
        let heap = peak.map_or(order.cap.heap, grown);
        let made = match done {
            Done::OutOfMemory => Err(Failure::Heap),
            Done::TooLarge(bytes) => Err(Failure::Artifact(bytes)),
            Done::Failed(bytes) => Err(Failure::Module(texts(&out, bytes))),
            Done::Compiled => self.prove(out, heap, order),
        };
        // Who has lied once does nothing more.
        if !matches!(made, Err(Failure::Process(_))) {
            self.put_back(warm);
        }
        made
    }

    /// The artifact, if it is one.
    fn prove(&self, out: Unsealed, heap: u64, order: &Order<'_>) -> Result<Made, Failure> {
        let opened = seal(out, &order.key)?;
        let artifact = opened.verify_new(&Seal::digest());
        let used = Cap {
            heap,
            artifact: opened.file_bytes(),
        };
        Ok(Made {
            artifact: artifact.map_err(|error| garbled(Report(&error)))?,
            code_bytes: opened.code_bytes(),
            mapped_bytes: opened.mapped_bytes(),
            heap,
            enough: with_spare(heap).min(order.cap.heap),
            peak: self.bytes(order.wasm.len() as u64, &used),
        })
    }
}

fn with_spare(heap: u64) -> u64 {
    heap.saturating_add(SPARE.max(heap / SPARE_SHARE))
}

/// Nobody writes to it any more, the process included, nor maps it so that it could. It says that it is what was asked for.
fn seal(out: Unsealed, key: &ArtifactKey) -> Result<Opened, Failure> {
    let sealed = out.seal();
    let stored = sealed.and_then(|sealed| sealed.stored());
    let stored = stored.map_err(|error| garbled(Report(&error)))?;
    Opened::new(stored, key, u64::MAX).map_err(|error| garbled(Report(&error)))
}

fn garbled(what: impl std::fmt::Display) -> Failure {
    let what = what.to_string();
    Failure::Process(CompilerError::Garbled { what })
}

fn in_memory(bytes: &[u8]) -> std::io::Result<SealedFile> {
    let mut file = Unsealed::new(bytes.len() as u64)?;
    file.write(bytes)?;
    file.seal()
}

/// What the process has written instead of an artifact.
fn texts(out: &Unsealed, bytes: u64) -> Vec<String> {
    let mut written = vec![0; bytes.min(LONGEST_ERROR) as usize];
    let read = out.file().read_exact_at(&mut written, 0);
    let written = String::from_utf8_lossy(&written);
    let texts = written.split_terminator('\0').map(str::to_owned);
    let texts: Vec<_> = texts.collect();
    match read {
        Ok(()) if !texts.is_empty() => texts,
        _ => vec!["the compiler does not say why".to_owned()],
    }
}
