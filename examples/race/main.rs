//! Runs real programs on two hosts that share one directory, and tells who saw what, when, and which anomaly that was.
//!
//! `race` tells both stories below; `race git` or `race sqlite` one of them; `race [--turns] -- CMD_A -- CMD_B` runs two
//! commands of yours, each in its own mount: at the same time, or one after the other on a clock that stands still.

mod stories;
mod timeline;
mod turn;

use std::process::{Command, Stdio};
use std::time::Duration;

use chaosfs::{Backing, Clock, Mount, Options};
use stories::{GIT, SQLITE, Step, Story};
use timeline::Watcher;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const USAGE: &str = "usage: race [git | sqlite] | race [--turns] -- CMD_A [ARG..] -- CMD_B [ARG..]
  In the commands, {} stands for the mount; it is also the working directory and $CHAOSFS_MOUNT. For a line of shell,\n  write sh -c 'line'.
  The knobs come from CHAOSFS_META_TTL_MS, CHAOSFS_WRITE_DELAY_MS and CHAOSFS_RENAME_DELAY_MS.";

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("race: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match &args[..] {
        [] => tell(&GIT).and_then(|()| tell(&SQLITE)),
        ["git"] => tell(&GIT),
        ["sqlite"] => tell(&SQLITE),
        ["--turns", "--", rest @ ..] => own(rest, Clock::manual()),
        ["--", rest @ ..] => own(rest, Clock::system()),
        ["-h" | "--help"] => {
            println!("{USAGE}");
            Ok(())
        }
        [other, ..] => Err(format!("`{other}` is not understood\n{USAGE}").into()),
    }
}

/// One backing directory, two clients.
struct Stage {
    // The order is that of dropping: the mounts go before the directory that they show.
    hosts: [Mount; 2],
    backing: Backing,
    watcher: Watcher,
}

impl Stage {
    fn set(clock: Clock, options: &Options) -> Result<Stage> {
        let backing = Backing::options().clock(clock).history_limit(1 << 20).temp()?;
        let host = |name: &str| backing.mount(options.clone().client_id(name));
        Ok(Stage { hosts: [host("a")?, host("b")?], backing, watcher: Watcher::default() })
    }

    /// A command that will run in the mount of one host, and in an environment that is the same everywhere.
    fn command(&self, host: usize, program: &str, args: &[&str]) -> Command {
        let mount = self.hosts[host].path();
        let here = |text: &str| text.replace("{}", &mount.to_string_lossy());
        let mut command = Command::new(here(program));
        command.args(args.iter().map(|a| here(a))).current_dir(mount).env("CHAOSFS_MOUNT", mount);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").stdin(Stdio::null());
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "race")
                .env(format!("GIT_{role}_EMAIL"), "race@example.org");
            command.env(format!("GIT_{role}_DATE"), "2024-01-01T00:00:00Z");
        }
        command
    }

    /// What the clients did since the last time, and what was odd about it.
    fn report(&mut self) {
        for line in self.watcher.since_last(&self.backing.history()) {
            println!("                {line}");
        }
    }

    fn says(&self, host: usize, output: &std::process::Output) {
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        let text = String::from_utf8_lossy(&text);
        let mount = self.hosts[host].path().to_string_lossy();
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        for line in lines.iter().take(8) {
            println!("              | {}", line.replace(&*mount, "{}"));
        }
        if lines.len() > 8 {
            println!("              | ... {} more lines", lines.len() - 8);
        }
        match output.status.code() {
            Some(0) => {}
            Some(code) => println!("              | (exit status {code})"),
            None => println!("              | ({})", output.status),
        }
    }

    fn settle(&mut self) -> Result {
        self.backing.settle()?;
        println!("{:>8}      settled: nothing is late any more, every view equals the truth", self.now());
        self.report();
        Ok(())
    }

    fn now(&self) -> String {
        format!("{:.2}s", self.backing.clock().now().elapsed().as_secs_f64())
    }

    fn end(self) -> Result {
        println!("\n  anomalies: {}\n", self.watcher.summary());
        let [a, b] = self.hosts;
        a.unmount()?;
        b.unmount()?;
        Ok(())
    }
}

/// A story on a clock that only the story moves: the same every time.
fn tell(story: &Story) -> Result {
    if Command::new(story.needs).arg("--version").stdout(Stdio::null()).status().is_err() {
        return Err(
            format!("{0} is not installed\n  help: apt-get install {1}", story.needs, story.package).into()
        );
    }
    println!("== {}\n", story.title);
    let mut stage = Stage::set(Clock::manual(), &Options::new())?;
    for step in story.steps {
        match *step {
            Step::Say(text) => println!("\n  {text}"),
            Step::Wait(ms) => {
                stage.backing.clock().advance(Duration::from_millis(ms));
                println!("{:>8}      ... {ms} ms pass", stage.now());
                stage.report();
            }
            Step::Settle => stage.settle()?,
            Step::Quiet(host, script) => {
                let output = stage.command(host, "sh", &["-ec", script]).output()?;
                if !output.status.success() {
                    stage.says(host, &output);
                    return Err(format!("`{script}` failed").into());
                }
                stage.backing.settle()?;
                stage.watcher.skip(&stage.backing.history());
            }
            Step::Run(host, script) => {
                println!("{:>8}  {}   $ {script}", stage.now(), stage.hosts[host].client_id());
                let output = stage.command(host, "sh", &["-c", script]).output()?;
                stage.says(host, &output);
                stage.report();
            }
        }
    }
    stage.end()
}

/// Two commands of the user's.
fn own(args: &[&str], clock: Clock) -> Result {
    let at = args.iter().position(|a| *a == "--").ok_or(USAGE)?;
    let commands = [&args[..at], &args[at + 1..]];
    if commands.iter().any(|c| c.is_empty()) {
        return Err(USAGE.into());
    }
    let turns = clock.is_manual();
    let mut stage = Stage::set(clock, &Options::from_env()?)?;
    let start = |stage: &Stage, host: usize| {
        let (program, args) = (commands[host][0], &commands[host][1..]);
        println!("{:>8}  {}   $ {}", stage.now(), stage.hosts[host].client_id(), commands[host].join(" "));
        let piped = stage.command(host, program, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        piped.map_err(|e| format!("`{program}` cannot be started: {e}"))
    };
    if turns {
        for host in [0, 1] {
            let output = start(&stage, host)?.wait_with_output()?;
            stage.says(host, &output);
            stage.report();
        }
    } else {
        let (first, second) = (start(&stage, 0)?, start(&stage, 1)?);
        let other = std::thread::spawn(|| second.wait_with_output());
        let outputs = [first.wait_with_output()?, other.join().expect("it only waits")?];
        for host in [0, 1] {
            println!("{:>8}  {} has ended", stage.now(), stage.hosts[host].client_id());
            stage.says(host, &outputs[host]);
        }
        stage.report();
    }
    stage.settle()?;
    for entry in std::fs::read_dir(stage.backing.path())? {
        let entry = entry?;
        println!(
            "                in the end: {} ({} bytes)",
            entry.file_name().display(),
            entry.metadata()?.len()
        );
    }
    stage.end()
}
