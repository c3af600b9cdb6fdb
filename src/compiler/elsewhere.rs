//! Where there are no such processes.

use super::error::CompilerError;
use super::order::{Cap, Failure, Made, Order, Sandbox};
use super::settings::CompilerProcess;
use crate::artifacts::EngineKey;
use crate::runtime::EngineSettings;

/// None.
pub(crate) enum Compilers {}

impl Compilers {
    pub fn start(
        _: CompilerProcess,
        _: Option<EngineSettings>,
        _: &EngineKey,
    ) -> Result<Self, CompilerError> {
        Err(CompilerError::Unsupported)
    }

    pub fn sandbox(&self) -> Sandbox {
        match *self {}
    }

    pub fn standing_bytes(&self) -> u64 {
        match *self {}
    }

    pub fn first_heap(&self) -> Option<u64> {
        match *self {}
    }

    pub fn max_heap(&self) -> Option<u64> {
        match *self {}
    }

    pub fn bytes(&self, _: u64, _: &Cap) -> u64 {
        match *self {}
    }

    pub fn compile(&self, _: &Order<'_>) -> Result<Made, Failure> {
        match *self {}
    }

    pub fn close(&self) {
        match *self {}
    }
}
