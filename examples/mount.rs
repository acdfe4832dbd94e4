//! Mounts BACKING at MOUNTPOINT in the foreground, for shells and rulers, until Ctrl-C, SIGTERM or `umount`.
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let _m = chaosfs::Options::new().knobs(chaosfs::Knobs::strict()).at(&args[2]).mount(&args[1]).unwrap();
    std::thread::park();
}
