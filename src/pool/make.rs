//! Making an instance: code, room, instantiation, birth.

use std::sync::Arc;

use super::acquire::Patience;
use super::compile::Ready;
use super::definition::Defined;
use super::entry::{Entry, Live};
use super::error::{AcquireError, CallLimit};
use super::growth::Account;
use super::request::Making;
use super::reserve::{Asking, Reserving};
use super::shared::{RequestId, Shared};
use crate::runtime::{
    CallFailure, CallLimits, Instance, InstanceNeeds, InstantiateFailure, Meter, instantiate, share,
};
use crate::state::Stale;

impl<T: Send + 'static> Shared<T> {
    /// Makes an instance for the seat that was promised to `request`, and leases it.
    pub(super) async fn make(
        self: &Arc<Self>,
        entry: &Arc<Entry<T>>,
        request: RequestId<T>,
        patience: Patience,
    ) -> Result<Box<Live<T>>, AcquireError> {
        let mut making = Making::new(self, request);
        loop {
            let ready;
            (making, ready) = self.code_for(making, entry, patience).await?;
            let mut asking = Asking {
                request: making.id(),
                asker: &entry.asker,
                target: ready.needs.declared(),
                patience,
                queue: false,
            };
            match self.try_reserve(&asking) {
                Reserving::Done => {}
                Reserving::Again => continue,
                Reserving::Fail(error) => return Err(error),
                Reserving::Wait(_) => {
                    // Who waits for room keeps no code from being evicted.
                    drop(ready);
                    asking.queue = true;
                    self.reserve_or_wait(&asking).await?;
                    continue;
                }
            }
            let limits = self.settings.call_limits(&ready.defined, &self.runtime);
            let instance = self.instantiate(&making, entry, &ready, limits)?;
            let (needs, defined) = (ready.needs, ready.defined.clone());
            // The pin ends with the birth; nothing but the instance may hold the code then.
            drop(ready);
            match self.birth(&making, entry, instance, defined, needs) {
                Ok(live) => return Ok(live),
                // Replaced meanwhile: what was made is old, and gone again.
                Err(Stale) => continue,
            }
        }
    }

    fn instantiate(
        &self,
        making: &Making<T>,
        entry: &Arc<Entry<T>>,
        ready: &Ready<T>,
        limits: CallLimits,
    ) -> Result<Instance<T>, AcquireError> {
        let asker = &entry.asker;
        let _span = tracing::debug_span!(
            "instantiate",
            function = %asker.function,
            group = %asker.group,
        )
        .entered();
        if limits.have_an_end() {
            self.pulse.keep_ticking();
        }
        let meter = Meter::new(
            Box::new(Account::of_request(entry, making.id())),
            self.settings.instance.memory,
            self.settings.instance.table_elements,
            ready.needs.metered,
        );
        // Host code runs from here on; should it lease from this entry, it would wait for itself.
        let seat = self.with_state(|locked, _, _| locked.state.seat_of(making.id()));
        let _calling = seat.map(|seat| entry.slot(seat).begin_call());
        let data = (self.make_data)(&entry.name, &asker.group);
        let export = &ready.defined.export;
        let mut instance = instantiate(&self.runtime, &ready.code, data, meter, limits, export)
            .map_err(|failure| self.explain(entry, &ready.defined, failure))?;
        if let Some(hook) = &self.on_create {
            hook(&mut instance.store, &instance.exports).map_err(|error| {
                AcquireError::Instantiate {
                    asker: asker.clone(),
                    source: share(error),
                }
            })?;
        }
        Ok(instance)
    }

    fn explain(
        &self,
        entry: &Entry<T>,
        defined: &Defined,
        failure: InstantiateFailure,
    ) -> AcquireError {
        let asker = entry.asker.clone();
        let failure = match failure {
            InstantiateFailure::Start(failure) => failure,
            InstantiateFailure::Other(source) => {
                return AcquireError::Instantiate { asker, source };
            }
            InstantiateFailure::Refused(refusal) => {
                let source = Arc::new(refusal);
                return AcquireError::Instantiate { asker, source };
            }
        };
        self.observer.guest_failed(failure.kind());
        match failure {
            CallFailure::Fuel => {
                let limit = CallLimit::Fuel(self.settings.fuel_of(defined));
                AcquireError::StartLimit { asker, limit }
            }
            CallFailure::Deadline => {
                let limit = CallLimit::Time(self.settings.timeout_of(defined));
                AcquireError::StartLimit { asker, limit }
            }
            CallFailure::Trap(trap) => AcquireError::StartTrapped { asker, trap },
            CallFailure::Host(source) => AcquireError::Instantiate { asker, source },
        }
    }

    /// The instance is there: it takes its charge and its seat. If its function was replaced while
    /// it was made, it is destroyed here, and its charge stays with the request.
    fn birth(
        &self,
        making: &Making<T>,
        entry: &Arc<Entry<T>>,
        mut instance: Instance<T>,
        defined: Arc<Defined>,
        needs: InstanceNeeds,
    ) -> Result<Box<Live<T>>, Stale> {
        let held = needs.with_metered(instance.store.data_mut().meter().held());
        let now = self.pulse.now();
        let (id, seat, version, stamp) = self.with_state(|locked, hands, out| {
            let stamp = locked.stamp(now);
            let id = locked.state.born(making.id(), held, stamp, hands, out)?;
            let born = locked.state.instance(id).ok_or(Stale)?;
            let (seat, version) = (born.seat, born.version);
            entry.slot(seat).lease_new(stamp);
            Ok((id, seat, version, stamp))
        })?;
        let account = Account::of_instance(entry, id);
        instance.store.data_mut().meter().settle(Box::new(account));
        Ok(Box::new(Live {
            instance,
            id,
            asker: entry.asker.clone(),
            seat,
            pass: Entry::<T>::pass_of(version),
            limits: self.settings.call_limits(&defined, &self.runtime),
            defined,
            uses: 0,
            born: stamp.at,
        }))
    }
}
