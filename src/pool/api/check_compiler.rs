//! Whether settings of processes that compile make sense.

use crate::compiler::{CompilerProcess, LONGEST_JOB, MOST_NICE, MOST_WARM};
use crate::pool::api::build_error::LimitsError;

pub(super) fn check_compiler(process: &CompilerProcess) -> Result<(), LimitsError> {
    let at_most = |field, value, max| match value > max {
        true => Err(LimitsError::TooLarge { field, value, max }),
        false => Ok(()),
    };
    let not_zero = |field, is_zero| match is_zero {
        true => Err(LimitsError::Zero { field }),
        false => Ok(()),
    };
    at_most("warm", process.warm as u64, MOST_WARM)?;
    at_most("niceness", process.niceness.into(), MOST_NICE)?;
    at_most("time_limit", process.time_limit.as_secs(), LONGEST_JOB)?;
    at_most("cpu_time", process.cpu_time.as_secs(), LONGEST_JOB)?;
    not_zero("time_limit", process.time_limit.is_zero())?;
    not_zero("cpu_time", process.cpu_time.is_zero())?;
    not_zero("max_jobs", process.max_jobs == 0)?;
    not_zero("first_cap", process.first_cap == Some(0))?;
    not_zero("max_cap", process.max_cap == Some(0))
}
