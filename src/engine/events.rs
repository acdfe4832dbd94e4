//! Writing down what happened: how operations become events of the history.

use std::ffi::OsStr;
use std::sync::Arc;

use super::disk::Result;
use super::{Caller, State};
use crate::model::history::{Deed, Event, EventPath, Why};
use crate::model::ids::{ClientId, Name, ObjectId, Version};
use crate::model::op::Op;

impl State {
    /// The path of a directory as events show it.
    pub(super) fn dir_path(&mut self, dir: ObjectId) -> Arc<[u8]> {
        if let Some(path) = self.paths.get(&dir) {
            return path.clone();
        }
        let mut parts: Vec<Name> = Vec::new();
        let mut here = dir;
        while let Some((parent, name)) = self.objects.get(here).and_then(|o| o.at.as_ref().or(o.was.as_ref()))
        {
            parts.push(name.clone());
            here = *parent;
            if parts.len() > 4096 {
                break;
            }
        }
        let mut bytes = Vec::new();
        for part in parts.iter().rev() {
            if !bytes.is_empty() {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(part.as_bytes());
        }
        let path: Arc<[u8]> = bytes.into();
        if self.paths.len() > 16_384 {
            self.paths.clear();
        }
        self.paths.insert(dir, path.clone());
        path
    }

    pub(super) fn path_at(&mut self, dir: ObjectId, name: &Name) -> EventPath {
        EventPath { dir: self.dir_path(dir), name: name.clone() }
    }

    /// The path of an object as a client knows it: by the name it used last.
    pub(super) fn path_of(&mut self, client: ClientId, object: ObjectId) -> EventPath {
        let known = self.clients.get(&client).and_then(|c| c.lookups.get(&object));
        if let Some((dir, name)) = known.map(|known| known.at.clone()) {
            return self.path_at(dir, &name);
        }
        let found = self.objects.get(object).map(|o| (o.at.clone(), o.was.clone()));
        match found.unwrap_or_default() {
            (Some((dir, name)), _) => self.path_at(dir, &name),
            (None, Some((dir, name))) => {
                let mut gone = name.as_os().to_owned();
                gone.push(" (removed)");
                self.path_at(dir, &Name::new(&gone))
            }
            (None, None) => EventPath { dir: Arc::from([]), name: Name::new(OsStr::new("")) },
        }
    }

    /// Starts an event; `push` ends it.
    pub(super) fn event(&mut self, who: &Caller, op: Op, path: EventPath) -> Event {
        Event {
            number: 0,
            at: who.now,
            client: self.client(who.client).name.clone(),
            deed: Deed::Op(op),
            path,
            to: None,
            range: None,
            version: None,
            result: Ok(0),
            why: Why::Truth,
        }
    }

    /// Writes down how an operation on an object ended, and hands the result on.
    pub(super) fn note<T>(
        &mut self,
        who: &Caller,
        op: Op,
        object: ObjectId,
        why: Why,
        result: Result<T>,
    ) -> Result<T> {
        let version = self.made(op);
        self.note_seen(who, op, object, why, version, result)
    }

    /// The same for an operation that was shown a version.
    pub(super) fn note_seen<T>(
        &mut self,
        who: &Caller,
        op: Op,
        object: ObjectId,
        why: Why,
        version: Option<Version>,
        result: Result<T>,
    ) -> Result<T> {
        let path = self.path_of(who.client, object);
        let mut event = self.event(who, op, path);
        event.why = why;
        event.version = version.filter(|_| result.is_ok());
        event.result = result.as_ref().map(|_| 0).map_err(|e| *e);
        self.recorder.push(event);
        result
    }

    /// The version that an operation has just made, if it is one that changes the truth.
    pub(super) fn made(&self, op: Op) -> Option<Version> {
        let changes = Op::names().contains(op) || matches!(op, Op::Setattr | Op::Truncate);
        changes.then(|| self.world.newest())
    }

    /// The same for an operation on a name.
    pub(super) fn note_name<T>(
        &mut self,
        who: &Caller,
        op: Op,
        dir: ObjectId,
        name: &Name,
        why: Why,
        result: Result<T>,
    ) -> Result<T> {
        let path = self.path_at(dir, name);
        let mut event = self.event(who, op, path);
        event.why = why;
        event.version = self.made(op).filter(|_| result.is_ok());
        event.result = result.as_ref().map(|_| 0).map_err(|e| *e);
        self.recorder.push(event);
        result
    }
}
