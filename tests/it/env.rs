//! What the environment says. Every test runs its part in a child process: the environment of this one belongs to all.

use std::process::Output;

use chaosfs::{Knobs, Options};

use super::support::{ms, rerun};

/// Tells a child which part it is to play.
const PART: &str = "CHAOSFS_IT_PART";
/// What a child's report starts with. On a line of its own: the test harness does not end its own lines in time.
const REPORT: &str = "\nreport: ";

/// Plays the children of the tests below; among the tests it has nothing to do.
#[test]
fn child() {
    let Ok(part) = std::env::var(PART) else { return };
    let report = match part.as_str() {
        // What one mount that is made by the environment is.
        "from_env" => Options::from_env().and_then(|o| {
            let backing = tempfile::tempdir().unwrap();
            let m = o.mount(backing.path())?;
            let knobs =
                Knobs::default().meta_ttl(ms(250)).write_delay(ms(0)).rename_delay(ms(40)).drop_prob(0.25);
            Ok(format!(
                "{} {} {} {}",
                m.client_id(),
                m.seed(),
                m.knobs() == knobs,
                m.knobs() == Knobs::default()
            ))
        }),
        // The same of one that is not asked to listen to it.
        "mount" => {
            let backing = tempfile::tempdir().unwrap();
            chaosfs::mount(backing.path())
                .map(|m| format!("{} {} {}", m.client_id(), m.seed(), m.knobs() == Knobs::default()))
        }
        "given" => {
            let backing = tempfile::tempdir().unwrap();
            Options::new().seed(5).mount(backing.path()).map(|m| m.seed().to_string())
        }
        "options" => Options::from_env().map(|_| "good".to_owned()),
        other => panic!("no part {other}"),
    };
    println!("{REPORT}{}", report.unwrap_or_else(|e| e.to_string().replace('\n', " / ")));
}

/// Runs a child in which only these variables of ours are set, and answers its report.
fn reported(part: &str, vars: &[(&str, &str)]) -> String {
    let vars: Vec<(&str, &str)> = vars.iter().copied().chain([(PART, part)]).collect();
    let Output { status, stdout, stderr } = rerun("env::child", &vars);
    let said = String::from_utf8_lossy(&stdout);
    let report = said.split_once(REPORT).and_then(|(_, rest)| rest.lines().next());
    let errors = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{status}: {said}{errors}");
    report.unwrap_or_else(|| panic!("no report: {said}{errors}")).to_owned()
}

#[test]
fn from_env_takes_every_variable() {
    chaosfs::require_fuse!();
    let vars = [
        ("CHAOSFS_META_TTL_MS", "250"),
        ("CHAOSFS_WRITE_DELAY_MS", "0"),
        ("CHAOSFS_RENAME_DELAY_MS", " 40 "),
        ("CHAOSFS_DROP_PROB", "0.25"),
        ("CHAOSFS_SEED", "18446744073709551615"),
        ("CHAOSFS_CLIENT_ID", "worker-7"),
    ];
    assert_eq!(reported("from_env", &vars), "worker-7 18446744073709551615 true false");
}

#[test]
fn from_env_without_variables_is_the_default() {
    chaosfs::require_fuse!();
    let report = reported("from_env", &[]);
    assert!(report.starts_with("c1 ") && report.ends_with(" false true"), "{report}");
}

#[test]
fn a_value_that_cannot_be_read_is_an_error_that_names_the_variable() {
    let bad = [
        ("CHAOSFS_META_TTL_MS", "soon"),
        ("CHAOSFS_META_TTL_MS", ""),
        ("CHAOSFS_WRITE_DELAY_MS", "-1"),
        ("CHAOSFS_WRITE_DELAY_MS", "1.5"),
        ("CHAOSFS_RENAME_DELAY_MS", "18446744073709551616"),
        ("CHAOSFS_DROP_PROB", "half"),
        ("CHAOSFS_DROP_PROB", "1.5"),
        ("CHAOSFS_DROP_PROB", "-0.1"),
        ("CHAOSFS_DROP_PROB", "NaN"),
        ("CHAOSFS_SEED", "0x2a"),
        ("CHAOSFS_SEED", "-1"),
    ];
    for (name, value) in bad {
        let report = reported("options", &[(name, value)]);
        assert!(report.starts_with(&format!("`{name}` cannot be `{value}`")), "{name}={value}: {report}");
        assert!(report.contains("help: give a"), "{name}={value}: {report}");
    }
}

#[test]
fn a_value_at_the_edge_is_good() {
    for (name, value) in [
        ("CHAOSFS_META_TTL_MS", "0"),
        ("CHAOSFS_META_TTL_MS", "18446744073709551615"),
        ("CHAOSFS_DROP_PROB", "0"),
        ("CHAOSFS_DROP_PROB", "1"),
        ("CHAOSFS_SEED", "0"),
        ("CHAOSFS_NO_SUCH_VARIABLE", "ignored"),
    ] {
        assert_eq!(reported("options", &[(name, value)]), "good", "{name}={value}");
    }
}

#[test]
fn mount_takes_the_seed_from_the_environment_and_nothing_else() {
    chaosfs::require_fuse!();
    let vars = [("CHAOSFS_SEED", "42"), ("CHAOSFS_CLIENT_ID", "other"), ("CHAOSFS_META_TTL_MS", "1")];
    assert_eq!(reported("mount", &vars), "c1 42 true");
    assert_eq!(reported("given", &vars), "5", "a seed that the program gives is the one");
}

#[test]
fn mount_says_so_when_the_seed_cannot_be_read() {
    chaosfs::require_fuse!();
    let report = reported("mount", &[("CHAOSFS_EXACT", "no")]);
    assert!(report.starts_with("`CHAOSFS_EXACT` cannot be `no`"), "{report}");
    let report = reported("mount", &[("CHAOSFS_SEED", "lucky")]);
    assert!(report.starts_with("`CHAOSFS_SEED` cannot be `lucky`"), "{report}");
}

#[test]
fn without_a_seed_every_mount_draws_its_own() {
    chaosfs::require_fuse!();
    assert_ne!(reported("mount", &[]), reported("mount", &[]));
}
