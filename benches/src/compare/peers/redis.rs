//! Redis from Debian's package, on a private port.

use std::ffi::OsStr;

use ringbolt_load::options::{Options, Protocol};
use tempfile::TempDir;

use crate::compare::context::Context;
use crate::compare::gate::Skip;
use crate::compare::process::{Process, free_port, need};

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    _dir: TempDir,
}

impl Redis {
    /// Starts one; `durable` syncs the append-only file before each reply.
    pub fn start(context: &Context, durable: bool) -> Result<Self, Skip> {
        need("redis-server", "redis-server")?;
        let dir = context.temp_dir("redis")?;
        let port = free_port()?;
        let log = dir.path().join("log");
        let path = dir.path().to_string_lossy();
        let port_text = port.to_string();
        let append = if durable { "yes" } else { "no" };
        let args = [
            "--port",
            &port_text,
            "--bind",
            "127.0.0.1",
            "--dir",
            &path,
            "--save",
            "",
            "--appendonly",
            append,
            "--appendfsync",
            "always",
            "--auto-aof-rewrite-percentage",
            "0",
        ];
        let mut process = Process::start(
            context.server_cpu,
            "redis-server",
            OsStr::new("redis-server"),
            &args,
            &log,
        )?;
        process.wait_for_port(port, &log)?;
        Ok(Self {
            process,
            port,
            _dir: dir,
        })
    }

    /// Options of a load on it.
    pub fn load(&self) -> Options {
        Options {
            addr: format!("127.0.0.1:{}", self.port),
            protocol: Protocol::Redis,
            server_pid: Some(self.process.id()),
            ..super::ringbolt::base_load()
        }
    }
}
