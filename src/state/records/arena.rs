//! A slab whose keys are never mistaken for the keys of what stood in their place before.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;
use core::ops::{Index, IndexMut};

use slab::Slab;

/// Names one `V` of an [`Arena`]: the index may be used again, the generation not before 2³² others.
pub struct Id<V> {
    index: u32,
    generation: u32,
    _of: PhantomData<fn() -> V>,
}

impl<V> Id<V> {
    /// Not before any other.
    pub const LAST: Self = Self {
        index: u32::MAX,
        generation: u32::MAX,
        _of: PhantomData,
    };

    /// Orders ids by when they were made.
    pub const fn age(&self) -> u32 {
        self.generation
    }

    const fn key(&self) -> (u32, u32) {
        (self.index, self.generation)
    }
}

impl<V> Clone for Id<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Id<V> {}

impl<V> PartialEq for Id<V> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<V> Eq for Id<V> {}

impl<V> PartialOrd for Id<V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<V> Ord for Id<V> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl<V> Hash for Id<V> {
    fn hash<S: Hasher>(&self, state: &mut S) {
        self.key().hash(state);
    }
}

impl<V> fmt::Debug for Id<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index, self.generation)
    }
}

#[derive(Debug)]
pub struct Arena<V> {
    slab: Slab<(u32, V)>,
    generation: u32,
}

impl<V> Arena<V> {
    pub const fn new() -> Self {
        Self {
            slab: Slab::new(),
            generation: 0,
        }
    }

    /// Stores what `make` makes of the id that it will have.
    pub fn insert_with(&mut self, make: impl FnOnce(Id<V>) -> V) -> Id<V> {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let vacant = self.slab.vacant_entry();
        let id = Id {
            index: vacant.key() as u32,
            generation,
            _of: PhantomData,
        };
        vacant.insert((generation, make(id)));
        id
    }

    pub fn insert(&mut self, value: V) -> Id<V> {
        self.insert_with(|_| value)
    }

    pub fn get(&self, id: Id<V>) -> Option<&V> {
        match self.slab.get(id.index as usize) {
            Some((generation, value)) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, id: Id<V>) -> Option<&mut V> {
        match self.slab.get_mut(id.index as usize) {
            Some((generation, value)) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    pub fn remove(&mut self, id: Id<V>) -> Option<V> {
        self.get(id)?;
        Some(self.slab.remove(id.index as usize).1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Id<V>, &V)> {
        self.slab.iter().map(|(index, (generation, value))| {
            let id = Id {
                index: index as u32,
                generation: *generation,
                _of: PhantomData,
            };
            (id, value)
        })
    }

    pub fn ids(&self) -> Vec<Id<V>> {
        self.iter().map(|(id, _)| id).collect()
    }

    /// The ids at up to `count` places from `from` on, and the place to go on from: all places in
    /// turn, a few at a time.
    pub fn some_ids(&self, from: usize, count: usize) -> (Vec<Id<V>>, usize) {
        let places = self.slab.capacity();
        let end = places.min(from.saturating_add(count));
        let ids = (from..end).filter_map(|index| {
            let (generation, _) = self.slab.get(index)?;
            Some(Id {
                index: index as u32,
                generation: *generation,
                _of: PhantomData,
            })
        });
        (ids.collect(), if end == places { 0 } else { end })
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }
}

/// For ids that a numbered invariant says are alive.
impl<V> Index<Id<V>> for Arena<V> {
    type Output = V;

    fn index(&self, id: Id<V>) -> &V {
        self.get(id).expect("S1: ids kept in the state are alive")
    }
}

impl<V> IndexMut<Id<V>> for Arena<V> {
    fn index_mut(&mut self, id: Id<V>) -> &mut V {
        self.get_mut(id)
            .expect("S1: ids kept in the state are alive")
    }
}
