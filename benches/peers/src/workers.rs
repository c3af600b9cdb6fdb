//! Two threads that live as long as the run, as a host's do: pools may know threads by now.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// Where one thread of a measurement stands among the others.
#[derive(Clone)]
pub struct Seat {
    pub thread: usize,
    /// All threads of the measurement.
    pub together: Arc<Barrier>,
}

pub struct Workers {
    senders: Vec<Sender<Job>>,
}

impl Workers {
    pub fn new(count: usize) -> Self {
        let start = |_| {
            let (sender, jobs) = channel::<Job>();
            thread::spawn(move || jobs.into_iter().for_each(|job| job()));
            sender
        };
        Self {
            senders: (0..count).map(start).collect(),
        }
    }

    /// Does the work on the first `threads` workers at once, and returns their results.
    pub fn run<R: Send + 'static>(
        &self,
        threads: usize,
        work: impl Fn(Seat) -> R + Send + Sync + 'static,
    ) -> Vec<R> {
        let work = Arc::new(work);
        let together = Arc::new(Barrier::new(threads));
        let (results, received) = channel();
        for (thread, sender) in self.senders[..threads].iter().enumerate() {
            let (work, results) = (work.clone(), results.clone());
            let together = together.clone();
            let job = move || {
                let result = work(Seat { thread, together });
                results.send(result).expect("the run goes on");
            };
            sender.send(Box::new(job)).expect("a worker has failed");
        }
        drop(results);
        let all: Vec<R> = received.into_iter().collect();
        assert_eq!(all.len(), threads, "a worker has failed");
        all
    }
}
