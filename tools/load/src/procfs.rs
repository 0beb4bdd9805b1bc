//! What a process of this machine has used, from `/proc`.

use std::fs;

use crate::LoadError;

/// Length of a tick in `/proc/PID/stat`, in microseconds: USER_HZ is 100 on every architecture
/// that Rust runs Linux on.
const TICK_US: u64 = 10_000;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode, in microseconds (in steps of 10 ms).
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds (in steps of 10 ms).
    pub system_us: u64,
    /// Bytes fetched from storage.
    pub read_bytes: u64,
    /// Bytes sent to storage, less those that were truncated before they got there.
    pub write_bytes: u64,
    /// Resident memory now, in bytes.
    pub rss_bytes: u64,
    /// Most resident memory since the process began, in bytes.
    pub rss_bytes_max: u64,
}

impl Usage {
    /// Of process `pid`. What this user may not see (`/proc/PID/io` of another user's process)
    /// is 0.
    ///
    /// # Errors
    /// [`LoadError::Io`] if there is no such process.
    pub fn of(pid: u32) -> Result<Self, LoadError> {
        Self::read(&pid.to_string())
            .map_err(LoadError::io(format!("--server-pid: reading /proc/{pid}")))
    }

    /// Of this process.
    ///
    /// # Errors
    /// [`LoadError::Io`] where there is no `/proc`.
    pub fn of_self() -> Result<Self, LoadError> {
        Self::read("self").map_err(LoadError::io("reading /proc/self"))
    }

    fn read(process: &str) -> std::io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let io = fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
        let (user, system) = ticks(&stat).ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, "stat is of no known form")
        })?;
        let kib = |name| field(&status, name).unwrap_or(0).saturating_mul(1024);
        Ok(Self {
            user_us: user.saturating_mul(TICK_US),
            system_us: system.saturating_mul(TICK_US),
            read_bytes: field(&io, "read_bytes:").unwrap_or(0),
            write_bytes: field(&io, "write_bytes:")
                .unwrap_or(0)
                .saturating_sub(field(&io, "cancelled_write_bytes:").unwrap_or(0)),
            rss_bytes: kib("VmRSS:"),
            rss_bytes_max: kib("VmHWM:"),
        })
    }

    /// CPU time, in microseconds.
    pub fn cpu_us(&self) -> u64 {
        self.user_us + self.system_us
    }

    /// What was used since `earlier`; memory as it is now.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            user_us: self.user_us.saturating_sub(earlier.user_us),
            system_us: self.system_us.saturating_sub(earlier.system_us),
            read_bytes: self.read_bytes.saturating_sub(earlier.read_bytes),
            write_bytes: self.write_bytes.saturating_sub(earlier.write_bytes),
            ..*self
        }
    }
}

/// utime and stime, the 14th and 15th field. The second is the name in parentheses, which may hold
/// anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_confuse_it() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 123 456 0 0 20";
        assert_eq!(ticks(stat), Some((123, 456)));
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of_self().unwrap();
        assert!(usage.rss_bytes > 0 && usage.rss_bytes_max >= usage.rss_bytes);
        assert!(Usage::of(u32::MAX).is_err());
    }
}
