//! What surrounds a server: the service manager that starts it, and whoever collects what it says.

use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{BINARY, command, free_address};

/// A server with pipes of its own; killed when dropped.
struct Process(Child);

impl Process {
    fn terminate(&self) {
        let pid = self.0.id().to_string();
        let status = std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_service_manager_is_told_when_the_node_serves_and_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let heard = || {
        let mut datagram = [0; 4096];
        let length = socket.recv(&mut datagram).unwrap();
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    };
    let addr = free_address();
    let mut child = command(&dir.path().join("data"), addr);
    child
        .args(["--cores", "1", "--memory", "128MiB"])
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null());
    let mut server = Process(child.spawn().unwrap());
    let ready = heard();
    assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
    let status = format!("STATUS=serves at {addr}");
    assert!(ready.lines().any(|line| line == status), "{ready}");
    // It is true.
    let get = std::process::Command::new(BINARY)
        .args(["get", "--addr", &addr.to_string(), "nothing"])
        .output()
        .unwrap();
    assert_eq!(get.status.code(), Some(1), "{get:?}");
    server.terminate();
    let stopping = heard();
    assert!(
        stopping.lines().any(|line| line == "STOPPING=1"),
        "{stopping}"
    );
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn messages_that_go_to_a_pipe_are_objects_without_keys_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let addr = free_address();
    let mut child = command(dir.path(), addr);
    child
        .args(["--cores", "1", "--memory", "128MiB"])
        .args(["--set", "messages.level=trace"])
        .env_remove("RINGBOLT_MESSAGES_FORMAT")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut server = Process(child.spawn().unwrap());
    let mut pipe = server.0.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let put = || {
        std::process::Command::new(BINARY)
            .args(["put", "--addr", &addr.to_string()])
            .args(["secret-key", "secret-value"])
            .output()
            .unwrap()
    };
    while !put().status.success() {
        assert!(Instant::now() < deadline, "the server does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.terminate();
    assert!(server.0.wait().unwrap().success());
    let said = said.join().unwrap();
    assert!(!said.contains("secret"), "{said}");
    let mut messages = Vec::new();
    for line in said.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        for field in ["timestamp", "level", "message"] {
            assert!(object[field].is_string(), "{field}: {line}");
        }
        messages.push(object);
    }
    let ready = messages
        .iter()
        .find(|object| object["message"].as_str().unwrap().ends_with(" is ready."));
    let ready = ready.unwrap_or_else(|| panic!("{said}"));
    assert_eq!(ready["listen"], addr.to_string());
    assert_eq!(ready["cores"], 1);

    // A refusal to start is an object too, the last.
    let refused = command(dir.path(), addr)
        .args(["--cores", "2", "--memory", "256MiB"])
        .env_remove("RINGBOLT_MESSAGES_FORMAT")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    let refused: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(refused["level"], "ERROR");
    let why = refused["message"].as_str().unwrap();
    assert!(why.contains("ringbolt recore"), "{why}");
}

#[test]
fn the_packaged_settings_can_be_used() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/ringbolt.toml");
    let text = std::fs::read_to_string(file).unwrap();
    // As it is, and with every example in force.
    let all = tempfile::NamedTempFile::new().unwrap();
    let examples: String = text.lines().fold(String::new(), |all, line| {
        let example = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
        all + example.unwrap_or(line) + "\n"
    });
    std::fs::write(all.path(), examples).unwrap();
    for path in [std::path::Path::new(file), all.path()] {
        let printed = std::process::Command::new(BINARY)
            .args(["config", "print", "--effective", "--config"])
            .arg(path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&printed.stderr);
        assert!(printed.status.success(), "{said}");
        let printed = String::from_utf8(printed.stdout).unwrap();
        assert!(
            printed.contains("data = \"/var/lib/ringbolt\"\n"),
            "{printed}"
        );
    }
}
