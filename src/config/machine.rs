//! What the machine lets this process have: the defaults that follow it.

use std::fs;
use std::path::Path;

/// The part of the machine that settings depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The CPUs that this process may run on, ascending; at least one.
    pub cpus: Vec<u16>,
    /// Memory of the machine or of the tightest control group, whichever is less, in bytes.
    pub memory: u64,
}

impl Machine {
    /// Looks at the machine. Where it will not tell, one CPU and 1 GiB are supposed.
    #[must_use]
    pub fn detect() -> Self {
        let cpus = affinity();
        let total = meminfo("MemTotal:").unwrap_or(1 << 30);
        let limit = group_memory_limit().unwrap_or(u64::MAX);
        Self {
            cpus: if cpus.is_empty() { vec![0] } else { cpus },
            memory: total.min(limit),
        }
    }
}

/// The CPUs of this process's affinity mask.
fn affinity() -> Vec<u16> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .filter_map(|cpu| u16::try_from(cpu).ok())
        .collect()
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least `memory.max` from this process's control group (version 2) up to the root.
fn group_memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own.trim_start_matches('/'));
    own.ancestors()
        .take_while(|group| group.starts_with(root))
        .filter_map(|group| fs::read_to_string(group.join("memory.max")).ok())
        .filter_map(|text| text.trim().parse::<u64>().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::detect();
        assert!(!machine.cpus.is_empty());
        assert!(machine.cpus.is_sorted());
        assert!(machine.memory > 16 << 20);
    }
}
