//! Pieces of a file's bytes: what a client has written and not yet flushed, or what a commit has overwritten.
//!
//! Cost is in the bytes of the pieces, never in the size of the file.

use std::collections::BTreeMap;

/// Non-overlapping pieces, by their offset.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Extents {
    pieces: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
}

impl Extents {
    /// How many bytes the pieces hold.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The offset after the last byte held; 0 when none is.
    pub(crate) fn end(&self) -> u64 {
        self.pieces.last_key_value().map_or(0, |(at, piece)| at + piece.len() as u64)
    }

    /// The pieces in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces.iter().map(|(at, piece)| (*at, piece.as_slice()))
    }

    /// Puts `data` at `at`; where something is held already, the new bytes win.
    pub(crate) fn write(&mut self, at: u64, data: &[u8]) {
        let Some(end) = at.checked_add(data.len() as u64).filter(|end| *end > at) else { return };
        if let Some((start, piece)) = self.pieces.range_mut(..=at).next_back() {
            let from = (at - start) as usize;
            if from + data.len() <= piece.len() {
                piece[from..from + data.len()].copy_from_slice(data);
                return;
            }
        }
        self.clear(at, end);
        self.bytes += data.len();
        // Appending is what logs do all day: grow the piece in place.
        if let Some((start, piece)) = self.pieces.range_mut(..at).next_back()
            && start + piece.len() as u64 == at
        {
            piece.extend_from_slice(data);
            return;
        }
        self.pieces.insert(at, data.to_vec());
    }

    /// Puts `data` at `at` where nothing is held yet; what is held already stays.
    pub(crate) fn write_below(&mut self, at: u64, data: &[u8]) {
        let Some(end) = at.checked_add(data.len() as u64) else { return };
        // Only the pieces in the way are looked at: a file overwritten piece by piece has many.
        let first = self.pieces.range(..=at).next_back().map_or(at, |(start, _)| *start);
        let mut gaps = Vec::new();
        let mut from = at;
        for (start, piece) in self.pieces.range(first..end.max(first)) {
            if *start > from {
                gaps.push((from, *start));
            }
            from = from.max(start + piece.len() as u64);
        }
        if from < end {
            gaps.push((from, end));
        }
        for (from, to) in gaps {
            self.write(from, &data[(from - at) as usize..(to - at) as usize]);
        }
    }

    /// Copies what is held of the bytes at `at` onto `buf`.
    pub(crate) fn overlay(&self, at: u64, buf: &mut [u8]) {
        let end = at.saturating_add(buf.len() as u64);
        let first = self.pieces.range(..=at).next_back().map_or(at, |(start, _)| *start);
        for (start, piece) in self.pieces.range(first..end) {
            let (from, to) = ((*start).max(at), (start + piece.len() as u64).min(end));
            if from < to {
                buf[(from - at) as usize..(to - at) as usize]
                    .copy_from_slice(&piece[(from - start) as usize..(to - start) as usize]);
            }
        }
    }

    /// Lets go of everything at `size` and beyond.
    pub(crate) fn truncate(&mut self, size: u64) {
        self.clear(size, u64::MAX);
    }

    /// Lets go of everything in `[from, to)`.
    pub(crate) fn clear(&mut self, from: u64, to: u64) {
        let first = self.pieces.range(..from).next_back().map_or(from, |(start, _)| *start);
        let touched: Vec<u64> = self.pieces.range(first..to).map(|(start, _)| *start).collect();
        for start in touched {
            let end = start + self.pieces[&start].len() as u64;
            if end <= from {
                continue;
            }
            let mut piece = self.pieces.remove(&start).unwrap_or_default();
            self.bytes -= piece.len();
            if end > to {
                let tail = piece.split_off((to - start) as usize);
                self.bytes += tail.len();
                self.pieces.insert(to, tail);
            }
            if start < from {
                piece.truncate((from - start) as usize);
                self.bytes += piece.len();
                self.pieces.insert(start, piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same in the simplest way: one optional byte for each offset.
    fn flat(e: &Extents) -> Vec<Option<u8>> {
        let mut out = vec![None; 64];
        for (at, piece) in e.iter() {
            for (i, b) in piece.iter().enumerate() {
                out[at as usize + i] = Some(*b);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn pieces_behave_like_one_byte_per_offset(steps in prop::collection::vec((0u8..4, 0u64..40, 0usize..20, any::<u8>()), 1..30)) {
            let (mut e, mut model) = (Extents::default(), vec![None; 64]);
            for (kind, at, len, byte) in steps {
                let range = at as usize..at as usize + len;
                match kind {
                    0 | 1 => { e.write(at, &vec![byte; len]); model[range].fill(Some(byte)); }
                    2 => { e.write_below(at, &vec![byte; len]); for b in &mut model[range] { b.get_or_insert(byte); } }
                    _ => { e.truncate(at); model[at as usize..].fill(None); }
                }
                prop_assert_eq!(flat(&e), model.clone());
                prop_assert_eq!(e.bytes(), model.iter().flatten().count());
                prop_assert_eq!(e.end() as usize, model.iter().rposition(Option::is_some).map_or(0, |i| i + 1));
                let mut buf = [7u8; 10];
                e.overlay(at, &mut buf);
                for (i, b) in buf.iter().enumerate() {
                    prop_assert_eq!(*b, model.get(at as usize + i).copied().flatten().unwrap_or(7));
                }
            }
        }
    }
}
