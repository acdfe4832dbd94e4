//! What is told of one command.

use std::path::{Path, PathBuf};

/// Lines of one kind that are shown for one command.
const SHOWN: usize = 5;

/// What one command did, in the order in which it was first done.
#[derive(Default)]
pub(crate) struct Turn {
    touched: Vec<(PathBuf, &'static str)>,
    odd: Vec<(String, usize)>,
}

/// A path, not too long.
pub(crate) fn show(path: &Path) -> String {
    let text = path.display().to_string();
    match text.char_indices().nth(24) {
        None if text.is_empty() => "the top directory".into(),
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

impl Turn {
    /// What comes and goes within one turn is not told.
    pub(crate) fn touch(&mut self, path: PathBuf, what: &'static str) {
        match self.touched.iter().position(|(p, _)| *p == path) {
            Some(i) if what == "removed" && self.touched[i].1 == "created" => drop(self.touched.remove(i)),
            Some(i) if what != "wrote" => self.touched[i].1 = what,
            Some(_) => {}
            None => self.touched.push((path, what)),
        }
    }

    pub(crate) fn odd(&mut self, text: String) {
        match self.odd.iter_mut().find(|(t, _)| *t == text) {
            Some((_, n)) => *n += 1,
            None => self.odd.push((text, 1)),
        }
    }

    pub(crate) fn lines(self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.odd.iter().take(SHOWN).map(|(text, _)| format!("! {text}")).collect();
        if self.odd.len() > SHOWN {
            lines.push(format!("! ... and {} more like these", self.odd.len() - SHOWN));
        }
        let mut all: Vec<String> = Vec::new();
        for verb in ["replaced", "removed", "wrote", "created"] {
            all.extend(
                self.touched
                    .iter()
                    .filter(|(_, what)| *what == verb)
                    .map(|(p, _)| format!("{verb} {}", show(p))),
            );
        }
        let more = all.len().saturating_sub(SHOWN);
        all.truncate(SHOWN);
        if more > 0 {
            all.push(format!("and {more} more"));
        }
        if !all.is_empty() {
            lines.push(format!("> {}", all.join(", ")));
        }
        lines
    }
}
