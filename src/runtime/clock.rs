//! Time and randomness from the system.

use std::time::Duration;

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a live timespec. The clocks used here exist on every Linux this runs on, so
    // the call does not fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// Monotonic time that goes on while the machine sleeps.
pub(super) fn now() -> Duration {
    read(libc::CLOCK_BOOTTIME)
}

/// Milliseconds since the Unix epoch.
pub(super) fn wall_ms() -> u64 {
    read(libc::CLOCK_REALTIME).as_millis() as u64
}

/// 64 random bits from the kernel, to seed a core's generator.
pub(super) fn seed() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: writes at most eight bytes into a live array.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize {
        u64::from_ne_bytes(bytes)
    } else {
        // Only before the kernel's pool is up, at boot: time tells two nodes apart well enough.
        now().as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(32)
    }
}
