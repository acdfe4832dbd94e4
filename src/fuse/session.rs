//! The life of one FUSE session: mounted, served by a thread of its own, stopped.
//!
//! Owns the mount and its threads through [`Serving`]. Promises that the mount works when [`serve`] returns, that nothing
//! stays mounted when it fails, and that [`Serving::stop`] returns within its patience whatever the file system does.
//! Never looks at a request. The file system is used and dropped on server threads only.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, Filesystem, INodeNo, Notifier, Session, SessionACL};
use parking_lot::Mutex;

use crate::engine::{Forget, Kernel};
use crate::error::Error;
use crate::host::mounting::{self, Attached, Mounted, Spec};
use crate::host::server::{self, Home, Thread};
use crate::host::sever::sever;
use crate::host::{swap_out, sweep, unmount};
use crate::raw;

/// How long dropping a [`Serving`] may take.
const PATIENCE_OF_DROP: Duration = Duration::from_secs(5);

/// Mounts `fs` as `spec` says and serves it until the [`Serving`] is stopped or dropped.
pub(crate) fn serve<F: Filesystem>(fs: F, spec: Spec) -> Result<Serving, Error> {
    sweep::once();
    server::call(move || {
        let Attached { device, mounted } = mounting::attach(&spec)?;
        let mut mount = Unserved { mounted, served: false };
        let serving = serve_attached(fs, device, &mount.mounted);
        mount.served = serving.is_ok();
        serving.map_err(|source| Error::Io {
            doing: "start serving",
            path: mount.mounted.path.clone(),
            source,
        })
    })
}

/// A mount on the way to being served: if it does not get there, even by a panic, it is taken away.
struct Unserved {
    mounted: Mounted,
    served: bool,
}

impl Drop for Unserved {
    fn drop(&mut self) {
        if !self.served {
            unmount::discard(&self.mounted);
        }
    }
}

fn serve_attached<F: Filesystem>(fs: F, device: OwnedFd, mounted: &Mounted) -> std::io::Result<Serving> {
    let mut config = Config::default();
    // The thread that reads a request answers it fastest. Who may enter is the kernel's business (`allow_other`).
    config.n_threads = Some(1);
    config.acl = SessionACL::All;
    let session = Session::from_fd(fs, device, SessionACL::All, config)?;
    let wire = Home::new(Arc::new(Wire {
        number: session.as_fd().as_raw_fd(),
        mounted: mounted.clone(),
        state: Mutex::new(State { notifier: Some(session.notifier()), cut: false, failure: None }),
    }));
    let theirs = Arc::clone(wire.arc());
    let thread = server::spawn("chaosfs-session".to_owned(), move || {
        let result = session.run();
        theirs.retire(result);
    })?;
    Ok(Serving(Some(Live { mounted: mounted.clone(), wire, thread })))
}

/// A mount that is being served; dropping it stops it.
#[derive(Debug)]
pub(crate) struct Serving(Option<Live>);

#[derive(Debug)]
struct Live {
    mounted: Mounted,
    wire: Home<Wire>,
    thread: Thread,
}

impl Serving {
    /// The kernel that it serves, and whether it is going to keep the pages of files.
    pub(crate) fn kernel(&self, keeps: bool) -> Option<Arc<dyn Kernel>> {
        self.0.as_ref().map(|live| -> Arc<dyn Kernel> {
            if keeps {
                live.mounted.read_far_ahead();
            }
            Arc::new(Line(live.wire.clone()))
        })
    }

    /// Where it is mounted: absolute, without links.
    pub(crate) fn mountpoint(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(""), |live| &live.mounted.path)
    }

    /// Waits until the session has ended by itself, because someone else took the mount away, at most for `limit`; whether
    /// it has.
    pub(crate) fn wait_ended(&self, limit: Duration) -> bool {
        self.0.as_ref().is_none_or(|live| live.thread.wait(limit))
    }

    /// Unmounts and ends the session, within `patience`. If the mount was in use it is gone all the same, and the error
    /// says who used it.
    pub(crate) fn stop(mut self, patience: Duration) -> Result<(), Error> {
        self.0.take().map_or(Ok(()), |live| live.stop(patience))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(live) = self.0.take()
            && let Err(e) = live.stop(PATIENCE_OF_DROP)
        {
            log::warn!("{e}");
        }
    }
}

