//! Runs that once failed, each as short as it can be told.

use crate::world::{Op, Setup};
use crate::{Run, play};

/// All goes well in a step; in `Warm`, the group is the number.
const GOOD: u8 = crate::acquire::GOOD;

fn run(seats: usize, limits: u8, ops: &[Op]) {
    let setup = Setup {
        policy: 2,
        seats,
        max_compilations: 1,
        limits,
        serve: true,
    };
    play(&Run {
        setup,
        ops: ops.to_vec(),
    });
}

/// The entry's record goes with its last instance, and `remove` looked at it once more.
#[test]
fn remove_with_one_idle_instance() {
    let warm_and_released = Op::Warm(0, 0x80);
    run(2, 0, &[Op::Define(0, 0), warm_and_released, Op::Remove(0)]);
}

/// The lease that was to report its end was handed over, and its next end was not reported.
#[test]
fn room_is_awaited_from_a_lease_that_is_handed_over() {
    let tight_stack = 4;
    let ops = [
        Op::Define(0, 1),
        Op::Warm(0, 0),
        Op::Enter(0, 0),
        // Group 1 finds no room, and group 0's second caller is handed the first one's instance.
        Op::Warm(0, 1),
        Op::ReleaseFast(0, 0),
        Op::ReleaseFast(0, 0),
    ];
    run(1, tight_stack, &ops);
}

/// The ticket of a follower whose flight has ended named another in the next flight.
#[test]
fn a_late_follower_leaves_nobody_elses_place() {
    let ops = [
        Op::Define(0, 0),
        Op::Enter(0, 0),
        Op::Enter(0, 1),
        Op::Enter(0, 2),
        // The first leads, the second follows, and the flight ends.
        Op::Step(0, GOOD),
        Op::Step(1, GOOD),
        Op::GiveUp(0),
        // The third leads, a fourth (in the first one's place) follows, the second is late.
        Op::Step(1, GOOD),
        Op::Enter(0, 0),
        Op::Step(0, GOOD),
        Op::GiveUp(1),
    ];
    run(3, 0, &ops);
}

/// The first in the queue asks for too much. When it leaves, the next may have room.
#[test]
fn who_leaves_the_queue_for_room_makes_way() {
    let tight = 7;
    let ops = [
        Op::Define(0, 0),
        Op::Warm(0, 0),
        Op::Warm(0, 1),
        Op::Warm(0, 2),
        // By 6 and by 4, where there are 3.
        Op::Grow(0, 5),
        Op::Step(0, GOOD),
        Op::Grow(1, 3),
        Op::Step(1, GOOD),
        // By now there are 4: the first looks, and waits on.
        Op::Shrink(2, 1),
        Op::Step(0, GOOD),
        Op::GiveUp(0),
    ];
    run(1, tight, &ops);
}

/// Two wait to compile the same module, a third for another: the second of them finds it loaded.
#[test]
fn a_turn_to_compile_that_is_not_needed_is_passed_on() {
    let ops = [
        Op::Define(0, 0),
        Op::Define(1, 1),
        Op::Define(2, 2),
        Op::Enter(0, 0),
        Op::Enter(1, 0),
        Op::Enter(1, 1),
        Op::Enter(2, 0),
        Op::Step(0, GOOD),
        Op::Step(1, GOOD),
        Op::Step(2, GOOD),
        Op::Step(3, GOOD),
        Op::GiveUp(0),
        // It leads, compiles and loads.
        Op::Step(0, GOOD),
        Op::Step(0, GOOD),
        Op::Step(0, GOOD),
        Op::Step(1, GOOD),
    ];
    run(1, 0, &ops);
}

/// A release that was late to report took hold of a spare, which was then idle for as long as it liked, and not.
#[test]
fn a_late_report_finds_a_spare() {
    let ops = [
        Op::Define(0, 0),
        Op::Define(1, 187),
        Op::Warm(1, 0x0F),
        Op::Grow(0, 0),
        Op::Step(0, 0),
        Op::Race(0, 187),
        // By one whose instances are leased once.
        Op::Replace(1, 72),
        Op::Warm(1, 0x8D),
        Op::Spare,
        Op::Step(0, 0),
        Op::Step(0, 1),
        Op::Report(0),
        Op::Sweep(223),
    ];
    run(1, 0, &ops);
}

/// What a spare in the making holds and the code that it pins are enough together, once it is made.
#[test]
fn a_spare_goes_with_its_code_when_it_is_made() {
    let ops = [
        Op::Define(0, 0),
        Op::Define(1, 75),
        Op::Define(235, 8),
        Op::Warm(185, 132),
        Op::Stray(0),
        Op::Warm(31, 0),
        Op::Race(0, 0),
        Op::Spare,
        Op::Free(0),
        Op::Enter(48, 0),
        Op::Step(82, 0),
        Op::Replace(221, 188),
        Op::Warm(127, 1),
    ];
    let setup = Setup {
        policy: 0,
        seats: 3,
        max_compilations: 1,
        limits: 86,
        serve: false,
    };
    play(&Run {
        setup,
        ops: ops.to_vec(),
    });
}
