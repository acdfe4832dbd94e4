//! What is said before and instead of mounting.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use super::dir;
use super::memory::{memory, mounted};
use crate::error::{BackingProblem, Error, MountpointProblem};
use crate::fuse::session::serve;
use crate::host::mounting::Spec;
use crate::host::preflight::{check_backing, check_fuse, check_mountpoint};

fn problem(mountpoint: &Path, backing: &Path) -> MountpointProblem {
    match check_mountpoint(mountpoint, backing) {
        Err(Error::Mountpoint { path, problem }) => {
            assert_eq!(path, mountpoint);
            problem
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mountpoint_is_checked() {
    let (base, backing) = (dir(), dir());
    let empty = base.join("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::create_dir_all(base.join("full/inside")).unwrap();
    std::fs::write(base.join("file"), "").unwrap();
    symlink(&empty, base.join("link")).unwrap();

    assert_eq!(check_mountpoint(&empty, &backing).unwrap(), empty);
    assert_eq!(check_mountpoint(&base.join("link"), &backing).unwrap(), empty);
    assert_eq!(problem(&base.join("none"), &backing), MountpointProblem::Missing);
    assert_eq!(problem(&base.join("file"), &backing), MountpointProblem::NotADirectory);
    assert_eq!(problem(&base.join("file/x"), &backing), MountpointProblem::NotADirectory);
    assert_eq!(problem(&base.join("full"), &backing), MountpointProblem::NotEmpty);
    assert_eq!(problem(&empty, &empty), MountpointProblem::OverlapsBacking);
    assert_eq!(problem(&empty, &base), MountpointProblem::OverlapsBacking);
    assert_eq!(problem(&base.join("full"), &base.join("full/inside")), MountpointProblem::OverlapsBacking);
    assert!(
        matches!(problem(Path::new("/proc"), &backing), MountpointProblem::AlreadyMounted(what) if what.contains("proc"))
    );
    std::fs::remove_dir_all(base).unwrap();
    std::fs::remove_dir(backing).unwrap();
}

#[test]
fn a_mountpoint_that_is_one_already_is_told_from_a_dead_one() {
    let backing = dir();
    let (serving, _remote) = mounted();
    let path = serving.mountpoint().to_owned();
    assert!(
        matches!(problem(&path, &backing), MountpointProblem::AlreadyMounted(what) if what.contains("chaosfs@"))
    );
    assert!(std::fs::read(path.join("panics")).is_err());
    assert_eq!(problem(&path, &backing), MountpointProblem::Dead);
    assert!(serving.stop(Duration::from_secs(5)).is_err());
    std::fs::remove_dir(path).unwrap();
    std::fs::remove_dir(backing).unwrap();
}

#[test]
fn a_backing_is_checked() {
    let base = dir();
    std::fs::write(base.join("file"), "").unwrap();
    assert_eq!(check_backing(&base).unwrap(), base);
    let problem = |path: &Path| match check_backing(path) {
        Err(Error::Backing { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(problem(&base.join("none")), BackingProblem::Missing);
    assert_eq!(problem(&base.join("file")), BackingProblem::NotADirectory);
    std::fs::remove_dir_all(base).unwrap();
}

#[test]
fn fuse_works_here() {
    check_fuse().unwrap();
}

/// What an ordinary user is told; the parts are played under different conditions.
#[test]
fn as_a_user() {
    // Runs in a process of its own, started by the tests below.
    if !super::is_part("as_a_user") {
        return;
    }
    let path = dir();
    let mount = |allow_other| {
        let spec = Spec { allow_other, ..Spec::new(&path) };
        serve(memory().0, spec).map(|serving| serving.stop(Duration::from_secs(5)))
    };
    match std::env::var("CHAOSFS_TEST_CASE").unwrap().as_str() {
        "no device" => {
            assert!(matches!(check_fuse(), Err(Error::FuseDenied { uid: 65534, .. })));
            assert!(mount(false).unwrap_err().is_fuse_unavailable());
        }
        "no helper" => {
            assert!(matches!(check_fuse(), Err(Error::HelperMissing)));
            assert!(matches!(mount(false), Err(Error::HelperMissing)));
        }
        "not ours" => {
            check_fuse().unwrap();
            let said = mount(true).unwrap_err().to_string();
            assert!(said.contains("user_allow_other"), "{said}");
            let foreign = Spec::new("/usr");
            let said = serve(memory().0, foreign).unwrap_err();
            assert!(matches!(said, Error::HelperRefused { .. }), "{said}");
            println!("{said}");
            let locked = path.join("locked");
            std::fs::create_dir(&locked).unwrap();
            std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o000)).unwrap();
            assert!(matches!(problem(&locked, Path::new("/usr")), MountpointProblem::Denied(_)));
            assert!(matches!(
                check_backing(&locked),
                Err(Error::Backing { problem: BackingProblem::Denied(_), .. })
            ));
            std::fs::remove_dir(&locked).unwrap();
        }
        other => panic!("{other}"),
    }
    std::fs::remove_dir(path).unwrap();
}
