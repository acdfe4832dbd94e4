//! The house rules, checked by reading the source: which layer may name what, and what no file may do.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the crate, by its path below `src`.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines that are compiled into the library, with their numbers: no comments, no tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let all = self.text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = all.lines().enumerate().map(|(i, line)| (i + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_in(&self, layer: &str) -> bool {
        self.path.starts_with(&format!("{layer}/"))
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let (mut dirs, mut files) = (vec![root().join("src")], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root().join("src")).unwrap().to_str().unwrap().to_owned();
                files.push(Source { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 20, "the source is somewhere else");
    files
}

/// Whether `line` names `what` as a whole: `std::fs` is not in `std::fs2`.
fn names(line: &str, what: &str) -> bool {
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(what)
        .any(|(at, _)| !word(line[..at].chars().next_back()) && !word(line[at + what.len()..].chars().next()))
}

/// Fails with every line that names something forbidden in the files that `applies` picks.
fn forbid(applies: impl Fn(&Source) -> bool, forbidden: &[&str]) {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test() && applies(s)) {
        for (number, line) in source.code() {
            for what in forbidden.iter().filter(|what| names(line, what)) {
                found.push(format!("src/{}:{number}: names `{what}`: {}", source.path, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_model_knows_no_disk_no_thread_no_clock_and_no_other_layer() {
    let machine =
        ["fuser", "rustix", "libc", "parking_lot", "std::fs", "std::thread", "std::sync::Mutex", "Instant"];
    let layers =
        ["crate::engine", "crate::fuse", "crate::host", "crate::mount", "crate::backing", "crate::options"];
    forbid(
        |s| s.is_in("model"),
        &[&machine[..], &layers, &["SystemTime", "crate::clock", "crate::pair"]].concat(),
    );
}

#[test]
fn the_engine_knows_neither_fuse_nor_the_guards_and_starts_no_thread() {
    let outer =
        ["crate::fuse", "crate::host", "crate::mount", "crate::backing", "crate::pair", "crate::options"];
    forbid(
        |s| s.is_in("engine"),
        &[&outer[..], &["fuser", "thread::spawn", "crate::clock", "Instant::now"]].concat(),
    );
}

#[test]
fn one_file_of_the_engine_touches_the_disk() {
    // `identity` asks `/proc` who the caller is.
    let exempt = ["engine/disk.rs", "engine/identity.rs"];
    forbid(|s| s.is_in("engine") && !exempt.contains(&s.path.as_str()), &["rustix::fs", "std::fs", "libc"]);
}

#[test]
fn the_adapter_only_translates() {
    // `session` opens `/dev/null`, to put it in the place of `/dev/fuse`.
    forbid(
        |s| s.is_in("fuse") && s.path != "fuse/session.rs",
        &["std::fs", "rustix::fs", "rand", "crate::mount", "crate::backing", "crate::pair"],
    );
}

#[test]
fn nothing_inside_knows_the_guards() {
    let guards = ["crate::mount", "crate::pair", "crate::backing"];
    forbid(|s| ["model", "engine", "fuse", "host"].iter().any(|layer| s.is_in(layer)), &guards);
}

#[test]
fn the_library_prints_nothing() {
    forbid(|_| true, &["println!", "print!", "dbg!", "todo!"]);
}

#[test]
fn no_type_of_a_dependency_is_public() {
    const CRATES: [&str; 8] =
        ["fuser", "rustix", "parking_lot", "tempfile", "glob", "libc", "log", "thiserror"];
    let mut found = Vec::new();
    for source in sources() {
        let imports = source.code().map(|(_, line)| line.trim());
        let imports = imports
            .filter_map(|line| line.strip_prefix("use "))
            .filter(|line| CRATES.iter().any(|c| line.starts_with(&format!("{c}::"))));
        let mut theirs: Vec<String> = CRATES.iter().map(|c| format!("{c}::")).collect();
        for import in imports {
            let last = import.rsplit("::").next().unwrap_or_default();
            theirs.extend(last.split([',', '{', '}', ';', ' ']).filter(|s| !s.is_empty()).map(str::to_owned));
        }
        for (number, line) in source.code() {
            let line = line.trim();
            let is_public =
                ["pub fn ", "pub const fn ", "pub struct ", "pub type ", "pub use ", "pub trait "];
            if is_public.iter().any(|p| line.starts_with(p))
                && theirs.iter().any(|t| {
                    t.strip_suffix("::").map_or(names(line, t), |c| names(line, c) && line.contains(t))
                })
            {
                found.push(format!("src/{}:{number}: {line}", source.path));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    for source in sources() {
        let lines = source.text.lines().count();
        // One `impl` of a trait with forty methods cannot be in two files.
        let most = if source.path == "fuse/mod.rs" { 650 } else { 430 };
        assert!(lines <= most, "src/{} has {lines} lines: split it", source.path);
        assert!(source.text.starts_with("//!"), "src/{} does not say what it is for", source.path);
    }
}

#[test]
fn every_exception_from_the_forbidden_methods_has_a_reason() {
    for source in sources().iter().filter(|s| !s.is_test()) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (i, line) in
            lines.iter().enumerate().filter(|(_, l)| l.contains("allow(clippy::disallowed_methods"))
        {
            let said = line.contains("//") || line.contains("reason =");
            let said = said || (i > 0 && lines[i - 1].trim_start().starts_with("//"));
            assert!(said, "src/{}:{}: say why", source.path, i + 1);
        }
    }
}

#[test]
fn every_file_that_waits_or_asks_the_time_is_known() {
    // Time, waiting and the environment come in by one door each; the host layer puts limits on real things.
    for source in sources().iter().filter(|s| !s.is_test() && !s.is_in("host")) {
        if source.text.contains("allow(clippy::disallowed_methods") {
            let doors = [
                "clock.rs",
                "options.rs",
                "mount.rs",
                "shared.rs",
                "engine/parking.rs",
                "fuse/session.rs",
                "fuse/serve.rs",
            ];
            assert!(doors.contains(&&*source.path), "src/{} opens another door", source.path);
        }
    }
}

#[test]
fn the_crate_brings_few_others() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let out = Command::new(cargo).args(args).current_dir(root()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let mut crates: Vec<&str> =
        text.lines().map(|line| line.trim_end_matches(" (*)")).filter(|l| !l.is_empty()).collect();
    crates.sort_unstable();
    crates.dedup();
    assert!(crates.len() <= 55, "{} crates:\n{}", crates.len(), crates.join("\n"));
}

/// All test functions of this binary.
fn tests() -> String {
    let (mut dirs, mut text) = (vec![root().join("tests/it")], String::new());
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                text += &std::fs::read_to_string(&path).unwrap();
            }
        }
    }
    text
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let (promises, tests) = (std::fs::read_to_string(root().join("SEMANTICS.md")).unwrap(), tests());
    let mut named = 0;
    for row in promises.lines().filter(|l| l.starts_with("| S") || l.starts_with("| D")) {
        let column = row.rsplit('|').nth(1).unwrap();
        let names: Vec<&str> = column.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test for: {row}");
        for name in names {
            let function = name.rsplit("::").next().unwrap();
            assert!(tests.contains(&format!("fn {function}(")), "there is no test `{name}`");
            named += 1;
        }
    }
    assert!(named > 30, "the table is not read");
}

#[test]
fn documents_are_short_and_every_module_is_in_the_map() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for source in sources().iter().filter(|s| !s.is_test() && s.path != "model/bench.rs") {
        let module = source.path.trim_end_matches(".rs");
        let short = module.rsplit('/').next().unwrap_or(module);
        let told = [format!("`{short}`"), format!("/{short}`"), format!("`{module}`")]
            .iter()
            .any(|t| map.contains(t));
        assert!(told, "{module} is not in ARCHITECTURE.md");
    }
    for document in
        ["README.md", "ARCHITECTURE.md", "SEMANTICS.md", "CONFORMANCE.md", "CHANGELOG.md", "CONTRIBUTING.md"]
    {
        let lines = std::fs::read_to_string(root().join(document)).unwrap().lines().count();
        assert!(lines <= 400, "{document} has {lines} lines");
    }
}
