//! Where the fiber stacks of a pooling allocator lie: it tells nobody, but the kernel knows.

use std::fs;
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Waker};

use wasmtime::{Caller, Engine, Func, Store};

use super::sizes::host_page;
use super::stack::StackBounds;

/// Stacks of one size side by side, each with its guard below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StackArea {
    /// From the lowest guard to the end of the highest stack.
    low: usize,
    end: usize,
    page: usize,
    stack: usize,
}

/// A mapping of this process.
#[derive(Debug, Clone)]
struct Mapping {
    range: Range<usize>,
    is_guard: bool,
    is_memory: bool,
}

impl StackArea {
    /// That of an engine whose pooling allocator has so many. `None` where the kernel does not say.
    pub fn of(engine: &Engine, count: u32) -> Option<Self> {
        let here = somewhere_on_a_fiber(engine)?;
        let maps = fs::read("/proc/self/maps").ok()?;
        let page = host_page() as usize;
        let stack = engine.get_async_stack_size().next_multiple_of(page);
        let maps = String::from_utf8_lossy(&maps);
        Self::around(here, stack, page, &maps)?.at_most(here, count)
    }

    /// As others may lie beside them: no more than so many on either side.
    fn at_most(mut self, here: usize, count: u32) -> Option<Self> {
        let reach = (self.page + self.stack).checked_mul(count as usize)?;
        let own = self.stack_at(here)?;
        self.low = self.low.max(own.end().saturating_sub(reach));
        self.end = self
            .end
            .min(own.start().saturating_sub(self.page).saturating_add(reach));
        Some(self)
    }

    /// The stack that `here` is on.
    pub fn stack_at(&self, here: usize) -> Option<StackBounds> {
        if !(self.low..self.end).contains(&here) {
            return None;
        }
        let stride = self.page + self.stack;
        let low = self.low + (here - self.low) / stride * stride + self.page;
        Some(StackBounds::new(low..low + self.stack))
    }

    /// Among what `/proc/self/maps` lists, in the order of addresses.
    fn around(here: usize, stack: usize, page: usize, maps: &str) -> Option<Self> {
        let maps: Vec<_> = maps.lines().filter_map(Mapping::parse).collect();
        // What lies below the lowest guard, or above the highest stack, may have become one mapping with it.
        let is_stack = |below: &Mapping, own: &Mapping| {
            below.is_guard
                && below.range.end == own.range.start
                && own.is_memory
                && own.range.len() >= stack
        };
        let pairs = maps.windows(2).filter(|pair| is_stack(&pair[0], &pair[1]));
        let lows: Vec<_> = pairs.map(|pair| pair[1].range.start).collect();
        let own = (lows.iter()).position(|low| (*low..low + stack).contains(&here))?;
        let stride = page + stack;
        let is_next = |low: &usize, next: &usize| low + stride == *next;
        let before = lows[..=own].chunk_by(is_next).last()?;
        let after = lows[own..].chunk_by(is_next).next()?;
        Some(Self {
            low: before.first()? - page,
            end: after.last()? + stack,
            page,
            stack,
        })
    }
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next()?, words.next()?);
        let (start, end) = range.split_once('-')?;
        let address = |hex| usize::from_str_radix(hex, 16).ok();
        Some(Self {
            range: address(start)?..address(end)?,
            is_guard: rights.starts_with("---"),
            is_memory: rights.starts_with("rw-"),
        })
    }
}

/// An address on a fiber's stack: a task of a store that has nothing else runs on one.
fn somewhere_on_a_fiber(engine: &Engine) -> Option<usize> {
    let mut store = Store::new(engine, None);
    if engine.get_epoch_interruption() {
        store.set_epoch_deadline(1 << 60);
    }
    let look = Func::wrap_async(&mut store, |mut caller: Caller<'_, Option<usize>>, ()| {
        let here = 0u8;
        *caller.data_mut() = Some((&raw const here).addr());
        Box::new(async {})
    });
    {
        let call = pin!(look.call_async(&mut store, &[], &mut []));
        let _ = call.poll(&mut Context::from_waker(Waker::noop()));
    }
    *store.data()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: usize = 0x4000;
    const PAGE: usize = 0x1000;

    /// Memories' area without access, three stacks (of which the last adjoins something else), and a file.
    const MAPS: &str = "\
        100000-200000 ---p 00000000 00:00 0\n\
        200000-201000 ---p 00000000 00:00 0\n\
        201000-205000 rw-p 00000000 00:00 0\n\
        205000-206000 ---p 00000000 00:00 0\n\
        206000-20a000 rw-p 00000000 00:00 0\n\
        20a000-20b000 ---p 00000000 00:00 0\n\
        20b000-219000 rw-p 00000000 00:00 0 [heap]\n\
        300000-304000 r-xp 00000000 08:01 7 /bin/true\n";

    #[test]
    fn all_stacks_are_found_from_any_of_them() {
        for here in [0x201000, 0x204fff, 0x206010, 0x20b000, 0x20efff] {
            let area = StackArea::around(here, STACK, PAGE, MAPS).unwrap();
            assert_eq!((area.low, area.end), (0x200000, 0x20f000), "{here:x}");
            let stack = |low| Some(StackBounds::new(low..low + STACK));
            assert_eq!(area.stack_at(0x201000), stack(0x201000));
            assert_eq!(area.stack_at(0x205fff), stack(0x206000));
            assert_eq!(area.stack_at(0x209fff), stack(0x206000));
            assert_eq!(area.stack_at(0x20efff), stack(0x20b000));
            assert_eq!(
                (area.stack_at(0x1fffff), area.stack_at(0x20f000)),
                (None, None)
            );
        }
    }

    #[test]
    fn one_stack_is_an_area_and_other_memory_is_none() {
        let one = "200000-201000 ---p 0 00:00 0\n201000-205000 rw-p 0 00:00 0\n";
        let area = StackArea::around(0x203000, STACK, PAGE, one).unwrap();
        assert_eq!((area.low, area.end), (0x200000, 0x205000));
        for here in [0x150000, 0x200800, 0x300010, 0x900000] {
            assert_eq!(StackArea::around(here, STACK, PAGE, MAPS), None, "{here:x}");
        }
        assert_eq!(
            StackArea::around(0x203000, STACK + 1, PAGE, one),
            None,
            "too small"
        );
        let no_guard = "200000-201000 rw-p 0 00:00 0\n201000-205000 rwxp 0 00:00 0\n";
        assert_eq!(StackArea::around(0x203000, STACK, PAGE, no_guard), None);
    }
}
