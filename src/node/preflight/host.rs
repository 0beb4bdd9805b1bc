//! Kernel, io_uring, limits of the process, memory and CPUs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Check, Verdict};
use crate::config::{Machine, Settings, about_bytes, show_cpus};
use crate::runtime::probe::{self, MemoryLock};

/// The oldest kernel that has what the hot ring needs.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Descriptors beside those of connections: tables, logs, rings.
const FILES_PER_CORE: u64 = 1024;
/// Connections of a core below which it is of little use.
const CONNECTIONS_PER_CORE_MIN: u64 = 64;

/// The kernel's version.
pub(super) fn kernel() -> Check {
    let uname = rustix::system::uname();
    judge_kernel(&uname.release().to_string_lossy())
}

fn judge_kernel(release: &str) -> Check {
    let (major, minor) = KERNEL_MIN;
    let check = Check::passed("kernel", format!("Linux {major}.{minor} or newer"), release);
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
    match (number(), number()) {
        (Some(found), Some(least)) if (found, least) >= KERNEL_MIN => check,
        (Some(_), Some(_)) => check.but(Verdict::Failed, "upgrade the kernel"),
        _ => check.but(
            Verdict::Warning,
            format!("the version is not understood; make sure it is {major}.{minor} or newer"),
        ),
    }
}

/// Whether this process may use io_uring.
pub(super) fn io_uring() -> Check {
    let check = Check::passed("io_uring", "this process may use it", "it may");
    match probe::io_uring() {
        Ok(()) => check,
        Err(unavailable) => Check {
            current: unavailable.reason,
            ..check
        }
        .but(Verdict::Failed, unavailable.remedy),
    }
}

/// Memory that the cores' rings lock.
pub(super) fn locked_memory(settings: &Settings) -> Check {
    judge_locked_memory(probe::memory_lock(usize::from(settings.cores)))
}

fn judge_locked_memory(lock: MemoryLock) -> Check {
    let check = Check::passed(
        "locked memory",
        about_bytes(lock.needed),
        match lock.limit {
            u64::MAX => "unlimited".to_string(),
            limit => about_bytes(limit),
        },
    );
    let remedy = "ulimit -l unlimited, or LimitMEMLOCK=infinity in the systemd unit";
    if !lock.is_enough() {
        check.but(Verdict::Failed, format!("raise the limit: {remedy}"))
    } else if lock.limit < lock.needed.saturating_mul(2) {
        let why = "a restart needs twice as much for a moment";
        check.but(Verdict::Warning, format!("{why}: {remedy}"))
    } else {
        check
    }
}

/// Open files: the limit is raised to the hard one at start, so that the hard one counts.
pub(super) fn files(settings: &Settings) -> Check {
    judge_files(settings, getrlimit(Resource::Nofile).maximum)
}

fn judge_files(settings: &Settings, hard: Option<u64>) -> Check {
    let cores = u64::from(settings.cores);
    let connections = u64::from(settings.limits.connections_max);
    let own = cores * FILES_PER_CORE;
    let full = own + cores * connections;
    let least = own + cores * connections.min(CONNECTIONS_PER_CORE_MIN);
    let current = match hard {
        Some(hard) => format!("{hard} (hard limit)"),
        None => "unlimited".to_string(),
    };
    let check = Check::passed("open files", format!("{full} for all connections"), current);
    let raise = format!("ulimit -Hn {full}, or LimitNOFILE={full} in the systemd unit");
    match hard {
        None => check,
        Some(hard) if hard >= full => check,
        Some(hard) if hard >= least => {
            let connections = (hard - own) / cores;
            check.but(
                Verdict::Warning,
                format!(
                    "room for about {connections} connections a core; raise the limit ({raise}) \
                     or lower limits.connections_max"
                ),
            )
        }
        Some(_) => check.but(Verdict::Failed, format!("raise the limit: {raise}")),
    }
}

/// Raises the soft limit on open files to the hard one. Returns what is allowed now.
///
/// # Errors
/// The system's.
pub fn raise_file_limit() -> std::io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )?;
    }
    Ok(limit.maximum)
}

