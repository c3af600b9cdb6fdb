//! A thread that sleeps until it is told something.

use std::sync::Arc;

use super::clock::Pulse;
use super::entry::Live;
use super::shared::Signal;
use crate::sync::{Condvar, Mutex};

/// What a sleeper is told, or handed.
pub(crate) enum Mail<T: Send + 'static> {
    Instance(Box<Live<T>>),
    Signal(Signal<T>),
}

pub(crate) struct Waiter<T: Send + 'static> {
    mail: Mutex<Option<Mail<T>>>,
    bell: Condvar,
}

impl<T: Send + 'static> Waiter<T> {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            mail: Mutex::new(None),
            bell: Condvar::new(),
        })
    }

    pub fn deliver(&self, mail: Mail<T>) {
        *self.mail.lock() = Some(mail);
        self.bell.notify_one();
    }

    /// Sleeps until there is mail, or until `deadline` (nanoseconds on the pool's clock).
    pub fn wait(&self, deadline: u64, pulse: &Pulse) -> Option<Mail<T>> {
        loop {
            // The clock may be the host's: not under the lock.
            let remaining = deadline.saturating_sub(pulse.now());
            let sleep = pulse.sleep_for(remaining);
            let mut mail = self.mail.lock();
            if mail.is_some() || remaining == 0 {
                return mail.take();
            }
            self.bell.wait_for(&mut mail, sleep);
            if mail.is_some() {
                return mail.take();
            }
        }
    }

    /// Sleeps until the mail that is already on its way arrives.
    pub fn wait_for_delivery(&self) -> Mail<T> {
        let mut mail = self.mail.lock();
        loop {
            match mail.take() {
                Some(mail) => return mail,
                None => self.bell.wait(&mut mail),
            }
        }
    }
}
