//! Taking signals as events: blocked in every thread, waited for in one.

use std::io;
use std::time::Duration;

/// A signal that asks the process to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: drain and stop.
    Stop,
    /// SIGHUP.
    Hangup,
}

fn set() -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid value to initialise, and the calls only write to it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Blocks SIGTERM, SIGINT and SIGHUP in this thread and those it starts from now on. Call it before
/// any thread is started.
///
/// # Errors
///
/// The system's.
pub fn block() -> io::Result<()> {
    let set = set();
    // SAFETY: `set` is a live, initialised set; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Waits for a blocked signal, up to `timeout`.
///
/// # Errors
///
/// The system's.
pub fn wait(timeout: Duration) -> io::Result<Option<Signal>> {
    let set = set();
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
    };
    // SAFETY: both pointers are to live, initialised values; no details are asked for.
    let signal =
        unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const timeout) };
    match signal {
        libc::SIGTERM | libc::SIGINT => Ok(Some(Signal::Stop)),
        libc::SIGHUP => Ok(Some(Signal::Hangup)),
        _ => {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Ok(None),
                _ => Err(error),
            }
        }
    }
}
