//! Kills and power cuts under write load: nothing acknowledged may be lost.
//!
//! The load generator writes a ledger of what was acknowledged; after each crash another process
//! reads all of it back. A power cut is an image of the disk: the data lies on a loop-mounted file
//! system whose backing file is copied while the server stands still, and a server is started on
//! the copy. What the page cache held is not in the image.
//!
//! `RINGBOLT_TEST_CRASH_ROUNDS` says how many rounds each test makes (default 2).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{BINARY, Server};

const SERVER: &[&str] = &["--cores", "2", "--memory", "256MiB"];

fn rounds() -> u32 {
    std::env::var("RINGBOLT_TEST_CRASH_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2)
}

/// Writes with verification until it is killed, or for a minute.
pub(super) fn load(server: &Server, ledger: &Path, seed: u32) -> Child {
    Command::new(BINARY)
        .args(["bench", "put", "--quiet"])
        .args(["--addr", &server.addr.to_string()])
        .args(["--connections", "16", "--depth", "4", "--records", "20000"])
        .args(["--value-size", "300", "--duration", "60s"])
        .args(["--seed", &seed.to_string()])
        .arg("--ledger")
        .arg(ledger)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

pub(super) fn end(mut child: Child) {
    let _ = child.kill();
    child.wait().unwrap();
}

/// Reads every acknowledged write back; how many there were.
pub(super) fn verify(server: &Server, ledger: &Path) -> u64 {
    let output = server.cli(&[
        "bench",
        "verify",
        "--json",
        "--ledger",
        ledger.to_str().unwrap(),
    ]);
    assert!(
        output.status.success(),
        "acknowledged writes are lost:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    report["checks"]["read_back"].as_u64().unwrap()
}

/// Waits until a load has begun to write.
pub(super) fn begun(ledger: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    // More than its header.
    while std::fs::metadata(ledger).map_or(0, |found| found.len()) < 4 << 10 {
        assert!(Instant::now() < deadline, "the load writes nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A moment that differs from round to round.
fn moment(round: u32) -> Duration {
    Duration::from_millis(100 + u64::from(round * 7919 % 1200))
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let ledgers = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), SERVER);
    let mut keys = 0;
    for round in 0..rounds() {
        let ledger = ledgers.path().join(format!("{round}.ledger"));
        let load = load(&server, &ledger, round);
        begun(&ledger);
        std::thread::sleep(moment(round));
        server.kill();
        end(load);
        server.restart();
        keys += verify(&server, &ledger);
    }
    assert!(keys > 0, "the load wrote nothing");
    println!("{} kills, {keys} acknowledged keys read back", rounds());
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    let Some(disk) = LoopDisk::make("power", 1024) else {
        println!("skipped: mounting a loop device needs root and mkfs.ext4");
        return;
    };
    let ledgers = tempfile::tempdir().unwrap();
    let mut server = Server::start(&disk.mount.join("data"), SERVER);
    let mut keys = 0;
    for round in 0..rounds() {
        let ledger = ledgers.path().join(format!("{round}.ledger"));
        let load = load(&server, &ledger, round);
        begun(&ledger);
        std::thread::sleep(moment(round));
        server.signal("STOP");
        let image = disk.image();
        end(load);
        server.signal("CONT");
        let copy = Server::start(&image.mount.join("data"), SERVER);
        keys += verify(&copy, &ledger);
        drop(copy);
    }
    assert!(keys > 0, "the load wrote nothing");
    println!(
        "{} power cuts, {keys} acknowledged keys read back",
        rounds()
    );
    server.kill();
}

/// A small ext4 file system in a file, mounted.
pub struct LoopDisk {
    folder: tempfile::TempDir,
    pub mount: PathBuf,
}

impl LoopDisk {
    /// `None` where loop devices cannot be mounted.
    pub fn make(name: &str, mebibytes: u64) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix(name).tempdir().unwrap();
        let file = folder.path().join("image");
        std::fs::File::create(&file)
            .unwrap()
            .set_len(mebibytes << 20)
            .unwrap();
        if !run("mkfs.ext4", &["-q", "-F", file.to_str()?]) {
            return None;
        }
        Self::mounted(folder)
    }

    /// The disk as it is at this moment, mounted elsewhere.
    fn image(&self) -> Self {
        let folder = tempfile::Builder::new().prefix("image").tempdir().unwrap();
        let from = self.folder.path().join("image");
        let to = folder.path().join("image");
        assert!(run(
            "cp",
            &[
                "--sparse=always",
                from.to_str().unwrap(),
                to.to_str().unwrap()
            ]
        ));
        Self::mounted(folder).unwrap()
    }

    /// No write to it comes back until what is returned is dropped. `None` where that cannot be.
    pub fn freeze(&self) -> Option<Frozen<'_>> {
        run("fsfreeze", &["--freeze", self.mount.to_str()?]).then_some(Frozen(self))
    }

    fn mounted(folder: tempfile::TempDir) -> Option<Self> {
        let mount = folder.path().join("mount");
        std::fs::create_dir(&mount).unwrap();
        let file = folder.path().join("image");
        run("mount", &["-o", "loop", file.to_str()?, mount.to_str()?])
            .then_some(Self { folder, mount })
    }
}

/// A disk that hangs.
pub struct Frozen<'d>(&'d LoopDisk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run(
            "fsfreeze",
            &["--unfreeze", self.0.mount.to_str().unwrap_or_default()],
        );
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // A killed server's files may be held for a moment longer.
        for _ in 0..50 {
            if run("umount", &[self.mount.to_str().unwrap_or_default()]) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