/// The memory setting against what there is.
pub(super) fn memory(settings: &Settings, machine: &Machine) -> Check {
    let check = Check::passed(
        "memory",
        about_bytes(settings.memory),
        format!("{} in the machine", about_bytes(machine.memory)),
    );
    if settings.memory > machine.memory {
        check.but(Verdict::Failed, "lower --memory")
    } else if settings.memory > machine.memory / 10 * 8 {
        check.but(
            Verdict::Warning,
            "leave a fifth to the kernel and to others: lower --memory",
        )
    } else {
        check
    }
}

/// Where the cores run.
pub(super) fn cpus(settings: &Settings, machine: &Machine) -> Check {
    let required = match settings.cpus.as_slice() {
        [] => format!("{} CPUs, not pinned", settings.cores),
        cpus => format!("CPUs {}, one core each", show_cpus(cpus)),
    };
    let current = format!("CPUs {}", show_cpus(&machine.cpus));
    let check = Check::passed("CPUs", required, current);
    let missing: Vec<u16> = settings
        .cpus
        .iter()
        .copied()
        .filter(|cpu| !machine.cpus.contains(cpu))
        .collect();
    if !missing.is_empty() {
        let missing = show_cpus(&missing);
        check.but(
            Verdict::Failed,
            format!("this process may not run on CPU {missing}: correct --cpus"),
        )
    } else if usize::from(settings.cores) > machine.cpus.len() {
        check.but(
            Verdict::Warning,
            "cores that share a CPU slow each other down: lower --cores",
        )
    } else {
        check
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::preflight::tests::settings;

    #[test]
    fn kernels() {
        for (release, verdict) in [
            ("6.1.0-18-amd64", Verdict::Passed),
            ("6.18.44", Verdict::Passed),
            ("7.0-rc1", Verdict::Passed),
            ("5.15.0", Verdict::Failed),
            ("6.0.12", Verdict::Failed),
            ("bananas", Verdict::Warning),
        ] {
            assert_eq!(judge_kernel(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn file_limits() {
        let settings = settings();
        let full = 2 * (1024 + 16384);
        assert_eq!(judge_files(&settings, None).verdict, Verdict::Passed);
        assert_eq!(judge_files(&settings, Some(full)).verdict, Verdict::Passed);
        let few = judge_files(&settings, Some(20_000));
        assert_eq!(few.verdict, Verdict::Warning);
        assert!(
            few.remedy.contains("about 8976 connections a core"),
            "{few}"
        );
        assert_eq!(judge_files(&settings, Some(1024)).verdict, Verdict::Failed);
    }

    #[test]
    fn locked_memory_has_room_for_a_restart() {
        let with = |limit| {
            let lock = MemoryLock {
                limit,
                needed: 1000,
            };
            judge_locked_memory(lock).verdict
        };
        assert_eq!(with(u64::MAX), Verdict::Passed);
        assert_eq!(with(2000), Verdict::Passed);
        assert_eq!(with(1999), Verdict::Warning);
        assert_eq!(with(999), Verdict::Failed);
    }

    #[test]
    fn memory_and_cpus() {
        let mut settings = settings();
        let machine = Machine {
            cpus: vec![0, 1],
            memory: 8 << 30,
        };
        assert_eq!(memory(&settings, &machine).verdict, Verdict::Passed);
        assert_eq!(cpus(&settings, &machine).verdict, Verdict::Passed);
        settings.memory = 7 << 30;
        assert_eq!(memory(&settings, &machine).verdict, Verdict::Warning);
        settings.memory = 9 << 30;
        assert_eq!(memory(&settings, &machine).verdict, Verdict::Failed);
        settings.cpus = vec![0, 5];
        assert_eq!(cpus(&settings, &machine).verdict, Verdict::Failed);
        settings.cpus = Vec::new();
        settings.cores = 4;
        assert_eq!(cpus(&settings, &machine).verdict, Verdict::Warning);
    }
}