impl Live {
    fn stop(self, patience: Duration) -> Result<(), Error> {
        let Live { mounted, wire, thread } = self;
        let to_cut = wire.clone();
        let cut: unmount::Cut = Arc::new(move |inside| to_cut.cut(inside));
        unmount::detach(&mounted, &cut, &thread, patience)?;
        let failed = wire.state.lock().failure.take();
        match failed {
            Some(e) => {
                Err(Error::Unmount { path: mounted.path, what: format!("its session had ended before: {e}") })
            }
            None => Ok(()),
        }
    }
}

/// The connection to the kernel, and the means to end it from outside.
///
/// fuser shares one descriptor between the thread that reads requests and all replies that are still out, and closes it
/// with the last of them. The notifier is such a share: while it is here the number is not used for anything else.
struct Wire {
    number: RawFd,
    mounted: Mounted,
    state: Mutex<State>,
}

struct State {
    /// Until the session has ended.
    notifier: Option<Notifier>,
    /// Whether [`Wire::cut`] made it end, so that how it ended says nothing.
    cut: bool,
    /// How it ended, if it did so by itself and badly.
    failure: Option<std::io::Error>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The way to the kernel, from any thread.
struct Line(Home<Wire>);

impl Kernel for Line {
    fn drain(&self) {
        mounting::round_trip(self.0.mounted.path.clone());
    }

    fn forget(&self, what: Forget) {
        let wire = self.0.clone();
        server::call(move || wire.forget(what));
    }
}

impl Wire {
    fn forget(&self, what: Forget) {
        // A share of the descriptor, so that its number stays ours; the lock is not held while the kernel may have to ask.
        let Some(notifier) = self.state.lock().notifier.clone() else { return };
        // What it does not know it need not forget, and a mount that is gone knows nothing.
        let _ = match what {
            Forget::Names => raw::forget_names(self.number),
            Forget::Attributes(id) => notifier.inval_inode(INodeNo(id.0), -1, 0),
            Forget::Pages(id, from, len) => {
                notifier.inval_inode(INodeNo(id.0), from as i64, len.unwrap_or(0) as i64)
            }
        };
    }

    /// Ends the connection, though the mount may live on: whoever waits for an answer gets an error, and the session
    /// thread ends.
    ///
    /// The open device leaves fuser's number, whose place `/dev/null` takes: a reply goes nowhere, and the next read is the
    /// end of the file.
    fn cut(&self, inside: Option<OwnedFd>) {
        let mut state = self.state.lock();
        if state.notifier.is_none() || state.cut {
            return;
        }
        let device = self.take_device();
        state.cut = device.is_some();
        // What follows may take its time, and ends in `retire`.
        drop(state);
        if let Some(device) = device {
            sever(device, inside, &self.mounted);
        }
    }

    /// To be called when the session has ended: replies still parked somewhere must not keep up a connection that nobody
    /// serves, on which every operation would hang.
    fn retire(&self, result: std::io::Result<()>) {
        let mut state = self.state.lock();
        if !state.cut {
            // Before the device goes: who gets an error from the mount can rely on the reason being here.
            state.failure = result.err();
            drop(self.take_device());
        }
        state.notifier = None;
    }

    /// Takes the open device from under fuser's number. Call with the notifier locked and present.
    fn take_device(&self) -> Option<OwnedFd> {
        let null = File::options().read(true).write(true).open("/dev/null").ok()?;
        swap_out(self.number, &OwnedFd::from(null)).ok()
    }
}
