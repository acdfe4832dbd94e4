//! Mounts a directory in the foreground, for shells and programs in any language, until Ctrl-C, SIGTERM or `umount`.
//! What no flag says comes from the `CHAOSFS_*` variables.
use chaosfs::{Knobs, Options};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::time::Duration;

const USAGE: &str = "usage: mount BACKING MOUNTPOINT [--profile strict|eventual] [--meta-ttl 1500ms] [--write-delay 0.8s]
  [--rename-delay 1200] [--drop-prob 0.01] [--seed 42] [--client-id NAME] [--exact yes|no]
A time without a unit is in milliseconds. With `--exact no`, the default, the kernel caches in a strict mount: fast, but
changes made in BACKING itself appear up to about a second late. With `--exact yes` nothing is cached.";

fn main() -> std::process::ExitCode {
    let Err(e) = run() else { return std::process::ExitCode::SUCCESS };
    eprintln!("mount: {e}");
    std::process::ExitCode::FAILURE
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let (mut flags, mut paths, mut args) = (Vec::new(), Vec::new(), std::env::args().skip(1));
    while let Some(arg) = args.next() {
        let is_flag = arg.starts_with("--");
        if is_flag { flags.push((arg, args.next().unwrap_or_default())) } else { paths.push(arg) }
    }
    if flags.iter().any(|(flag, _)| flag == "--help") {
        println!("{USAGE}");
        return Ok(());
    }
    let [backing, mountpoint] = &paths[..] else { return Err(USAGE.into()) };
    // A profile sets all knobs, so it goes before those that set one.
    flags.sort_by_key(|(flag, _)| flag != "--profile");
    let mut options = Options::from_env()?;
    #[allow(clippy::disallowed_methods)] // a program of its own
    if std::env::var_os("CHAOSFS_EXACT").is_none() {
        options = options.exact(false);
    }
    for (flag, value) in &flags {
        let wrong = || format!("`{flag} {value}` is not understood\n{USAGE}");
        options = set(options, flag, value).ok_or_else(wrong)?;
    }
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let m = options.at(mountpoint).mount(backing)?;
    let how = if m.is_fast() { ", fast" } else { "" };
    println!("ready: client `{}` at {}, seed {}{how}", m.client_id(), m.path().display(), m.seed());
    while signals.pending().next().is_none() && !m.wait_unmounted(Duration::from_millis(100)) {}
    Ok(m.unmount()?)
}

fn set(options: Options, flag: &str, value: &str) -> Option<Options> {
    Some(match (flag, value) {
        ("--profile", "strict") => options.knobs(Knobs::strict()),
        ("--profile", "eventual") => options.knobs(Knobs::eventual()),
        ("--meta-ttl", _) => options.meta_ttl(time(value)?),
        ("--write-delay", _) => options.write_delay(time(value)?),
        ("--rename-delay", _) => options.rename_delay(time(value)?),
        ("--drop-prob", _) => options.drop_prob(value.parse().ok()?),
        ("--seed", _) => options.seed(value.parse().ok()?),
        ("--client-id", _) => options.client_id(value),
        ("--exact", "yes" | "no") => options.exact(value == "yes"),
        _ => return None,
    })
}

fn time(text: &str) -> Option<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let seconds = if unit == "s" { 1.0 } else { ["", "ms"].contains(&unit).then_some(1e-3)? };
    Duration::try_from_secs_f64(text.strip_suffix(unit)?.parse::<f64>().ok()? * seconds).ok()
}
