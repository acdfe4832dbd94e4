//! What a client sees at a path, why, and what the truth is, in one sentence for people.

use std::fmt::Write as _;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::{Errno, State, disk};
use crate::model::Sight;
use crate::model::ids::{ClientId, Name, ObjectId};
use crate::model::time::Time;

impl State {
    pub(super) fn explain(
        &mut self,
        client: ClientId,
        name: &str,
        path: &Path,
        now: Time,
    ) -> Result<String, Errno> {
        let shown = path.display();
        let mut here = ObjectId::ROOT;
        let mut last: Option<(ObjectId, Name)> = None;
        let parts: Vec<PathBuf> = path
            .components()
            .filter(|c| matches!(c, Component::Normal(_)))
            .map(|c| c.as_os_str().into())
            .collect();
        for (i, part) in parts.iter().enumerate() {
            let dir = self.dir_fd(here)?;
            let entry = Name::new(part.as_os_str());
            let stat = disk::stat_at(dir.as_fd(), part.as_os_str()).ok();
            let object = stat.map(|stat| self.objects.intern(&stat, here, &entry));
            last = Some((here, entry));
            match object {
                Some(object) => here = object,
                None if i + 1 == parts.len() => {
                    return Ok(self.explain_missing(client, name, path, last, now));
                }
                None => return Ok(format!("the truth has no `{}` on the way to `{shown}`", part.display())),
            }
        }
        let mut text = match &last {
            Some((dir, entry)) => self.explain_name(client, name, path, (*dir, entry, here), now),
            None => None,
        };
        let text = text.get_or_insert_with(|| self.explain_object(client, name, path, here, now));
        let size = self.truth(here)?.size;
        match self.objects.get(here).and_then(|o| o.last) {
            Some(last) => {
                let author = self.clients.get(&last.author).map_or("a client that is gone", |c| &c.name);
                let _ = write!(
                    text,
                    "; the truth is {} ({size} bytes), committed by {author} at t={}",
                    last.version, last.at
                );
            }
            None => {
                let _ = write!(text, "; the truth is as it was found ({size} bytes)");
            }
        }
        let _ = write!(text, "; it is now t={now}");
        Ok(std::mem::take(text))
    }

    /// What the client sees of a name where that is not the object that is there.
    fn explain_name(
        &self,
        client: ClientId,
        name: &str,
        path: &Path,
        (dir, entry, truth): (ObjectId, &Name, ObjectId),
        now: Time,
    ) -> Option<String> {
        let (shown, knobs) = (path.display(), self.world.knobs(client));
        match self.world.peek_name(client, dir, entry, now) {
            Sight::Cached(None, age) => Some(format!(
                "{name} does not see `{shown}`: it was told so {} ago and asks again {}",
                s(age),
                left(age, knobs.negative_ttl)
            )),
            Sight::Past(None) => Some(format!(
                "{name} does not see `{shown}` yet: the rename_delay of who made it is not over"
            )),
            Sight::Cached(Some(o), age) if o != truth => Some(format!(
                "{name} still sees the file that was at `{shown}` before: it looked it up {} ago and asks again {}",
                s(age),
                left(age, knobs.dir_ttl)
            )),
            Sight::Past(Some(o)) if o != truth => Some(format!(
                "{name} still sees the file that was at `{shown}` before: the rename_delay of who replaced it is not over"
            )),
            _ => None,
        }
    }

    fn explain_object(
        &self,
        client: ClientId,
        name: &str,
        path: &Path,
        object: ObjectId,
        now: Time,
    ) -> String {
        let shown = path.display();
        let view = self.world.view(client);
        let newest = self.objects.get(object).and_then(|o| o.last).map(|last| last.version);
        let mut text = match self.world.peek_object(client, object, now) {
            Sight::Cached(found, age) => {
                let what = if newest.is_none_or(|newest| found.version >= newest) {
                    "the truth"
                } else {
                    "an older state"
                };
                format!(
                    "{name} sees {what} of `{shown}` ({} bytes): it fetched it {} ago and asks again {}",
                    found.attr.size,
                    s(age),
                    left(age, view.ttl(found.attr.kind))
                )
            }
            Sight::Past(found) => {
                format!(
                    "{name} sees an older state of `{shown}` ({} bytes): the newest is not visible to it yet",
                    found.attr.size
                )
            }
            Sight::Truth => format!("{name} sees the truth of `{shown}` when it asks"),
        };
        if let Some(dirty) = view.dirty.get(&object) {
            let _ = write!(
                text,
                ", with {} bytes of its own that are flushed at t={}",
                dirty.extents.bytes(),
                dirty.deadline
            );
        }
        text
    }

    fn explain_missing(
        &self,
        client: ClientId,
        name: &str,
        path: &Path,
        last: Option<(ObjectId, Name)>,
        now: Time,
    ) -> String {
        let shown = path.display();
        let sight = last.map(|(dir, entry)| self.world.peek_name(client, dir, &entry, now));
        match sight {
            Some(Sight::Cached(Some(_), age)) => {
                let ttl = self.world.knobs(client).dir_ttl;
                format!(
                    "{name} still sees `{shown}`: it looked it up {} ago and asks again {}; the truth has no such file",
                    s(age),
                    left(age, ttl)
                )
            }
            Some(Sight::Past(Some(_))) => {
                format!(
                    "{name} still sees `{shown}`: the rename_delay of its removal is not over; the truth has no such file"
                )
            }
            _ => format!("{name} does not see `{shown}`, and the truth has no such file"),
        }
    }
}

/// A duration for people: `2.100s`. In full, since a millisecond before its end a cache is still believed.
fn s(d: Duration) -> String {
    format!("{:.3}s", d.as_secs_f64())
}

/// When something that is believed for `ttl` is asked for again.
fn left(age: Duration, ttl: Duration) -> String {
    match ttl.saturating_sub(age) {
        Duration::ZERO => "next time".to_owned(),
        left => format!("in {}", s(left)),
    }
}
