//! What the two hosts do, step by step.

pub(crate) struct Story {
    pub(crate) title: &'static str,
    pub(crate) needs: &'static str,
    pub(crate) package: &'static str,
    pub(crate) steps: &'static [Step],
}

pub(crate) enum Step {
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

pub(crate) const GIT: Story = Story {
    title: "git: a commits, b looks at the same repository",
    needs: "git",
    package: "git",
    steps: &[
        Quiet(A, "git init -q -b main; git config gc.auto 0; echo 1 > f; git add f; git commit -qm one"),
        Say("b looks at the repository. a commits. b looks again at once."),
        Run(B, "git log --oneline"),
        Run(A, "echo 2 > f; git commit -qam two; git log --oneline"),
        Run(B, "git log --oneline"),
        Say(
            "a tells b the name of the commit by other means, say a message queue. b cannot find it, and remembers that.",
        ),
        Wait(1100),
        Run(B, "git cat-file -t 29ddcac"),
        Say(
            "b's memory of the branch ends before its memory of the missing object: for a while its repository looks broken.",
        ),
        Wait(500),
        Run(B, "git log --oneline"),
        Say("And it was only late."),
        Settle,
        Run(B, "git log --oneline; git status --short; git fsck && echo fsck: clean"),
    ],
};

pub(crate) const SQLITE: Story = Story {
    title: "sqlite3: a writes, b counts",
    needs: "sqlite3",
    package: "sqlite3",
    steps: &[
        Quiet(A, "sqlite3 db 'create table t(x); insert into t select value from generate_series(1,3000)'"),
        Say(
            "Without locks (as on a mount with `nolock`) b counts what its cache has. With locks it is right:\n  \
             taking a lock asks the server.",
        ),
        Run(B, "sqlite3 'file:db?vfs=unix-none' 'select count(*) from t'"),
        Run(A, "sqlite3 db 'insert into t values(3001)'"),
        Run(B, "sqlite3 'file:db?vfs=unix-none' 'select count(*) from t'"),
        Run(B, "sqlite3 db 'select count(*) from t'"),
        Say(
            "a is killed in a transaction that has reached the file in part. The journal that would undo it is a new name,\n  \
             and b does not see new names yet: it takes the half for the whole.",
        ),
        Settle,
        Run(A, "sqlite3 db 'pragma cache_size=1; begin; update t set x=0' '.system kill -9 $PPID'"),
        Run(B, "sqlite3 db 'select count(*) from t where x=0; pragma integrity_check'"),
        Say("When the journal arrives, b undoes the transaction as it should have before."),
        Settle,
        Run(B, "sqlite3 db 'select count(*) from t where x=0; pragma integrity_check'"),
    ],
};
