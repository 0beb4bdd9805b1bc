//! A full disk: puts get a typed error, reads and deletes go on, puts resume by themselves.

use std::time::{Duration, Instant};

use super::crash::LoopDisk;
use crate::support::Server;

#[test]
fn a_full_disk_refuses_puts_and_recovers_by_itself() {
    let Some(disk) = LoopDisk::make("full", 700) else {
        println!("skipped: mounting a loop device needs root and mkfs.ext4");
        return;
    };
    let arguments = [
        "--cores",
        "1",
        "--memory",
        "128MiB",
        "--set",
        "disk.reserve_bytes=64MiB",
    ];
    let server = Server::start(&disk.mount.join("data"), &arguments);
    server.ok(&["put", "kept", "1"]);
    server.ok(&["put", "doomed", "1"]);

    // Somebody else fills the disk.
    let hog = disk.mount.join("hog");
    fill(&hog);
    // One or the other may be too late first, on a disk that is busy with all that was written.
    until(|| {
        let output = server.cli(&["put", "--timeout", "300ms", "more", "1"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (said.contains("full") || said.contains("space")).then_some(())
    });
    assert_eq!(server.ok(&["get", "kept"]), "1");
    server.ok(&["del", "doomed"]);
    assert_eq!(server.cli(&["get", "doomed"]).status.code(), Some(1));

    std::fs::remove_file(&hog).unwrap();
    until(|| {
        server
            .cli(&["put", "more", "2"])
            .status
            .success()
            .then_some(())
    });
    assert_eq!(server.ok(&["get", "more"]), "2");
}

/// Writes a file until nothing fits any more.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let block = vec![0xa5; 1 << 20];
    while file.write_all(&block).is_ok() {}
    let _ = file.sync_all();
}

fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "it does not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}
