//! Who plays in a story: functions of a platform, by what they are.

use super::error::ScenarioError;
use crate::platform::{Model, Platform};

/// Names of the functions that a story is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cast {
    /// The drive that data comes from.
    pub drive: String,
    /// The GPU that it goes to first, and another one.
    pub gpus: [String; 2],
    /// The NIC that sends, and the one that receives.
    pub nics: [String; 2],
}

impl Cast {
    /// The first drive and the first two GPUs and NICs of a platform, in its file's order.
    ///
    /// # Errors
    /// [`ScenarioError::Lacks`] where it has not as many of them.
    pub fn of(platform: &Platform) -> Result<Self, ScenarioError> {
        let nth = |model: Model, what: &'static str, n: usize| {
            let mut functions = platform.functions().iter().filter(|function| function.model == model);
            let found = functions.nth(n).map(|function| function.name.clone());
            found.ok_or(ScenarioError::Lacks { what })
        };
        let gpu = |n| nth(Model::Gpu, "two GPUs", n);
        let nic = |n| nth(Model::Nic, "two NICs", n);
        Ok(Self { drive: nth(Model::Nvme, "an NVMe drive", 0)?, gpus: [gpu(0)?, gpu(1)?], nics: [nic(0)?, nic(1)?] })
    }
}
