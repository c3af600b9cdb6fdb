//! The pool's own threads, and what it waits for when it ends.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::sync::unchecked::thread::{self, JoinHandle, ThreadId};
use crate::sync::unchecked::{Condvar, Mutex};

/// How long the end of a pool waits for threads that are in host code, which may never return.
const GRACE: Duration = Duration::from_millis(100);

/// Threads that are waited for at the end; but not for long, if they are in host code.
pub(crate) struct Threads {
    group: Mutex<Group>,
    /// One has returned from host code.
    returned: Condvar,
}

struct Group {
    /// Those that are not in host code.
    waited_for: HashMap<ThreadId, JoinHandle<()>>,
    /// Those that are.
    aside: Vec<ThreadId>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
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
            group: Mutex::new(Group {
                waited_for: HashMap::new(),
                aside: Vec::new(),
                phase: Phase::Running,
            }),
            returned: Condvar::new(),
        }
    }

    /// Starts one.
    ///
    /// # Errors
    /// The system's, which has no thread to give.
    pub fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let mut group = self.group.lock();
        group.waited_for.retain(|_, thread| !thread.is_finished());
        let thread = thread::Builder::new().name(name.into()).spawn(work)?;
        if group.phase == Phase::Running {
            group.waited_for.insert(thread.thread().id(), thread);
        }
        Ok(())
    }

    /// Runs host code on one of these threads, for which nobody waits for long. `None`, without running it, if
    /// somebody waits for this thread already.
    pub fn aside<R>(&self, run: impl FnOnce() -> R) -> Option<R> {
        let id = thread::current().id();
        let own = {
            let mut group = self.group.lock();
            if group.phase == Phase::Joining {
                return None;
            }
            group.aside.push(id);
            group.waited_for.remove(&id)
        };
        let result = run();
        let mut group = self.group.lock();
        group.aside.retain(|other| *other != id);
        group.waited_for.extend(own.map(|own| (id, own)));
        self.returned.notify_all();
        Some(result)
    }

    /// Waits until all have ended. They have been told to.
    pub fn join(&self) {
        let own = thread::current().id();
        let threads = {
            let mut group = self.group.lock();
            group.phase = Phase::Joining;
            let until = Instant::now() + GRACE;
            // One of them may be the one who drops the last handle.
            while group.aside.iter().any(|id| *id != own) {
                if self.returned.wait_until(&mut group, until).timed_out() {
                    break;
                }
            }
            std::mem::take(&mut group.waited_for)
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
        let mut group = self.group.lock();
        group.phase = Phase::Detached;
        group.waited_for.clear();
    }
}
