//! What the two hosts do, step by step.

use chaosfs::Knobs;

pub struct Story {
    pub title: &'static str,
    pub needs: &'static str,
    pub package: &'static str,
    pub knobs: fn() -> Knobs,
    pub steps: &'static [Step],
}

pub enum Step {
    /// What is about to be seen.
    Say(&'static str),
    /// Prepare something that is not part of the story.
    Quiet(usize, &'static str),
    /// One host runs a shell command in its mount.
    Run(usize, &'static str),
    /// Milliseconds pass.
    Wait(u64),
    /// Everything that is late arrives.
    Settle,
}

use Step::{Quiet, Run, Say, Settle, Wait};

const A: usize = 0;
const B: usize = 1;

pub const GIT: Story = Story {
    title: "git: host a commits, host b looks at the same repository",
    needs: "git",
    package: "git",
    knobs: Knobs::eventual,
    steps: &[
        Quiet(A, "git init -q -b main; git config gc.auto 0; echo 1 > f; git add f; git commit -qm one; git tag v1"),
        Say("b looks at the repository, and its caches fill. a commits. b looks again at once."),
        Run(B, "git log --oneline"),
        Run(A, "echo 2 > f; git commit -qam two; git log --oneline"),
        Run(B, "git log --oneline"),
        Say("a tells b the new commit by other means (a message, a queue). b cannot find it, and remembers that."),
        Run(B, "git cat-file -t 6ab3ee3"),
        Wait(1300),
        Run(B, "git log --oneline"),
        Wait(300),
        Run(B, "git log --oneline"),
        Say("Later all is well: nothing was damaged, b was only behind."),
        Settle,
        Run(B, "git log --oneline; git status --short; git fsck && echo fsck: clean"),
    ],
};

pub const SQLITE: Story = Story {
    title: "sqlite3: host a inserts, host b counts",
    needs: "sqlite3",
    package: "sqlite3",
    knobs: Knobs::eventual,
    steps: &[
        Quiet(A, "sqlite3 db 'create table t(x); insert into t values(1),(2),(3)'"),
        Run(B, "sqlite3 db 'select count(*) from t'"),
        Run(A, "sqlite3 db 'insert into t values(4)'"),
        Run(B, "sqlite3 db 'select count(*) from t'"),
        Run(B, "sqlite3 'file:db?vfs=unix-none' 'select count(*) from t'"),
        Settle,
        Run(B, "sqlite3 db 'select count(*) from t; pragma integrity_check'"),
    ],
};
