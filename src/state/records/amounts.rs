//! Budgets, and amounts of them.

use core::fmt;
use core::ops::Index;

/// A resource that a pool promises never to exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Budget {
    /// Bytes of linear memories, tables, GC heaps and the fixed cost of each instance.
    Memory,
    /// Bytes of compiled code, as mapped by the kernel.
    Code,
    /// Bytes of heap that compilations in flight may need, by estimate.
    Compile,
    /// Bytes of fiber stacks. Synchronous calls run on the caller's stack and charge nothing here.
    Stack,
    /// Memory mappings (VMAs), of which Linux gives a process 65,530 unless told otherwise.
    Mappings,
    /// Bytes over memory, code, compile and stack together.
    Total,
    /// Bytes of code and stacks together: what is mapped beside the instances' memories.
    Mapped,
    /// Instances, idle, leased and in the making.
    Instances,
}

impl Budget {
    /// Every budget, in the order in which reports list them.
    pub const ALL: [Self; 8] = [
        Self::Memory,
        Self::Code,
        Self::Compile,
        Self::Stack,
        Self::Mappings,
        Self::Total,
        Self::Mapped,
        Self::Instances,
    ];

    /// The name that errors, metrics and reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Code => "code",
            Self::Compile => "compile",
            Self::Stack => "stack",
            Self::Mappings => "mappings",
            Self::Total => "total",
            Self::Mapped => "mapped",
            Self::Instances => "instances",
        }
    }

    /// What one unit of the budget is: "bytes", "mappings" or "instances".
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Mappings => "mappings",
            Self::Instances => "instances",
            _ => "bytes",
        }
    }
}

/// Budgets that code counts in.
pub(crate) const OF_CODE: [Budget; 4] = [
    Budget::Code,
    Budget::Mappings,
    Budget::Total,
    Budget::Mapped,
];

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// So much of every budget. `Total` and `Mapped` are never stored: they are sums of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    memory: u64,
    code: u64,
    compile: u64,
    stack: u64,
    /// Counts have half a word each: every instance keeps its amounts.
    mappings: u32,
    instances: u32,
}

impl Amounts {
    pub const ZERO: Self = Self {
        memory: 0,
        code: 0,
        compile: 0,
        stack: 0,
        mappings: 0,
        instances: 0,
    };

    pub const fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    pub const fn code(mut self, bytes: u64) -> Self {
        self.code = bytes;
        self
    }

    pub const fn compile(mut self, bytes: u64) -> Self {
        self.compile = bytes;
        self
    }

    pub const fn stack(mut self, bytes: u64) -> Self {
        self.stack = bytes;
        self
    }

    /// More than a `u32` can count reads as `u32::MAX`, which no system grants.
    pub const fn mappings(mut self, count: u64) -> Self {
        self.mappings = few(count);
        self
    }

    /// As for mappings.
    pub const fn instances(mut self, count: u64) -> Self {
        self.instances = few(count);
        self
    }

    /// The amount of one budget. A total beyond `u64` reads as `u64::MAX`, which no limit grants.
    pub fn get(&self, budget: Budget) -> u64 {
        match budget {
            Budget::Memory => self.memory,
            Budget::Code => self.code,
            Budget::Compile => self.compile,
            Budget::Stack => self.stack,
            Budget::Mappings => self.mappings.into(),
            Budget::Instances => self.instances.into(),
            Budget::Total => self
                .memory
                .saturating_add(self.code)
                .saturating_add(self.compile)
                .saturating_add(self.stack),
            Budget::Mapped => self.code.saturating_add(self.stack),
        }
    }

    /// The sum, or `None` when it cannot be counted.
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        let sum = self.zip(other, u64::checked_add)?;
        sum.memory
            .checked_add(sum.code)?
            .checked_add(sum.compile)?
            .checked_add(sum.stack)?;
        Some(sum)
    }

    /// The sum, with fields that stop at the greatest that they can count: for needs, which are then refused.
    pub fn saturating_add(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// The difference, or `None` when any field would go below zero.
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        self.zip(other, u64::checked_sub)
    }

    /// What of `self` is missing in `other`, field by field.
    pub fn beyond(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    /// The smaller of each field.
    pub fn min(&self, other: &Self) -> Self {
        self.each(other, u64::min)
    }

    fn each(&self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            memory: f(self.memory, other.memory),
            code: f(self.code, other.code),
            compile: f(self.compile, other.compile),
            stack: f(self.stack, other.stack),
            mappings: few(f(self.mappings.into(), other.mappings.into())),
            instances: few(f(self.instances.into(), other.instances.into())),
        }
    }

    fn zip(&self, other: &Self, f: impl Fn(u64, u64) -> Option<u64>) -> Option<Self> {
        Some(Self {
            memory: f(self.memory, other.memory)?,
            code: f(self.code, other.code)?,
            compile: f(self.compile, other.compile)?,
            stack: f(self.stack, other.stack)?,
            mappings: u32::try_from(f(self.mappings.into(), other.mappings.into())?).ok()?,
            instances: u32::try_from(f(self.instances.into(), other.instances.into())?).ok()?,
        })
    }
}

/// `u32::try_from`, in constants.
const fn few(count: u64) -> u32 {
    if count > u32::MAX as u64 {
        u32::MAX
    } else {
        count as u32
    }
}

/// One value for each budget, sums included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerBudget<V>([V; Budget::ALL.len()]);

impl<V: Copy> PerBudget<V> {
    /// The same of each.
    pub const fn of(value: V) -> Self {
        Self([value; Budget::ALL.len()])
    }

    pub fn from_fn(f: impl Fn(Budget) -> V) -> Self {
        Self(Budget::ALL.map(f))
    }

    pub fn set(&mut self, budget: Budget, value: V) {
        self.0[budget as usize] = value;
    }

    pub fn iter(&self) -> impl Iterator<Item = (Budget, V)> + '_ {
        Budget::ALL.into_iter().zip(self.0)
    }
}

impl<V> Index<Budget> for PerBudget<V> {
    type Output = V;

    fn index(&self, budget: Budget) -> &V {
        &self.0[budget as usize]
    }
}
