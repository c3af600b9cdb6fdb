//! The thread that starts processes, for as long as the pool has any: the kernel kills a process when the thread ends that
//! has started it (`PR_SET_PDEATHSIG`), and other threads come and go.

use std::io;
use std::path::PathBuf;

use super::process::Process;
use crate::sync::unchecked::channel::{Sender, bounded};
use crate::sync::unchecked::thread::{Builder, JoinHandle};

type Answer = Sender<io::Result<Process>>;

pub(super) struct Starter {
    /// `None` at the end.
    asks: Option<Sender<Answer>>,
    thread: Option<JoinHandle<()>>,
}

impl Starter {
    pub fn new(program: PathBuf) -> io::Result<Self> {
        let (asks, asked) = bounded::<Answer>(0);
        let start = move || {
            for answer in asked {
                // Whoever has asked may be gone: then the process is killed as it is dropped.
                drop(answer.send(Process::start(&program)));
            }
        };
        let thread = Builder::new()
            .name("wasm-pool starter".into())
            .spawn(start)?;
        Ok(Self {
            asks: Some(asks),
            thread: Some(thread),
        })
    }

    pub fn start(&self) -> io::Result<Process> {
        let (answer, answered) = bounded(1);
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let asks = self.asks.as_ref().ok_or_else(gone)?;
        asks.send(answer).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
