//! A real server process on a folder of its own.

pub mod http;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_ringbolt");

/// How long a process may take to do what a test waits for. Generous: it fails a hang, not a slow
/// machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server process; killed when dropped.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
    pub dir: PathBuf,
    arguments: Vec<String>,
}

impl Server {
    /// Starts a server on `dir` with more arguments, and waits until it accepts connections.
    pub fn start(dir: &Path, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        Self::start_at(dir, free_address(), arguments)
    }

    fn start_at(dir: &Path, addr: SocketAddr, arguments: Vec<String>) -> Self {
        let mut server = Self::begin(dir, addr, arguments);
        server.wait_until_ready();
        server
    }

    /// Starts one that need not serve yet.
    pub fn begin(dir: &Path, addr: SocketAddr, arguments: Vec<String>) -> Self {
        Self {
            child: spawn(dir, addr, &arguments),
            addr,
            dir: dir.to_owned(),
            arguments,
        }
    }

    /// Starts it again on the same folder and address, after a kill or stop.
    pub fn restart(&mut self) {
        self.begin_again();
        self.wait_until_ready();
    }

    /// The same; it need not serve yet.
    pub fn begin_again(&mut self) {
        self.child = spawn(&self.dir, self.addr, &self.arguments);
    }

    /// Waits until it answers a read.
    pub fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended at its start: {status}");
            }
            if self
                .cli(&["get", "--timeout", "1s", "no such key"])
                .status
                .code()
                == Some(1)
            {
                return;
            }
            assert!(Instant::now() < deadline, "the server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a client command against this server.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let addr = self.addr.to_string();
        Command::new(BINARY)
            .args(arguments)
            .env("RINGBOLT_ADDR", &addr)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a client command that must succeed; its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The code it ends with by itself.
    pub fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the server goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, addr: SocketAddr, arguments: &[String]) -> Child {
    let mut child = command(dir, addr)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The test's own output shows what the server said, and its pipe never fills up.
    let stderr = child.stderr.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            eprintln!("server: {line}");
        }
    });
    child
}

/// `ringbolt server` on a folder, not started.
pub fn command(dir: &Path, addr: SocketAddr) -> Command {
    let mut command = Command::new(BINARY);
    command
        .arg("server")
        .arg("--data")
        .arg(dir)
        .args(["--listen", &addr.to_string()])
        // Ports beside those that tests draw may be another test's.
        .env("RINGBOLT_ADMIN_LISTEN", "off")
        // What servers say is read as people read it.
        .env("RINGBOLT_MESSAGES_FORMAT", "text")
        .stdin(Stdio::null());
    command
}

/// Runs a server that must refuse to start; what it said.
pub fn refused(dir: &Path, arguments: &[&str]) -> String {
    refused_at(dir, free_address(), arguments)
}

/// The same, at an address.
pub fn refused_at(dir: &Path, addr: SocketAddr, arguments: &[&str]) -> String {
    let child = command(dir, addr)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    let Ok(output) = receiver.recv_timeout(PATIENCE) else {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        panic!("the server started, or hangs");
    };
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The ports that tests take. They are below those that the system hands out of itself, to whoever
/// connects or binds port 0: so a port is still free when its server starts, or starts again.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// The first of `count` neighbouring ports that nobody listens on and no other test was given.
fn draw_ports(count: u16) -> u16 {
    static DRAWN: AtomicU16 = AtomicU16::new(0);
    // Where a process begins, so that two that test at a time seldom meet.
    let begin = std::process::id() as u16 % 100 * 200;
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    loop {
        let drawn = DRAWN.fetch_add(count, Ordering::Relaxed);
        assert!(drawn < PORTS.len() as u16, "all ports for tests were drawn");
        let first = PORTS.start + (begin + drawn) % (PORTS.len() as u16);
        let ports = first..first + count;
        if ports.end <= PORTS.end && ports.into_iter().all(is_free) {
            return first;
        }
    }
}

/// A loopback address that nobody listens on.
pub fn free_address() -> SocketAddr {
    free_addresses(1)[0]
}

/// The same, several that differ.
pub fn free_addresses(count: usize) -> Vec<SocketAddr> {
    (0..count)
        .map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, draw_ports(1))))
        .collect()
}

/// The first of the ports that `ringbolt local-cluster` takes: each node's own and the two behind it,
/// ten apart.
pub fn free_cluster_port() -> u16 {
    draw_ports(30)
}
