//! The pool's own threads, and what it waits for when it ends.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::sync::unchecked::thread::{self, JoinHandle, ThreadId};
use crate::sync::unchecked::{Condvar, Mutex};

/// How long the end of a pool waits for threads that are in host code, which may never return.
const GRACE: Duration = Duration::from_millis(100);

/// Bytes that any thread has by default.
const STACK: usize = 2 << 20;

/// Threads that are waited for at the end; but not for long, if they are in host code.
pub(crate) struct Threads {
    members: Mutex<Members>,
    /// One has returned from host code.
    returned: Condvar,
}

struct Members {
    /// Those that are not in host code.
    waited_for: HashMap<ThreadId, JoinHandle<()>>,
    /// Those that are.
    aside: Vec<ThreadId>,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Entered at the beginning; left by `join` or `detach`.
    Running,
    /// All have been told to end, and are waited for: none may begin host code any more.
    Joining,
    /// Nobody will wait for them.
    Detached,
}

impl Threads {
    pub fn new() -> Self {
        Self {
            members: Mutex::new(Members {
                waited_for: HashMap::new(),
                aside: Vec::new(),
                end: End::Running,
            }),
            returned: Condvar::new(),
        }
    }

    /// Starts one.
    ///
    /// # Errors
    /// The system's, which has no thread to give.
    pub fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.start_with_stack(name, 0, work)
    }

    /// The same, with so many bytes of stack for guests, beside what any thread has.
    ///
    /// # Errors
    /// The system's, which has no thread to give.
    pub fn start_with_stack(
        &self,
        name: &str,
        bytes: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let mut members = self.members.lock();
        members.waited_for.retain(|_, thread| !thread.is_finished());
        let builder = thread::Builder::new().name(name.into());
        let builder = match bytes {
            0 => builder,
            bytes => builder.stack_size(STACK.saturating_add(bytes)),
        };
        let thread = builder.spawn(work)?;
        if members.end == End::Running {
            members.waited_for.insert(thread.thread().id(), thread);
        }
        Ok(())
    }

    /// Runs host code on one of these threads, for which nobody waits for long. `None`, without running it, if
    /// somebody waits for this thread already.
    pub fn aside<R>(&self, run: impl FnOnce() -> R) -> Option<R> {
        let id = thread::current().id();
        let own = {
            let mut members = self.members.lock();
            if members.end == End::Joining {
                return None;
            }
            members.aside.push(id);
            members.waited_for.remove(&id)
        };
        let result = run();
        let mut members = self.members.lock();
        members.aside.retain(|other| *other != id);
        members.waited_for.extend(own.map(|own| (id, own)));
        self.returned.notify_all();
        Some(result)
    }

    /// Waits until all have ended. They have been told to.
    pub fn join(&self) {
        let own = thread::current().id();
        let threads = {
            let mut members = self.members.lock();
            members.end = End::Joining;
            let until = Instant::now() + GRACE;
            // One of them may be the one who drops the last handle.
            while members.aside.iter().any(|id| *id != own) {
                if self.returned.wait_until(&mut members, until).timed_out() {
                    break;
                }
            }
            std::mem::take(&mut members.waited_for)
        };
        for (id, thread) in threads {
            if id != own {
                // Its panics have been reported where they happened.
                let _ = thread.join();
            }
        }
    }

    /// Nobody waits for them: they end when their work is done.
    pub fn detach(&self) {
        let mut members = self.members.lock();
        members.end = End::Detached;
        members.waited_for.clear();
    }
}
