//! What one writes in an afternoon: two instances of one function in a shared collection.
//! No key, no limit, no order of use; a poisoned or trapped instance is not looked for.

use std::sync::Mutex;

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use crossbeam_utils::atomic::AtomicCell;

use crate::guest::{Guest, Workshop};
use crate::measure::Peer;
use crate::peers::INSTANCES;
use crate::workers::Seat;

/// A `Vec` behind std's mutex.
pub struct StdMutex(Mutex<Vec<Guest>>, Workshop);

/// A `Vec` behind parking_lot's mutex.
pub struct ParkingLot(parking_lot::Mutex<Vec<Guest>>, Workshop);

/// A bounded lock-free queue, first in, first out.
pub struct Queue(ArrayQueue<Guest>, Workshop);

/// A cell for each thread that its instance is exchanged out of and into; the other thread's
/// cells are looked at too.
pub struct Cells([CachePadded<AtomicCell<Option<Box<Guest>>>>; INSTANCES]);

impl StdMutex {
    pub fn new(workshop: &Workshop) -> Self {
        Self(Mutex::new(several(workshop).collect()), workshop.clone())
    }
}

impl ParkingLot {
    pub fn new(workshop: &Workshop) -> Self {
        let guests = several(workshop).collect();
        Self(parking_lot::Mutex::new(guests), workshop.clone())
    }
}

impl Queue {
    pub fn new(workshop: &Workshop) -> Self {
        let queue = ArrayQueue::new(INSTANCES);
        several(workshop).for_each(|guest| drop(queue.push(guest)));
        Self(queue, workshop.clone())
    }
}

impl Cells {
    pub fn new(workshop: &Workshop) -> Self {
        let cell = || CachePadded::new(AtomicCell::new(Some(Box::new(workshop.make()))));
        Self(std::array::from_fn(|_| cell()))
    }
}

fn several(workshop: &Workshop) -> impl Iterator<Item = Guest> {
    (0..INSTANCES).map(|_| workshop.make())
}

impl Peer for StdMutex {
    type Hand = ();

    fn hand(&self, _: &Seat, _: u64) {}

    #[inline]
    fn call(&self, (): &mut (), a: i64, b: i64) -> i64 {
        let idle = self.0.lock().expect("nobody panics").pop();
        let mut guest = idle.unwrap_or_else(|| self.1.make());
        let sum = guest.add_afresh(a, b);
        self.0.lock().expect("nobody panics").push(guest);
        sum
    }
}

impl Peer for ParkingLot {
    type Hand = ();

    fn hand(&self, _: &Seat, _: u64) {}

    #[inline]
    fn call(&self, (): &mut (), a: i64, b: i64) -> i64 {
        let idle = self.0.lock().pop();
        let mut guest = idle.unwrap_or_else(|| self.1.make());
        let sum = guest.add_afresh(a, b);
        self.0.lock().push(guest);
        sum
    }
}

impl Peer for Queue {
    type Hand = ();

    fn hand(&self, _: &Seat, _: u64) {}

    #[inline]
    fn call(&self, (): &mut (), a: i64, b: i64) -> i64 {
        let mut guest = self.0.pop().unwrap_or_else(|| self.1.make());
        let sum = guest.add_afresh(a, b);
        drop(self.0.push(guest));
        sum
    }
}

impl Peer for Cells {
    type Hand = usize;

    fn hand(&self, seat: &Seat, _: u64) -> usize {
        seat.thread
    }

    #[inline]
    fn call(&self, own: &mut usize, a: i64, b: i64) -> i64 {
        let mut place = *own;
        loop {
            if let Some(mut guest) = self.0[place].take() {
                let sum = guest.add_afresh(a, b);
                self.0[place].store(Some(guest));
                return sum;
            }
            place = (place + 1) % INSTANCES;
        }
    }
}
