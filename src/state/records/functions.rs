//! What is defined: names, overloads, versions.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::arena::{Arena, Id};
use super::entries::EntryId;
use super::function_terms::FunctionTerms;
use super::group::Group;
use super::modules::ModuleId;
use crate::state::Types;

pub type FunctionId<H> = Id<Function<H>>;

/// One function: a name and argument types, the module it lives in, and who uses it.
///
/// Invariants:
/// - **F1** a function is listed under its name once.
/// - **F2** `entries` holds exactly the entries whose `function` this is, each under its group.
pub struct Function<H: Types> {
    pub name: Arc<str>,
    /// Argument types as the host spells them, for example `bigint, bigint`.
    pub arguments: Arc<str>,
    pub definition: H::Definition,
    pub module: ModuleId<H>,
    /// Raised by every `replace`; an instance of another version is never leased again.
    pub version: u64,
    pub terms: FunctionTerms,
    pub entries: BTreeMap<Group, EntryId<H>>,
    pub counts: FunctionCounts,
}

/// What happened to the instances of one function since it was defined, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionCounts {
    pub misses: u64,
    pub blocks: u64,
    pub evictions: u64,
    pub retirements: u64,
    pub growth_refusals: u64,
}

/// `math.add(bigint, bigint)`.
pub fn signature(name: &str, arguments: &str) -> String {
    alloc::format!("{name}({arguments})")
}

/// Finds functions by name. The names stand in the records; this holds only ids.
pub struct Names<H: Types> {
    ids: HashTable<FunctionId<H>>,
    hasher: DefaultHashBuilder,
}

impl<H: Types> Names<H> {
    pub fn new() -> Self {
        Self {
            ids: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    pub fn find(
        &self,
        functions: &Arena<Function<H>>,
        name: &str,
        arguments: &str,
    ) -> Option<FunctionId<H>> {
        let same = |id: &FunctionId<H>| {
            let function = &functions[*id];
            *function.name == *name && *function.arguments == *arguments
        };
        self.ids.find(self.hasher.hash_one(name), same).copied()
    }

    /// Every overload of `name`, the oldest first.
    pub fn overloads(&self, functions: &Arena<Function<H>>, name: &str) -> Vec<FunctionId<H>> {
        let same = |id: &&FunctionId<H>| *functions[**id].name == *name;
        let alike = self.ids.iter_hash(self.hasher.hash_one(name));
        let mut found: Vec<_> = alike.filter(same).copied().collect();
        found.sort_by_key(|id| id.age());
        found
    }

    pub fn insert(&mut self, functions: &Arena<Function<H>>, id: FunctionId<H>) {
        let hash = |id: &FunctionId<H>| self.hasher.hash_one(&*functions[*id].name);
        self.ids.insert_unique(hash(&id), id, hash);
    }

    pub fn remove(&mut self, name: &str, id: FunctionId<H>) {
        let hash = self.hasher.hash_one(name);
        if let Ok(found) = self.ids.find_entry(hash, |other| *other == id) {
            found.remove();
        }
    }

    pub fn lists(&self, name: &str, id: FunctionId<H>) -> bool {
        let alike = self.ids.iter_hash(self.hasher.hash_one(name));
        alike.filter(|other| **other == id).count() == 1
    }
}
