//! Connection pools that a manager makes objects for: deadpool and r2d2.

use std::convert::Infallible;

use deadpool::managed::{Manager, Metrics, Pool, RecycleResult};
use r2d2::ManageConnection;

use crate::guest::{Guest, Workshop};
use crate::measure::Peer;
use crate::peers::INSTANCES;
use crate::workers::Seat;

/// Asynchronous; here each `get` blocks the thread with pollster.
pub struct Deadpool(Pool<Instances>);

/// Synchronous, without its test on check-out, which would cost extra.
pub struct R2d2(r2d2::Pool<Instances>);

pub struct Instances(Workshop);

impl Deadpool {
    pub fn new(workshop: &Workshop) -> Self {
        let pool = Pool::builder(Instances(workshop.clone())).max_size(INSTANCES);
        Self(pool.build().expect("there are no time-outs"))
    }
}

impl R2d2 {
    pub fn new(workshop: &Workshop) -> Self {
        let pool = r2d2::Pool::builder()
            .max_size(INSTANCES as u32)
            .test_on_check_out(false)
            .build(Instances(workshop.clone()));
        Self(pool.expect("instances can be made"))
    }
}

impl Manager for Instances {
    type Type = Guest;
    type Error = Infallible;

    async fn create(&self) -> Result<Guest, Infallible> {
        Ok(self.0.make())
    }

    async fn recycle(&self, guest: &mut Guest, _: &Metrics) -> RecycleResult<Infallible> {
        guest.refresh();
        Ok(())
    }
}

impl ManageConnection for Instances {
    type Connection = Guest;
    type Error = Infallible;

    fn connect(&self) -> Result<Guest, Infallible> {
        Ok(self.0.make())
    }

    fn is_valid(&self, _: &mut Guest) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Guest) -> bool {
        false
    }
}

impl Peer for Deadpool {
    type Hand = ();

    fn hand(&self, _: &Seat, _: u64) {}

    #[inline]
    fn call(&self, (): &mut (), a: i64, b: i64) -> i64 {
        let guest = pollster::block_on(self.0.get());
        guest.expect("the pool is open").add(a, b)
    }
}

impl Peer for R2d2 {
    type Hand = ();

    fn hand(&self, _: &Seat, _: u64) {}

    #[inline]
    fn call(&self, (): &mut (), a: i64, b: i64) -> i64 {
        let guest = self.0.get();
        guest.expect("the pool is open").add_afresh(a, b)
    }
}
