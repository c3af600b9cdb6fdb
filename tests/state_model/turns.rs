//! Turns to compile against a naive list, and what they promise: a turn is waited for at most once behind another
//! group, and a large module behind no more than its own size of smaller ones.

use proptest::prelude::*;

use crate::fake::Fake;
use crate::state::{CompileTurns, Group, InLine, Sleeper};

const GROUPS: u64 = 4;

#[derive(Clone, Debug)]
enum Op {
    Take(u64),
    End(usize, u64),
    Join(u64, u64),
    Leave(usize),
    Promise { redeem: bool },
}

/// Somebody who waits, as a naive list knows it.
#[derive(Clone, Debug)]
struct Waiter {
    group: u64,
    size: u64,
    due: u64,
    number: u32,
    place: InLine,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    turns: usize,
    used: u64,
    served: u64,
}

struct World {
    turns: CompileTurns<Fake>,
    most: usize,
    /// Of each group.
    most_of: [usize; GROUPS as usize],
    waiting: Vec<Waiter>,
    taken: Vec<u64>,
    lines: [Line; GROUPS as usize],
    number: u32,
}

impl World {
    fn new(most: usize, most_of: [usize; GROUPS as usize]) -> Self {
        let mut turns = CompileTurns::new(most, most_of[0]);
        for group in 1..GROUPS {
            turns.set_most_of(&Group::from(group), Some(most_of[group as usize]));
        }
        Self {
            turns,
            most,
            most_of,
            waiting: Vec::new(),
            taken: Vec::new(),
            lines: [Line::default(); GROUPS as usize],
            number: 0,
        }
    }

    fn line(&mut self, group: u64) -> &mut Line {
        &mut self.lines[group as usize]
    }

    /// Who comes anew has had as much as the least of those who wait.
    fn enter(&mut self, group: u64) -> &mut Line {
        let others = (0..GROUPS).filter(|other| self.waits(*other));
        let least = others.map(|other| self.lines[other as usize].used).min();
        if !self.waits(group) && self.lines[group as usize].turns == 0 {
            let line = self.line(group);
            line.used = line.used.max(least.unwrap_or(0));
        }
        self.line(group)
    }

    fn waits(&self, group: u64) -> bool {
        self.waiting.iter().any(|waiter| waiter.group == group)
    }

    /// Where nobody waits, all begin anew.
    fn settle(&mut self) {
        if self.waiting.is_empty() {
            for line in &mut self.lines {
                (line.used, line.served) = (0, 0);
            }
        }
    }

    fn may_have(&self, group: u64) -> bool {
        self.lines[group as usize].turns < self.most_of[group as usize]
    }

    fn first(&self) -> Option<Waiter> {
        let first_of = |group: u64| {
            let of_group = self.waiting.iter().filter(|w| w.group == group);
            of_group.min_by_key(|w| (w.due, w.number))
        };
        let may_have = |group: &u64| self.may_have(*group);
        let firsts = (0..GROUPS).filter(may_have).filter_map(first_of);
        let rank = |w: &&Waiter| {
            let line = self.lines[w.group as usize];
            (line.turns, line.used, w.size, Group::from(w.group))
        };
        firsts.min_by_key(rank).cloned()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Take(group) => {
                let is_free = self.taken.len() < self.most && self.may_have(group);
                assert_eq!(self.turns.take(&Group::from(group)), is_free);
                if is_free {
                    self.taken.push(group);
                    self.enter(group).turns += 1;
                }
            }
            Op::End(index, nanos) if !self.taken.is_empty() => {
                let group = self.taken.remove(index % self.taken.len());
                self.turns.end(&Group::from(group), nanos);
                let is_counted = !self.waiting.is_empty();
                let line = self.line(group);
                line.turns -= 1;
                line.used += if is_counted { nanos } else { 0 };
            }
            Op::Join(group, size) => self.join(group, size),
            Op::Leave(index) if !self.waiting.is_empty() => {
                let waiter = self.waiting.remove(index % self.waiting.len());
                let left = self.turns.leave(&Group::from(waiter.group), waiter.place);
                assert_eq!(left.map(|sleeper| sleeper.waiter), Some(waiter.number));
            }
            Op::Promise { redeem } => self.promise(redeem),
            Op::End(..) | Op::Leave(_) => {}
        }
        self.settle();
        assert_eq!(self.turns.taken(), self.taken.len());
        assert_eq!(self.turns.len(), self.waiting.len());
        assert_eq!(self.turns.turns_in_lines(), self.taken.len());
    }

    fn join(&mut self, group: u64, size: u64) {
        self.number += 1;
        let number = self.number;
        let sleeper = Sleeper {
            waiter: number,
            until: u64::MAX,
            request: None,
        };
        let place = self.turns.join(&Group::from(group), size, sleeper);
        let due = self.enter(group).served + size;
        self.waiting.push(Waiter {
            group,
            size,
            due,
            number,
            place,
        });
    }

    fn promise(&mut self, redeem: bool) {
        let first = self.first().filter(|_| self.taken.len() < self.most);
        let promised = self.turns.promise(0, &mut Vec::new());
        let promised = promised.map(|(_, sleeper)| sleeper.waiter);
        assert_eq!(promised, first.as_ref().map(|first| first.number));
        let Some(first) = first else { return };
        self.waiting.retain(|waiter| waiter.number != first.number);
        self.line(first.group).served += first.size;
        self.settle();
        let group = Group::from(first.group);
        self.turns.give_back(&group);
        if redeem {
            assert!(self.turns.take(&group));
            self.taken.push(first.group);
            self.enter(first.group).turns += 1;
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..GROUPS).prop_map(Op::Take),
        (any::<usize>(), 0u64..50).prop_map(|(index, nanos)| Op::End(index, nanos)),
        (0..GROUPS, 0u64..50).prop_map(|(group, size)| Op::Join(group, size)),
        any::<usize>().prop_map(Op::Leave),
        any::<bool>().prop_map(|redeem| Op::Promise { redeem }),
    ]
}

