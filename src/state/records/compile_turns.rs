//! Turns to compile: who has one, and who waits for one.
//!
//! Between groups, the next turn is for the one that has the fewest, and among those for the one that has had the
//! least time of turns since somebody began to wait: so a group that asks for many delays another's one by at most
//! one turn. A newcomer begins with what the least of the others has had.
//!
//! A group may have a limit of its own: at it, the turns that are free are for others.
//!
//! Within a group the smaller goes before the larger, but not for ever: a module is passed by later ones of no more
//! than its own size together.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::group::Group;
use super::queue::Sleeper;
use crate::state::Types;

/// The place of a request among those who compile, or wait for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompilePlace {
    /// It waits in its group's line.
    Waiting(Group, InLine),
    /// It has been woken, and is to take its turn or to pass it on.
    Promised(Group),
    /// It has had its turn since then, in nanoseconds since the clock's origin.
    Turn(Group, u64),
}

/// A place in a line. In order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InLine {
    /// What the line has been served when this came, and its own size.
    due: u64,
    number: u64,
}

/// The requests of one group.
struct Line<H: Types> {
    /// Turns that are taken or promised.
    turns: usize,
    /// Nanoseconds of turns that have ended.
    used: u64,
    /// Bytes: the sizes of all whose turn has come.
    served: u64,
    waiting: BTreeMap<InLine, (u64, Sleeper<H>)>,
}

impl<H: Types> Line<H> {
    const fn new() -> Self {
        Self {
            turns: 0,
            used: 0,
            served: 0,
            waiting: BTreeMap::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.turns == 0 && self.waiting.is_empty()
    }

    /// The least goes first; none where nobody waits.
    fn rank(&self) -> Option<(usize, u64, u64)> {
        let (_, (size, _)) = self.waiting.first_key_value()?;
        Some((self.turns, self.used, *size))
    }
}

/// Invariants:
/// - **C3** nobody waits while a turn that its group may have is neither taken nor promised, and a line of nobody is kept
///   only while somebody waits.
pub struct CompileTurns<H: Types> {
    most: usize,
    /// Of each group of which nothing else is said.
    most_of_each: usize,
    most_of: BTreeMap<Group, usize>,
    taken: usize,
    promised: usize,
    lines: BTreeMap<Group, Line<H>>,
    waiting: usize,
    next: u64,
}

impl<H: Types> CompileTurns<H> {
    /// So many may compile at once, and so many of one group.
    pub const fn new(most: usize, most_of_each: usize) -> Self {
        Self {
            most,
            most_of_each,
            most_of: BTreeMap::new(),
            taken: 0,
            promised: 0,
            lines: BTreeMap::new(),
            waiting: 0,
            next: 0,
        }
    }

