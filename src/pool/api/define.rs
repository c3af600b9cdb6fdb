//! Names: define, replace, remove, look up.

use std::any::TypeId;
use std::sync::Arc;

use crate::pool::Pool;
use crate::pool::api::define_error::{DefineError, LookupError, UnknownFunction};
use crate::pool::api::definition::sealed::Check;
use crate::pool::api::definition::{CallTypes, Definition, HandleTypes, Parts};
use crate::pool::api::function::{Function, Identity};
use crate::pool::api::function_name::FunctionName;
use crate::pool::defined::{Defined, InstanceLimits, fresh_uid};
use crate::pool::shared::{Context, EntryId, FunctionId, Locked, ShellTypes};
use crate::pool::time::clock::nanos;
use crate::runtime::TypeText;
use crate::state::{DefineRefused, Group, NewFunction, signature};

impl<T: Send + 'static> Pool<T> {
    /// Defines a function. Nothing is compiled yet; but the module's sections are read, so that
    /// what can be seen to be wrong is an error now, and not at the first call.
    ///
    /// Costs a hash over the wasm and a look at its sections: less than a microsecond for each
    /// kilobyte. The same bytes under two names are one module.
    ///
    /// # Errors
    /// See [`DefineError`].
    pub fn define<P, R>(&self, definition: Definition) -> Result<Function<P, R, T>, DefineError>
    where
        (P, R): CallTypes,
    {
        let parts = definition.into_parts()?;
        let signature = parts.signature.clone();
        let new = self.new_function::<P, R>(parts, None)?;
        self.insert(signature, new, |locked, new, _| locked.state.define(new))
    }

    /// Gives a defined function other code. When this returns, no call that starts later runs old
    /// code, even one whose compilation was under way. Leases end as they please; their instances
    /// are then retired. Handles stay valid.
    ///
    /// A function keeps its wasm types, unless [`Definition::allow_type_change`] says that others are
    /// meant. Then handles with the old types get [`AcquireError::TypeChanged`], before anything is
    /// made for them; those with values ([`Dynamic`](crate::Dynamic)) go on, with a look-up by name
    /// in each acquire: get a new handle.
    ///
    /// [`AcquireError::TypeChanged`]: crate::AcquireError::TypeChanged
    ///
    /// # Errors
    /// [`DefineError::NotDefined`] if there is none of this name and these argument types;
    /// [`DefineError::TypeChanged`]; and as [`Self::define`]. The old code stays in use then.
    pub fn replace<P, R>(&self, definition: Definition) -> Result<Function<P, R, T>, DefineError>
    where
        (P, R): CallTypes,
    {
        let parts = definition.into_parts()?;
        let old = self.find(&parts).ok_or_else(|| DefineError::NotDefined {
            target: parts.signature.clone(),
        })?;
        let signature = parts.signature.clone();
        let new = self.new_function::<P, R>(parts, Some(&old))?;
        let stays = new.definition.uid == old.uid;
        self.insert(signature, new, |locked, new, cx| {
            // Meanwhile the name may have been given to another function, which is not this one's
            // to replace: handles and threads' tables know functions by their uid.
            let id = locked.state.find(&new.name, &new.arguments);
            let current = id.and_then(|id| locked.state.function(id));
            if !locked.state.is_closed() && current.is_none_or(|f| f.definition.uid != old.uid) {
                return Err(DefineRefused::Unknown);
            }
            match stays {
                true => locked.state.replace(new, cx),
                false => locked.state.replace_by_another(new, cx),
            }
        })
    }

    /// Removes a function: every overload of a name, or the one with these argument types, as in
    /// `math.add(bigint, bigint)`. Its idle instances are evicted, leases end as they please. Code
    /// that no other function uses is freed with the last instance.
    ///
    /// # Errors
    /// [`UnknownFunction`] if none is defined.
    pub fn remove(&self, name: impl Into<FunctionName>) -> Result<(), UnknownFunction> {
        self.remove_and_list(name.into()).map(drop)
    }

    /// Removes it; its entries that something is leased from still.
    pub(super) fn remove_and_list(
        &self,
        name: FunctionName,
    ) -> Result<Vec<EntryId<T>>, UnknownFunction> {
        self.shared.with_state(|locked, cx| {
            let overloads = functions_of(locked, &name);
            if overloads.is_empty() {
                return Err(UnknownFunction {
                    target: name.given().into(),
                });
            }
            let state = &mut locked.state;
            let mut left = Vec::new();
            for id in overloads {
                left.extend(state.function(id).iter().flat_map(|f| f.entries.values()));
                state.remove(id, cx);
            }
            left.retain(|id| state.entry_handle(*id).is_some());
            Ok(left)
        })
    }

    /// Forgets what is held against a function (all overloads of a name without argument types), in all groups: it is refused no
    /// more, and the next quarantine takes as many failures as the first.
    ///
    /// # Errors
    /// There is no such function.
    pub fn lift_quarantine(&self, name: impl Into<FunctionName>) -> Result<(), UnknownFunction> {
        let name = name.into();
        let lifted = self.shared.with_state(|locked, _| {
            let functions = functions_of(locked, &name);
            functions
                .iter()
                .for_each(|id| locked.state.lift_quarantine(*id));
            functions.len()
        });
        match lifted {
            0 => Err(UnknownFunction {
                target: name.given().into(),
            }),
            _ => Ok(()),
        }
    }

    /// The handle of a function that is defined: by name, or by name and argument types, as in
    /// `math.add(bigint, bigint)`; see [`FunctionName`].
    ///
    /// # Errors
    /// See [`LookupError`].
    pub fn function<P, R>(
        &self,
        name: impl Into<FunctionName>,
    ) -> Result<Function<P, R, T>, LookupError>
    where
        (P, R): CallTypes,
    {
        let name = name.into();
        let found = self.shared.with_state(|locked, _| {
            let ids = functions_of(locked, &name);
            let function = |id: FunctionId<T>| {
                let function = locked.state.function(id)?;
                let full = signature(&function.name, &function.arguments);
                Some((id, full, function.definition.clone()))
            };
            ids.into_iter().filter_map(function).collect::<Vec<_>>()
        });
        let mut found = found.into_iter();
        let (id, full, defined) = match (found.next(), found.len()) {
            (None, _) => {
                let target = name.given().into();
                return Err(LookupError::Unknown { target });
            }
            (Some(one), 0) => one,
            (Some((_, first, _)), _) => {
                let others = found.map(|(_, full, _)| full);
                let overloads = std::iter::once(first).chain(others).collect();
                let target = name.given().into();
                return Err(LookupError::Ambiguous { target, overloads });
            }
        };
        let known = defined.types == TypeId::of::<(P, R)>();
        if !known && !<(P, R)>::matches(self.engine(), &defined.declared) {
            return Err(LookupError::WrongType {
                target: full.into(),
                found: TypeText(&defined.declared).to_string(),
                expected: <(P, R)>::describe(),
            });
        }
        Ok(Function::new(
            self.shared.clone(),
            Identity::of(id, &defined),
            full.into(),
            HandleTypes::of::<(P, R)>(),
            defined,
        ))
    }

    fn find(&self, parts: &Parts) -> Option<Arc<Defined>> {
        self.shared.with_state(|locked, _| {
            let id = locked.state.find(&parts.name, &parts.arguments)?;
            Some(locked.state.function(id)?.definition.clone())
        })
    }

    fn counts_for_another(&self, parts: &Parts) -> bool {
        self.shared.with_state(|locked, _| {
            let old = locked.state.find(&parts.name, &parts.arguments);
            old.is_some_and(|id| locked.state.counts_for_another(id, parts.owner.as_ref()))
        })
    }

    /// What the core is given: checked as far as the module's sections and the pool's settings show. Of the
    /// function that it replaces, it keeps the identity if it keeps the type, and the hits in any case.
    fn new_function<P, R>(
        &self,
        parts: Parts,
        replaced: Option<&Defined>,
    ) -> Result<NewFunction<ShellTypes<T>>, DefineError>
    where
        (P, R): CallTypes,
    {
        let shared = &self.shared;
        let function = || parts.signature.clone();
        let lacks = |setting, needs| DefineError::EngineLacks {
            target: function(),
            setting,
            needs,
        };
        if parts.limits.fuel.is_some() && !shared.runtime.meters_fuel() {
            return Err(lacks("fuel", "consume_fuel"));
        }
        if parts.limits.timeout.is_some() && !shared.runtime.interrupts() {
            return Err(lacks("call_timeout", "epoch_interruption"));
        }
        let most = shared.settings.instance;
        let own = (shared.settings).of_function(parts.limits, &parts.name, &parts.arguments);
        let check = own.check(most.memory, shared.settings.max_instances_per_entry);
        check.map_err(|source| DefineError::Limits {
            target: function(),
            source,
        })?;
        let limits = InstanceLimits {
            memory: own.max_memory.unwrap_or(most.memory),
            ..most
        };
        let modules = &shared.settings.modules;
        let places = shared.runtime.places();
        let (source, declared) =
            parts.inspect::<(P, R), T>(self.engine(), &shared.imports, limits, modules, places)?;
        let same_type = replaced.filter(|old| old.declared == declared);
        // What counts in another share is another function, which handles and threads' tables know by another uid.
        let same = same_type.filter(|_| !self.counts_for_another(&parts));
        if let Some(old) = replaced
            && same_type.is_none()
            && !parts.may_change_type
        {
            return Err(DefineError::TypeChanged {
                old: TypeText(&old.declared).to_string(),
                new: TypeText(&declared).to_string(),
                target: parts.signature,
            });
        }
        let uid = same.map_or_else(fresh_uid, |old| old.uid);
        let key = source.key(shared.runtime.key());
        let call_limits = (shared.settings).call_limits(own.fuel, own.timeout, &shared.runtime);
        let defined = Defined {
            limits: call_limits,
            max_uses: own.max_uses(),
            max_memory: limits.memory,
            uid,
            origin: replaced.map_or(uid, |old| old.origin),
            export: parts.export,
            declared,
            types: TypeId::of::<(P, R)>(),
            timeout: own.timeout.map_or(u64::MAX, nanos),
            past_hits: replaced.map_or_else(Arc::default, |old| old.past_hits.clone()),
        };
        Ok(NewFunction {
            name: parts.name,
            arguments: parts.arguments,
            definition: Arc::new(defined),
            key,
            source,
            terms: own.terms(),
            owner: parts.owner,
        })
    }

    fn insert<P, R>(
        &self,
        signature: Arc<str>,
        new: NewFunction<ShellTypes<T>>,
        insert: impl FnOnce(
            &mut Locked<T>,
            NewFunction<ShellTypes<T>>,
            &mut Context<T>,
        ) -> Result<FunctionId<T>, DefineRefused>,
    ) -> Result<Function<P, R, T>, DefineError>
    where
        (P, R): CallTypes,
    {
        let (target, defined) = (signature, new.definition.clone());
        let owner = new.owner.as_ref().map(|owner| owner.group.clone());
        if defined.is_pristine() {
            self.shared.start_recycler();
        }
        // If it is refused, its imports are dropped here, and not under the lock.
        let _source = new.source.clone();
        let inserted = self.shared.with_state(|locked, cx| insert(locked, new, cx));
        match inserted {
            Ok(id) => Ok(Function::new(
                self.shared.clone(),
                Identity::of(id, &defined),
                target,
                HandleTypes::of::<(P, R)>(),
                defined,
            )),
            Err(DefineRefused::Closed) => Err(DefineError::Closed { target }),
            Err(DefineRefused::Exists) => Err(DefineError::AlreadyDefined { target }),
            Err(DefineRefused::Unknown) => Err(DefineError::NotDefined { target }),
            Err(DefineRefused::TooMany(limit)) => Err(DefineError::TooMany {
                target,
                owner: owner.unwrap_or(Group::NOBODY),
                limit,
            }),
        }
    }
}

/// Every overload of a name, the oldest first; or the one with these argument types.
fn functions_of<T: Send + 'static>(locked: &Locked<T>, name: &FunctionName) -> Vec<FunctionId<T>> {
    let state = &locked.state;
    match name.parts() {
        None => Vec::new(),
        Some((name, None)) => state.overloads(name),
        Some((name, Some(arguments))) => state.find(name, arguments).into_iter().collect(),
    }
}
