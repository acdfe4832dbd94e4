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
        let mut text = String::new();
        if let Some((dir, entry)) = &last {
            match self.world.peek_name(client, *dir, entry, now) {
                Sight::Cached(None, age) => {
                    let ttl = self.world.knobs(client).negative_ttl;
                    let _ = write!(
                        text,
                        "{name} does not see `{shown}`: it was told so {} ago and believes it for {}",
                        s(age),
                        s(ttl)
                    );
                }
                Sight::Past(None) => {
                    let _ = write!(text, "{name} does not see `{shown}` yet: its rename_delay is not over");
                }
                Sight::Cached(Some(o), age) if o != here => {
                    let ttl = self.world.knobs(client).dir_ttl;
                    let _ = write!(
                        text,
                        "{name} sees another file at `{shown}`, looked up {} ago and believed for {}",
                        s(age),
                        s(ttl)
                    );
                }
                Sight::Past(Some(o)) if o != here => {
                    let _ = write!(
                        text,
                        "{name} still sees the file that was at `{shown}` before: the rename_delay is not over"
                    );
                }
                _ => {}
            }
        }
        if text.is_empty() {
            text = self.explain_object(client, name, path, here, now);
        }
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
        Ok(text)
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
        let mut text = match self.world.peek_object(client, object, now) {
            Sight::Cached(found, age) => {
                format!(
                    "{name} sees {} of `{shown}` ({} bytes), fetched {} ago and believed for {}",
                    found.version,
                    found.attr.size,
                    s(age),
                    s(view.ttl(found.attr.kind))
                )
            }
            Sight::Past(found) => {
                format!(
                    "{name} sees {} of `{shown}` ({} bytes): the newest is not visible to it yet",
                    found.version, found.attr.size
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
                    "{name} still sees `{shown}`, looked up {} ago and believed for {}; the truth has no such file",
                    s(age),
                    s(ttl)
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

/// A duration for people: `2.1s`.
fn s(d: Duration) -> String {
    format!("{:.1}s", d.as_secs_f64())
}
