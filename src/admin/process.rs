//! What the system knows of the process: memory, disk, the CPU time of its threads.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Facts;

/// The node as the system sees it. What cannot be read is `None`.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    /// Since the process began.
    pub uptime: Duration,
    /// Its name.
    pub name: String,
    /// The budget of memory, in bytes.
    pub memory_budget_bytes: u64,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Bytes that the process can still write to the disk of the data folder.
    pub disk_free_bytes: Option<u64>,
    /// The size of that file system.
    pub disk_size_bytes: Option<u64>,
    /// Free bytes below which puts are refused.
    pub disk_reserve_bytes: u64,
    /// CPU time of each core's thread, in seconds.
    pub core_cpu_seconds: Vec<(u16, f64)>,
    /// CPU time of all threads, in seconds.
    pub cpu_seconds: Option<f64>,
}

/// Asks the system.
pub(super) fn look(facts: &Facts) -> NodeView {
    let disk = rustix::fs::statvfs(&facts.data).ok();
    NodeView {
        uptime: facts.began.elapsed(),
        name: facts.name.clone(),
        memory_budget_bytes: facts.memory_bytes,
        resident_bytes: resident_bytes(),
        disk_free_bytes: disk.as_ref().map(|disk| disk.f_bavail * disk.f_frsize),
        disk_size_bytes: disk.as_ref().map(|disk| disk.f_blocks * disk.f_frsize),
        disk_reserve_bytes: facts.reserve_bytes,
        core_cpu_seconds: core_cpu_seconds(),
        cpu_seconds: std::fs::read_to_string("/proc/self/stat")
            .ok()
            .and_then(|stat| cpu_seconds(&stat)),
    }
}

/// The process's resident memory, in bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The CPU time of the threads named `core-N`, as the runtime names its cores and its helpers of a
/// core are named after it.
fn core_cpu_seconds() -> Vec<(u16, f64)> {
    let threads = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let times = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).ok()?;
        let name = stat.split_once('(')?.1.rsplit_once(')')?.0;
        let core: u16 = name.strip_prefix("core-")?.parse().ok()?;
        Some((core, cpu_seconds(&stat)?))
    });
    let mut cores: BTreeMap<u16, f64> = BTreeMap::new();
    for (core, seconds) in times {
        *cores.entry(core).or_default() += seconds;
    }
    cores.into_iter().collect()
}

/// User and system time of a line of `/proc/.../stat`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name, in parentheses, may hold spaces.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    Some((user + system) as f64 / ticks as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_thread_with_an_odd_name_is_read() {
        let stat = "7 (co) re-1) S 1 7 7 0 -1 4194624 1 0 0 0 250 50 0 0 20 0 2 0 1 2 3";
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(cpu_seconds(stat), Some(300.0 / ticks));
        assert_eq!(cpu_seconds("nonsense"), None);
    }
}
