//! Processes of our own: pinned, watched, and ended by their id.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringbolt_load::procfs::Usage;
use rustix::process::{Pid, Signal, kill_process};

use super::gate::Skip;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const WATCH_EVERY: Duration = Duration::from_millis(10);

/// A running process. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: &'static str,
}

/// What a program that ran to its end printed and used.
#[derive(Debug)]
pub struct Finished {
    /// Standard output.
    pub output: String,
    /// What it used, as last seen up to 10 ms before its end.
    pub usage: Usage,
}

impl Process {
    /// Starts a program on one CPU, its messages in `log`.
    pub fn start(
        cpu: impl std::fmt::Display,
        name: &'static str,
        program: &OsStr,
        args: &[&str],
        log: &Path,
    ) -> Result<Self, Skip> {
        let io = |error: std::io::Error| Skip::Failed(format!("starting {name}: {error}"));
        let out = File::create(log).map_err(io)?;
        let err = out.try_clone().map_err(io)?;
        let child = pinned(cpu, program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(io)?;
        Ok(Self { child, name })
    }

    /// Its id: taskset has become the program.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it accepts connections. Not for Ringbolt, which claims its port before it serves.
    pub fn wait_for_port(&mut self, port: u16, log: &Path) -> Result<(), Skip> {
        self.wait_until(log, |_| {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        })
    }

    /// Waits until `is` holds of what it has said.
    pub fn wait_until(&mut self, log: &Path, is: impl Fn(&str) -> bool) -> Result<(), Skip> {
        let begun = Instant::now();
        loop {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            if is(&said) {
                return Ok(());
            }
            if self.has_ended() || begun.elapsed() > START_TIMEOUT {
                let last: Vec<&str> = said.lines().rev().take(3).collect();
                return Err(Skip::Failed(format!(
                    "{} did not start: {}",
                    self.name,
                    last.into_iter().rev().collect::<Vec<_>>().join(" / ")
                )));
            }
            std::thread::sleep(WATCH_EVERY);
        }
    }

    /// Whether it is gone.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Kills it, as a crash would.
    pub fn kill(mut self) {
        self.end(Signal::KILL);
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) {
        self.end(Signal::TERM);
    }

    fn end(&mut self, signal: Signal) {
        if self.has_ended() {
            return;
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // Failing only means that it has ended.
        let _ = pid.map(|pid| kill_process(pid, signal));
        let begun = Instant::now();
        while begun.elapsed() < STOP_TIMEOUT {
            if self.has_ended() {
                return;
            }
            std::thread::sleep(WATCH_EVERY);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Signal::KILL);
    }
}

fn pinned(cpu: impl std::fmt::Display, program: &OsStr) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cpu.to_string()).arg(program);
    command
}

/// Runs a program on one CPU to its end. `watch` is called every 10 ms.
pub fn run(
    cpu: impl std::fmt::Display,
    name: &'static str,
    program: &OsStr,
    args: &[&str],
    mut watch: impl FnMut(),
) -> Result<Finished, Skip> {
    let failed = |what: String| Skip::Failed(format!("{name}: {what}"));
    let out = tempfile::tempfile().map_err(|error| failed(error.to_string()))?;
    let err = tempfile::tempfile().map_err(|error| failed(error.to_string()))?;
    let clone = |file: &File| file.try_clone().map_err(|error| failed(error.to_string()));
    let mut child = pinned(cpu, program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(clone(&out)?)
        .stderr(clone(&err)?)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut usage = Usage::default();
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .map_err(|error| failed(error.to_string()))?
        {
            break status;
        }
        if let Ok(now) = Usage::of(child.id())
            && now.rss_bytes > 0
        {
            usage = now;
        }
        watch();
        std::thread::sleep(WATCH_EVERY);
    };
    let output = read_back(out).map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let said = read_back(err).unwrap_or_default();
        let last = said.lines().last().unwrap_or_default().to_string();
        return Err(failed(format!("{status}: {last}")));
    }
    Ok(Finished { output, usage })
}

fn read_back(mut file: File) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _};
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Where a program is, or how to get it.
pub fn need(program: &'static str, package: &'static str) -> Result<(), Skip> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|dir| dir.join(program).is_file());
    if found {
        Ok(())
    } else {
        Err(Skip::Missing { program, package })
    }
}

/// A port that is free now.
pub fn free_port() -> Result<u16, Skip> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|addr| addr.port())
        .map_err(|error| Skip::Failed(format!("no port is free: {error}")))
}

/// Bytes that the files under `dir` take on disk.
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let skip = need("no-such-program", "some-package").unwrap_err();
        assert_eq!(
            skip.to_string(),
            "no-such-program is not here: apt install some-package"
        );
        assert!(need("sh", "dash").is_ok());
    }

    #[test]
    fn programs_are_run_to_their_end_or_said_to_have_failed() {
        let mut looks = 0;
        let args = ["-c", "sleep 0.1; echo done"];
        let finished = run(0, "sh", OsStr::new("sh"), &args, || looks += 1).unwrap();
        assert_eq!(finished.output, "done\n");
        assert!(looks > 0);
        let args = ["-c", "echo broken >&2; exit 3"];
        let failed = run(0, "sh", OsStr::new("sh"), &args, || ()).unwrap_err();
        assert!(failed.to_string().contains("broken"), "{failed}");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let process = Process::start(0, "sleep", OsStr::new("sleep"), &["60"], &log).unwrap();
        let pid = process.id();
        drop(process);
        assert!(Usage::of(pid).is_err());
    }
}
