//! The section `[compiler]`: processes that compile.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::quantities::{Count, Size, Time};
use super::{Fault, Reason};
use crate::compiler::CompilerProcess;
use crate::pool::api::check_compiler::check_compiler;

/// Keys are named as the methods of [`CompilerProcess`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of a compiler")]
pub(super) struct FileCompiler {
    /// The program; without it, this process's own.
    helper: Option<PathBuf>,
    warm: Option<Count>,
    time_limit: Option<Time>,
    cpu_time: Option<Time>,
    max_jobs: Option<Count>,
    max_growth: Option<Size>,
    niceness: Option<Count>,
    first_cap: Option<Size>,
    max_cap: Option<Size>,
}

impl FileCompiler {
    pub fn process(&self) -> CompilerProcess {
        let mut process = match &self.helper {
            Some(path) => CompilerProcess::helper(path),
            None => CompilerProcess::this_program(),
        };
        let set = &mut process;
        // What is out of range here is so there as well.
        if let Some(count) = self.warm {
            set.warm = usize::try_from(count.0).unwrap_or(usize::MAX);
        }
        if let Some(niceness) = self.niceness {
            set.niceness = u8::try_from(niceness.0).unwrap_or(u8::MAX);
        }
        set.time_limit = self.time_limit.map_or(set.time_limit, |time| time.0);
        set.cpu_time = self.cpu_time.map_or(set.cpu_time, |time| time.0);
        set.max_jobs = self.max_jobs.map_or(set.max_jobs, |jobs| jobs.0);
        set.max_growth = self.max_growth.map_or(set.max_growth, |bytes| bytes.0);
        set.first_cap = self.first_cap.map(|bytes| bytes.0);
        set.max_cap = self.max_cap.map(|bytes| bytes.0);
        process
    }

    pub fn check(&self) -> Result<(), Fault> {
        check_compiler(&self.process()).map_err(|error| Fault {
            path: vec!["compiler".into(), error.field().into()],
            reason: Reason::Limits(error),
        })
    }

    /// Its path is relative to this folder.
    pub fn resolve(&mut self, folder: &Path) {
        if let Some(helper) = &mut self.helper {
            *helper = folder.join(&*helper);
        }
    }
}