    /// How many compile.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// How many were woken, and have yet to take their turns.
    pub fn promised(&self) -> usize {
        self.promised
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// From now on so many of this group may compile at once; with `None`, as many as of others.
    pub fn set_most_of(&mut self, group: &Group, most: Option<usize>) {
        match most {
            Some(most) => self.most_of.insert(group.clone(), most),
            None => self.most_of.remove(group),
        };
    }

    /// Whether any group has a limit of its own.
    pub fn limits_groups(&self) -> bool {
        self.most_of_each < usize::MAX || self.most_of.values().any(|most| *most < usize::MAX)
    }

    /// Work for no group has no limit but that of all.
    fn most_of(&self, group: &Group) -> usize {
        match self.most_of.get(group) {
            Some(most) => *most,
            None if *group == Group::NOBODY => usize::MAX,
            None => self.most_of_each,
        }
    }

    fn is_free(&self) -> bool {
        self.taken + self.promised < self.most
    }

    /// Whether a turn is free that this group may have.
    pub fn is_free_for(&self, group: &Group) -> bool {
        let has = self.lines.get(group).map_or(0, |line| line.turns);
        self.is_free() && has < self.most_of(group)
    }

    /// Whether somebody waits for a turn that is free.
    pub fn keeps_waiting(&self) -> bool {
        let mut waiting = self.lines.iter().filter(|(_, l)| !l.waiting.is_empty());
        waiting.any(|(group, _)| self.is_free_for(group))
    }

    fn line(&mut self, group: &Group) -> &mut Line<H> {
        let line = self.lines.entry(group.clone());
        line.or_insert_with(Line::new)
    }

    /// A newcomer has had as much as the least of those who wait.
    fn enter(&mut self, group: &Group) -> &mut Line<H> {
        let least = self.least_used();
        let line = self.line(group);
        if line.is_idle() {
            line.used = line.used.max(least);
        }
        line
    }

    /// Takes a turn, if one is free.
    pub fn take(&mut self, group: &Group) -> bool {
        if !self.is_free_for(group) {
            return false;
        }
        self.taken += 1;
        self.enter(group).turns += 1;
        true
    }

    /// A turn that took so many nanoseconds is over.
    pub fn end(&mut self, group: &Group, nanos: u64) {
        self.taken -= 1;
        let is_counted = self.waiting > 0;
        let line = self.line(group);
        line.turns -= 1;
        if is_counted {
            line.used = line.used.saturating_add(nanos);
        }
        self.forget_if_idle(group);
    }

    /// A turn that was promised is free: for who was promised it, if that asks at once.
    pub fn give_back(&mut self, group: &Group) {
        self.promised -= 1;
        self.line(group).turns -= 1;
        self.forget_if_idle(group);
    }

    /// Waits in the group's line with a module of this size.
    pub fn join(&mut self, group: &Group, size: u64, sleeper: Sleeper<H>) -> InLine {
        let number = self.next;
        self.next += 1;
        self.waiting += 1;
        let line = self.enter(group);
        let due = line.served.saturating_add(size);
        let place = InLine { due, number };
        line.waiting.insert(place, (size, sleeper));
        place
    }

    /// The sleeper, if it was still waiting.
    pub fn leave(&mut self, group: &Group, place: InLine) -> Option<Sleeper<H>> {
        let line = self.lines.get_mut(group)?;
        let (_, sleeper) = line.waiting.remove(&place)?;
        self.waiting -= 1;
        self.forget_if_idle(group);
        self.forget_if_calm();
        Some(sleeper)
    }

    /// Promises a turn, if one is free, to whoever is next and not late; those before it are `late`.
    pub fn promise(&mut self, now: u64, late: &mut Vec<Sleeper<H>>) -> Option<(Group, Sleeper<H>)> {
        let mut next = None;
        while next.is_none()
            && let Some((group, size, sleeper)) = self.take_next()
        {
            if sleeper.until > now {
                let line = self.line(&group);
                line.turns += 1;
                line.served = line.served.saturating_add(size);
                self.promised += 1;
                next = Some((group, sleeper));
            } else {
                late.push(sleeper);
            }
        }
        if next.is_some() || !late.is_empty() {
            self.forget_caught_up();
        }
        next
    }

    /// Who is next, if a turn is free; it waits no more.
    fn take_next(&mut self) -> Option<(Group, u64, Sleeper<H>)> {
        if !self.is_free() || self.waiting == 0 {
            return None;
        }
        let may_have = |group: &Group, line: &Line<H>| line.turns < self.most_of(group);
        let lines = self
            .lines
            .iter()
            .filter(|(group, line)| may_have(group, line));
        let ranked = lines.filter_map(|(group, line)| Some((line.rank()?, group)));
        let (_, group) = ranked.min_by_key(|(rank, _)| *rank)?;
        let group = group.clone();
        let (_, (size, sleeper)) = self.lines.get_mut(&group)?.waiting.pop_first()?;
        self.waiting -= 1;
        Some((group, size, sleeper))
    }

    /// Takes out all whose deadline has come.
    pub fn drop_late(&mut self, now: u64, late: &mut Vec<Sleeper<H>>) {
        for line in self.lines.values_mut() {
            let of_line = line.waiting.extract_if(.., |_, (_, it)| it.until <= now);
            late.extend(of_line.map(|(_, (_, sleeper))| sleeper));
        }
        self.waiting = self.lines.values().map(|line| line.waiting.len()).sum();
        self.forget_caught_up();
    }

    /// Everybody, late or not.
    pub fn drain(&mut self) -> Vec<H::Waiter> {
        let mut waiters = Vec::with_capacity(self.waiting);
        for line in self.lines.values_mut() {
            let all = core::mem::take(&mut line.waiting);
            waiters.extend(all.into_values().map(|(_, sleeper)| sleeper.waiter));
        }
        self.waiting = 0;
        self.forget_if_calm();
        waiters
    }

    pub fn iter(&self) -> impl Iterator<Item = &Sleeper<H>> {
        let lines = self.lines.values();
        lines.flat_map(|line| line.waiting.values().map(|(_, sleeper)| sleeper))
    }

    /// Turns that are counted in lines; all of them, for a recount.
    pub fn turns_in_lines(&self) -> usize {
        self.lines.values().map(|line| line.turns).sum()
    }

    /// Lines in which nobody waits, and that have no turn.
    pub fn idle_lines(&self) -> usize {
        self.lines.values().filter(|line| line.is_idle()).count()
    }

    fn least_used(&self) -> u64 {
        let waiting = self.lines.values().filter(|l| !l.waiting.is_empty());
        waiting.map(|line| line.used).min().unwrap_or(0)
    }

    /// A line of nobody, which has had nothing.
    fn forget_if_idle(&mut self, group: &Group) {
        let line = self.lines.get(group);
        if line.is_some_and(|line| line.is_idle() && line.used == 0) {
            self.lines.remove(group);
            self.forget_if_calm();
        }
    }

    /// Where nobody waits, it is of no account what a group has had.
    fn forget_if_calm(&mut self) {
        if self.waiting == 0 {
            self.lines.retain(|_, line| {
                (line.used, line.served) = (0, 0);
                !line.is_idle()
            });
        }
        if self.lines.is_empty() {
            // An empty map keeps a node, that nobody is charged for.
            self.lines = BTreeMap::new();
        }
    }

    /// Nor is it where all others have had as much.
    fn forget_caught_up(&mut self) {
        self.forget_if_calm();
        let least = self.least_used();
        self.lines
            .retain(|_, line| !line.is_idle() || line.used > least);
    }
}