proptest! {
    #[test]
    fn turns_are_given_as_a_naive_list_gives_them(
        most in 1usize..4,
        most_of in any::<[u8; GROUPS as usize]>(),
        ops in proptest::collection::vec(op(), 1..80),
    ) {
        let most_of = most_of.map(|dice| usize::from(1 + dice % 4));
        let mut world = World::new(most, most_of);
        ops.into_iter().for_each(|op| world.apply(op));
    }
}

/// Gives one turn after another, each of which takes so long; who got them.
fn order(turns: &mut CompileTurns<Fake>, nanos: u64) -> Vec<u32> {
    let mut order = Vec::new();
    while let Some((group, sleeper)) = turns.promise(0, &mut Vec::new()) {
        turns.give_back(&group);
        assert!(turns.take(&group));
        turns.end(&group, nanos);
        order.push(sleeper.waiter);
    }
    order
}

fn sleeper(waiter: u32) -> Sleeper<Fake> {
    Sleeper {
        waiter,
        until: u64::MAX,
        request: None,
    }
}

#[test]
fn a_thousand_of_one_group_delay_anothers_by_one_turn_at_most() {
    let (flood, quiet) = (Group::from("flood"), Group::from("quiet"));
    for came in [0, 1, 500, 999] {
        let mut turns = CompileTurns::new(1, usize::MAX);
        for n in 0..1_000 {
            turns.join(&flood, 1, sleeper(n));
        }
        for _ in 0..came {
            let (group, _) = turns.promise(0, &mut Vec::new()).expect("it waits");
            turns.give_back(&group);
            assert!(turns.take(&group));
            turns.end(&group, 7);
        }
        // Even one that is larger.
        turns.join(&quiet, 1_000_000, sleeper(1_000));
        let order = order(&mut turns, 7);
        let turn = order.iter().position(|n| *n == 1_000);
        assert!(turn <= Some(1), "after {came}: in turn {turn:?}");
    }
}

#[test]
fn the_small_pass_the_large_of_their_group_until_they_are_as_much_together() {
    let group = Group::from(1);
    let mut turns = CompileTurns::new(1, usize::MAX);
    turns.join(&group, 100, sleeper(0));
    // A small one comes whenever one has gone.
    for n in 1..1_000 {
        turns.join(&group, 10, sleeper(n));
        let (_, next) = turns.promise(0, &mut Vec::new()).expect("they wait");
        turns.give_back(&group);
        if next.waiter == 0 {
            assert_eq!(n, 10, "it was passed by nine of ten bytes");
            return;
        }
        assert_eq!(next.waiter, n, "the small one does not wait");
    }
    panic!("the large one waits for ever");
}

#[test]
fn a_group_whose_turns_were_long_waits_until_others_have_had_as_much() {
    let (slow, quick) = (Group::from("slow"), Group::from("quick"));
    let mut turns = CompileTurns::new(1, usize::MAX);
    for n in 0..20 {
        turns.join(&quick, 9, sleeper(n));
    }
    for n in 20..23 {
        turns.join(&slow, 1, sleeper(n));
    }
    let mut got = Vec::new();
    while let Some((group, next)) = turns.promise(0, &mut Vec::new()) {
        turns.give_back(&group);
        assert!(turns.take(&group));
        turns.end(&group, if group == slow { 10 } else { 1 });
        got.push(next.waiter);
    }
    let slow_turns: Vec<_> = (0..got.len()).filter(|at| got[*at] >= 20).collect();
    assert_eq!(
        slow_turns,
        [0, 11, 22],
        "one turn of ten for ten turns of one"
    );
}
