//! What is defined: names, overloads, versions.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;

use super::Handles;
use super::entries::EntryId;
use super::group::Group;
use super::modules::ModuleId;
use super::registry::{Id, Registry};

pub type FunctionId<H> = Id<Function<H>>;

/// One function: a name and argument types, the module it lives in, and who uses it.
///
/// Invariants:
/// - **F1** a function is listed under its name once, and its module counts it once.
/// - **F2** `entries` holds exactly the entries whose `function` this is.
pub struct Function<H: Handles> {
    pub name: Arc<str>,
    /// Argument types as the host spells them, for example `bigint, bigint`.
    pub arguments: Arc<str>,
    pub definition: H::Definition,
    pub module: ModuleId<H>,
    /// Raised by every `replace`; an instance of another version is never leased again.
    pub version: u64,
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

pub struct Names<H: Handles> {
    by_name: HashMap<Arc<str>, Vec<FunctionId<H>>>,
}

impl<H: Handles> Names<H> {
    pub fn new() -> Self {
        Self {
            by_name: HashMap::new(),
        }
    }

    pub fn find(
        &self,
        functions: &Registry<Function<H>>,
        name: &str,
        arguments: &str,
    ) -> Option<FunctionId<H>> {
        let overloads = self.by_name.get(name)?;
        let same = |id: &&FunctionId<H>| *functions[**id].arguments == *arguments;
        overloads.iter().find(same).copied()
    }

    /// Every overload of `name`; or the one overload that `name` spells with its arguments.
    pub fn overloads(&self, functions: &Registry<Function<H>>, name: &str) -> Vec<FunctionId<H>> {
        if let Some(overloads) = self.by_name.get(name) {
            return overloads.clone();
        }
        let spelled = name
            .strip_suffix(')')
            .and_then(|rest| rest.split_once('('))
            .and_then(|(name, arguments)| self.find(functions, name, arguments));
        spelled.into_iter().collect()
    }

    pub fn insert(&mut self, name: Arc<str>, id: FunctionId<H>) {
        self.by_name.entry(name).or_default().push(id);
    }

    pub fn remove(&mut self, name: &str, id: FunctionId<H>) {
        if let Some(overloads) = self.by_name.get_mut(name) {
            overloads.retain(|other| *other != id);
            if overloads.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    pub fn lists(&self, name: &str, id: FunctionId<H>) -> bool {
        let listed = |ids: &Vec<_>| ids.iter().filter(|other| **other == id).count() == 1;
        self.by_name.get(name).is_some_and(listed)
    }
}
