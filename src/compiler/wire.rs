//! What a pool and a process that compiles for it say to each other.
//!
//! Over a socket that keeps messages apart (`SOCK_SEQPACKET`). Each message is a tag and numbers of fixed length, in
//! little-endian order; whatever is not exactly that is not understood. Wasm and code go beside it, in files in
//! memory that the pool has made: their descriptors come with a [`Job`].
//!
//! ```text
//! pool                         process
//!   Setup  ───────────────────→          once
//!          ←─────────────────── Ready    once
//!   Job    ───────────────────→          as often as there is one
//!          ←─────────────────── Done
//! ```

use crate::runtime::EngineSettings;

/// What both must speak. Another number for each change of a message, or of what it means.
const PROTOCOL: u32 = 1;

/// Longer than any message.
pub(crate) const LONGEST: usize = 128;

/// How a process is told from a normal start of the same program: this variable is set, and its standard input is a
/// socket.
pub(crate) const MARK: &str = "WASM_POOL_COMPILER";

/// What the process is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setup {
    /// `None` if the engine is the host's own.
    pub engine: Option<EngineSettings>,
    pub niceness: u8,
}

/// The process can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    /// What its code can run in; `None` if it has no such engine.
    pub key: Option<[u8; 32]>,
    /// Whether the kernel keeps it from files and networks.
    pub landlock: bool,
    /// Whether the kernel keeps it from most system calls.
    pub seccomp: bool,
}

/// A module to compile. With it come two files: the wasm, and the one to write the artifact into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub wasm_bytes: u64,
    /// What may be written.
    pub artifact_bytes: u64,
}

/// What has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// The artifact is in its file.
    Compiled,
    /// The artifact takes so many bytes, more than may be written.
    TooLarge(u64),
    /// The module does not compile. Why is in the file: so many bytes of texts, each of which ends with a zero, from
    /// the outermost to the cause.
    Failed(u64),
    /// An allocation failed.
    OutOfMemory,
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(tag: u8) -> Self {
        let mut bytes = vec![tag];
        bytes.extend(PROTOCOL.to_le_bytes());
        Self(bytes)
    }

    fn flag(mut self, flag: bool) -> Self {
        self.0.push(flag.into());
        self
    }

    fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn hash(mut self, hash: &[u8; 32]) -> Self {
        self.0.extend(hash);
        self
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Of a message that begins so.
    fn new(tag: u8, bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Self(bytes);
        let known = reader.byte()? == tag && reader.take()? == PROTOCOL.to_le_bytes();
        known.then_some(reader)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    /// What was read, if nothing is left.
    fn end<M>(self, message: M) -> Option<M> {
        self.0.is_empty().then_some(message)
    }
}

impl Setup {
    const TAG: u8 = 1;

    pub fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(Self::TAG).byte(self.niceness);
        let writer = match &self.engine {
            None => writer.flag(false),
            Some(engine) => writer
                .flag(true)
                .flag(engine.interrupt)
                .flag(engine.fuel)
                .flag(engine.backtraces)
                .number(engine.max_wasm_stack as u64)
                .number(engine.async_stack_size as u64),
        };
        writer.0
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(Self::TAG, bytes)?;
        let niceness = reader.byte()?;
        let engine = match reader.flag()? {
            false => None,
            true => Some(EngineSettings {
                interrupt: reader.flag()?,
                fuel: reader.flag()?,
                backtraces: reader.flag()?,
                max_wasm_stack: reader.size()?,
                async_stack_size: reader.size()?,
            }),
        };
        reader.end(Self { engine, niceness })
    }
}

impl Ready {
    const TAG: u8 = 2;

    pub fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(Self::TAG)
            .flag(self.landlock)
            .flag(self.seccomp);
        match &self.key {
            None => writer.flag(false).0,
            Some(key) => writer.flag(true).hash(key).0,
        }
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(Self::TAG, bytes)?;
        let (landlock, seccomp) = (reader.flag()?, reader.flag()?);
        let key = match reader.flag()? {
            false => None,
            true => Some(reader.take()?),
        };
        reader.end(Self {
            key,
            landlock,
            seccomp,
        })
    }
}

impl Job {
    const TAG: u8 = 3;

    pub fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(Self::TAG).number(self.wasm_bytes);
        writer.number(self.artifact_bytes).0
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(Self::TAG, bytes)?;
        let (wasm_bytes, artifact_bytes) = (reader.number()?, reader.number()?);
        reader.end(Self {
            wasm_bytes,
            artifact_bytes,
        })
    }
}

impl Done {
    const TAG: u8 = 4;

    pub fn encode(&self) -> Vec<u8> {
        let (what, number) = match *self {
            Self::Compiled => (0, 0),
            Self::TooLarge(bytes) => (1, bytes),
            Self::Failed(bytes) => (2, bytes),
            Self::OutOfMemory => (3, 0),
        };
        Writer::new(Self::TAG).byte(what).number(number).0
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(Self::TAG, bytes)?;
        let done = match (reader.byte()?, reader.number()?) {
            (0, 0) => Self::Compiled,
            (1, bytes) => Self::TooLarge(bytes),
            (2, bytes) => Self::Failed(bytes),
            (3, 0) => Self::OutOfMemory,
            _ => return None,
        };
        reader.end(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<M: PartialEq + std::fmt::Debug>(
        message: &M,
        bytes: &[u8],
        decode: impl Fn(&[u8]) -> Option<M>,
    ) {
        assert!(bytes.len() < LONGEST);
        assert_eq!(decode(bytes).as_ref(), Some(message));
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "cut after {end}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(decode(&longer), None);
        let mut other = bytes.to_vec();
        other[1] ^= 1;
        assert_eq!(decode(&other), None, "of another protocol");
    }

    #[test]
    fn what_is_said_is_understood_and_nothing_else() {
        let engine = EngineSettings {
            interrupt: true,
            fuel: false,
            max_wasm_stack: 1 << 19,
            async_stack_size: 1 << 20,
            backtraces: true,
        };
        for engine in [None, Some(engine)] {
            let setup = Setup {
                engine,
                niceness: 3,
            };
            check(&setup, &setup.encode(), Setup::decode);
        }
        for key in [None, Some([7; 32])] {
            let ready = Ready {
                key,
                landlock: true,
                seccomp: false,
            };
            check(&ready, &ready.encode(), Ready::decode);
        }
        let job = Job {
            wasm_bytes: 5,
            artifact_bytes: u64::MAX,
        };
        check(&job, &job.encode(), Job::decode);
        for done in [
            Done::Compiled,
            Done::TooLarge(9),
            Done::Failed(3),
            Done::OutOfMemory,
        ] {
            check(&done, &done.encode(), Done::decode);
        }
        assert_eq!(Done::decode(&job.encode()), None);
    }
}
