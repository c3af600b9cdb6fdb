//! Turns to compile: as many compile at once as may, and the others wait in lines.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::state::{CompilePlace, Effects, Group, ModuleId, RequestId, Sleeper, State, Types};

impl<H: Types> State<H> {
    /// Work for no function asks for its turn: true when it has it, until it is abandoned. If not, it waits for
    /// one, then asks again.
    pub fn ask_for_turn(&mut self, id: RequestId<H>, out: &mut Effects<H>) -> bool {
        self.give_back_turn(id);
        let has_turn = self.take_turn(id);
        self.wake_compiler(out);
        has_turn
    }

    /// The request sleeps until it is its turn to compile a module of this size, in bytes.
    pub fn wait_for_compiler(
        &mut self,
        id: RequestId<H>,
        size: u64,
        waiter: H::Waiter,
        until: u64,
    ) {
        let group = self.group_of(id);
        self.requests[id].asleep_until = Some(until);
        let sleeper = Sleeper {
            waiter,
            until,
            request: Some(id),
        };
        let place = self.compile_turns.join(&group, size, sleeper);
        self.requests[id].compiles = Some(Box::new(CompilePlace::Waiting(group, place)));
    }

    /// It waits no more. If it was woken already, its turn is for the next.
    pub fn leave_compilers(&mut self, id: RequestId<H>, out: &mut Effects<H>) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        if let Some(CompilePlace::Waiting(group, place)) = request.compiles.as_deref() {
            let sleeper = self.compile_turns.leave(group, *place);
            request.compiles = None;
            self.has_left(sleeper);
        } else {
            self.give_back_turn(id);
            self.wake_compiler(out);
        }
    }

    /// Takes a turn, if one is free; true when it has one.
    pub(crate) fn take_turn(&mut self, id: RequestId<H>) -> bool {
        let group = self.group_of(id);
        let has_turn = self.compile_turns.take(&group);
        if has_turn {
            let turn = CompilePlace::Turn(group, self.now);
            self.requests[id].compiles = Some(Box::new(turn));
        }
        has_turn
    }

    /// Whoever was promised a turn, and does not take it now, has none.
    pub(crate) fn give_back_turn(&mut self, id: RequestId<H>) {
        let place = &mut self.requests[id].compiles;
        if let Some(CompilePlace::Promised(group)) = place.as_deref() {
            self.compile_turns.give_back(group);
            *place = None;
        }
    }

    /// The request compiles no more.
    pub(crate) fn end_turn(&mut self, id: RequestId<H>, out: &mut Effects<H>) {
        let place = self.requests.get_mut(id).and_then(|r| r.compiles.take());
        self.leave_place(place);
        self.wake_compiler(out);
    }

    /// Its place is free, whatever it is.
    pub(crate) fn leave_place(&mut self, place: Option<Box<CompilePlace>>) {
        match place.map(|place| *place) {
            None => {}
            Some(CompilePlace::Waiting(group, place)) => {
                self.compile_turns.leave(&group, place);
            }
            Some(CompilePlace::Promised(group)) => self.compile_turns.give_back(&group),
            Some(CompilePlace::Turn(group, since)) => {
                self.compile_turns.end(&group, self.now - since);
            }
        }
    }

    /// The module's flight has ended. Who waits to compile it, since its group has as many turns as it may, would wait beside
    /// its code until one of those is over: it looks again.
    pub(crate) fn wake_from_lines(&mut self, module: ModuleId<H>, out: &mut Effects<H>) {
        if self.compile_turns.len() == 0 || !self.compile_turns.limits_groups() {
            return;
        }
        let requests = self
            .requests
            .iter()
            .filter(|(_, r)| r.module == Some(module));
        let waiting = requests.filter_map(|(id, request)| match request.compiles.as_deref()? {
            CompilePlace::Waiting(group, place) => Some((id, group.clone(), *place)),
            CompilePlace::Promised(_) | CompilePlace::Turn(..) => None,
        });
        for (id, group, place) in waiting.collect::<Vec<_>>() {
            let sleeper = self.compile_turns.leave(&group, place);
            self.requests[id].compiles = None;
            if let Some(sleeper) = sleeper {
                self.wake(sleeper, out);
            }
        }
    }

    /// Whoever is next is woken, as long as there are free turns.
    pub(crate) fn wake_compiler(&mut self, out: &mut Effects<H>) {
        loop {
            let mut late = Vec::new();
            let next = self.compile_turns.promise(self.now, &mut late);
            for sleeper in &late {
                if let Some(request) = sleeper.request.and_then(|id| self.requests.get_mut(id)) {
                    request.compiles = None;
                }
            }
            self.notify_late(late, out);
            let Some((group, sleeper)) = next else {
                return;
            };
            match sleeper.request.and_then(|id| self.requests.get_mut(id)) {
                Some(request) => {
                    request.compiles = Some(Box::new(CompilePlace::Promised(group)));
                    self.wake(sleeper, out);
                }
                // Nobody is there to take it.
                None => self.compile_turns.give_back(&group),
            }
        }
    }

    /// The group in whose share a request counts; nobody's, of what makes no instance.
    pub(crate) fn group_of(&self, id: RequestId<H>) -> Group {
        let seat = self.requests[id].seat;
        let entry = seat.map(|(entry, _)| entry);
        let entry = entry.filter(|entry| self.entries.get(*entry).is_some());
        entry.map_or(Group::NOBODY, |entry| self.share_group(entry).clone())
    }
}
