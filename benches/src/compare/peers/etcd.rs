//! etcd from Debian's package: three members on private ports, which share the CPUs and the disk.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use ringbolt_load::procfs::Usage;
use tempfile::TempDir;

use super::etcd_load;
use crate::compare::context::Context;
use crate::compare::gate::Skip;
use crate::compare::process::{Process, free_port, need};

/// Members of a cluster, as many as Ringbolt's nodes.
const MEMBERS: usize = super::cluster::NODES;
const READY_MAX: Duration = Duration::from_secs(60);

/// A running cluster.
#[derive(Debug)]
pub struct Etcd {
    processes: Vec<Process>,
    leader_port: u16,
    _dir: TempDir,
}

impl Etcd {
    /// Starts three members in empty folders, and finds the leader: clients that know it spare etcd
    /// the way over another member.
    pub fn start(context: &Context) -> Result<Self, Skip> {
        need("etcd", "etcd-server")?;
        let dir = context.temp_dir("etcd")?;
        let members = (1..=MEMBERS)
            .map(|number| Ok((format!("m{number}"), free_port()?, free_port()?)))
            .collect::<Result<Vec<_>, Skip>>()?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let all: Vec<String> = members
            .iter()
            .map(|(name, _, peers)| format!("{name}={}", url(*peers)))
            .collect();
        let all = all.join(",");
        let mut processes = Vec::new();
        for (name, clients, peers) in &members {
            let data = dir.path().join(name);
            let data = data.to_string_lossy();
            let args = [
                "--name",
                name,
                "--data-dir",
                &data,
                "--listen-client-urls",
                &url(*clients),
                "--advertise-client-urls",
                &url(*clients),
                "--listen-peer-urls",
                &url(*peers),
                "--initial-advertise-peer-urls",
                &url(*peers),
                "--initial-cluster",
                &all,
                "--quota-backend-bytes",
                "8589934592",
                "--logger",
                "zap",
                "--log-level",
                "error",
            ];
            let log = dir.path().join(format!("{name}.log"));
            let cpus = context.all_cpus();
            processes.push(Process::start(
                &cpus,
                "etcd",
                OsStr::new("etcd"),
                &args,
                &log,
            )?);
        }
        for (process, (name, clients, _)) in processes.iter_mut().zip(&members) {
            process.wait_for_port(*clients, &dir.path().join(format!("{name}.log")))?;
        }
        let begun = Instant::now();
        let leader_port = loop {
            let ports = members.iter().map(|(_, clients, _)| *clients);
            if let Some(port) = ports.into_iter().find(|port| etcd_load::leads(*port)) {
                break port;
            }
            if begun.elapsed() > READY_MAX {
                return Err(Skip::Failed("etcd has no leader".into()));
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        Ok(Self {
            processes,
            leader_port,
            _dir: dir,
        })
    }

    /// The port on which the leader serves clients.
    pub fn leader_port(&self) -> u16 {
        self.leader_port
    }

    /// CPU time that all members have used so far, in microseconds.
    pub fn cpu_us(&self) -> u64 {
        let usages = self.processes.iter().filter_map(|p| Usage::of(p.id()).ok());
        usages.map(|usage| usage.cpu_us()).sum()
    }
}
