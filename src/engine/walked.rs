//! Which directory a client's kernel believes to be at a name that it is about to remove or replace.

use super::disk::{Result, Stat};
use super::{Caller, Errno, State};
use crate::model::ids::{Name, ObjectId};

/// How many threads' last directories are remembered; beyond, remembering starts over.
const WALKED: usize = 1024;

impl State {
    /// Remembers which directory the caller's kernel sees at a name.
    pub(super) fn walk(&mut self, who: &Caller, dir: ObjectId, name: &Name, found: Option<ObjectId>) {
        let walked = &mut self.client(who.client).walked;
        match found {
            Some(found) => {
                if walked.len() >= WALKED {
                    walked.clear();
                }
                walked.insert(who.pid, (dir, name.clone(), found));
            }
            None => drop(walked.remove(&who.pid)),
        }
    }

    /// The kernel marks the directory that it sees at a name as removed when the name is removed or replaced, and never
    /// lists it again. Where the truth has another there, that would be the wrong one: `ESTALE` makes the kernel look
    /// again and ask once more.
    pub(super) fn looks_again(
        &mut self,
        who: &Caller,
        dir: ObjectId,
        name: &Name,
        truth: Option<&Stat>,
    ) -> Result<()> {
        let truth = truth.and_then(|stat| self.objects.known(stat.key));
        match self.client(who.client).walked.remove(&who.pid) {
            Some((d, n, seen)) if d == dir && n == *name && truth != Some(seen) => Err(Errno::ESTALE),
            _ => Ok(()),
        }
    }
}
