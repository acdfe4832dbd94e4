//! A fault in force, held by a guard.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::fuse::Core;
use crate::host::server::{self, Home};
use crate::model::fault::{Fault, Rule};
use crate::model::ids::ClientId;

/// A fault in force on a client. Dropping the guard takes it out of force and lets go whatever hangs because of it.
#[must_use = "the fault is in force only as long as this guard lives; bind it to a name such as `fault` or `_fault` (`_` alone drops it at once)"]
pub struct FaultGuard {
    core: Home<Core>,
    client: ClientId,
    rule: Arc<Rule>,
}

impl FaultGuard {
    pub(crate) fn new(core: &Home<Core>, client: ClientId, fault: &Fault) -> Result<Self> {
        let rule = Arc::new(Rule::new(fault)?);
        core.engine.add_rule(client, rule.clone());
        Ok(FaultGuard { core: core.clone(), client, rule })
    }

    /// How many operations it has hit.
    pub fn hits(&self) -> u64 {
        self.rule.count()
    }

    /// Lets go what hangs at this moment; it stays in force for what comes.
    pub fn release(&self) {
        let (core, rule) = (self.core.clone(), self.rule.clone());
        // What was parked is executed now, on the disk: a job for a server thread.
        server::call(move || core.engine.release_rule(&rule));
    }

    /// Takes it out of force, as dropping does.
    pub fn remove(self) {}
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        let (core, rule, client) = (self.core.clone(), self.rule.clone(), self.client);
        server::call(move || core.engine.remove_rule(client, &rule));
    }
}

impl fmt::Debug for FaultGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultGuard")
            .field("rule", &self.rule)
            .field("hits", &self.hits())
            .finish_non_exhaustive()
    }
}
