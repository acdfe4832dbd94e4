//! The flags of files that `lsattr` shows and `chattr` sets: all that is answered of `ioctl`.

use std::sync::Arc;

use fuser::{ReplyIoctl, Request};

use super::attr::errno;
use super::serve::Core;
use crate::engine::{Engine, Place};
use crate::errno::Errno;
use crate::model::ids::ObjectId;
use crate::model::op::Op;
use crate::raw::FLAG_REQUESTS;

/// Answers the request, with at most `room` bytes.
pub(super) fn serve(
    core: &Arc<Core>,
    req: &Request,
    id: ObjectId,
    (request, given, room): (u32, &[u8], u32),
    reply: ReplyIoctl,
) {
    let mut argument = [0; 28];
    if !FLAG_REQUESTS.contains(&request) || given.len().max(room as usize) > argument.len() {
        return reply.error(errno(Errno::ENOTTY));
    }
    argument[..given.len()].copy_from_slice(given);
    let sets = !given.is_empty();
    let work = move |engine: &Engine, who: &_| engine.file_flags(who, id, request, argument, sets);
    let send = move |reply: ReplyIoctl, answer: [u8; 28]| reply.ioctl(0, &answer[..room as usize]);
    let op = if sets { Op::Setattr } else { Op::Getattr };
    core.serve(req, (op, Place::Object(id)), reply, work, send);
}
