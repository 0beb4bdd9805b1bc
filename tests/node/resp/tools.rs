//! Redis's own tools, and redis-py.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::start;

/// Runs a tool, if it is there; says so loudly if it is not.
pub(super) fn tool(name: &str, arguments: &[&str], input: &str) -> Option<String> {
    let child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!(
            "SKIPPED: {name} is not installed; apt-get install redis-tools, to run this test"
        );
        return None;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {said}{failed}"
    );
    Some(said)
}

#[test]
fn redis_cli_and_redis_benchmark_work() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &[]);
    let port = node.resp.port().to_string();
    let cli = |arguments: &[&str], input: &str| {
        tool("redis-cli", &[&["-p", &port], arguments].concat(), input)
    };
    let Some(said) = cli(
        &[],
        "SET a 1\nINCR a\nGET nothing\nCOMMAND COUNT\nINFO server\n",
    ) else {
        return;
    };
    assert!(said.starts_with("OK\n2\n\n"), "{said}");
    assert!(said.contains("server_name:ringbolt"), "{said}");
    let said = cli(&["-3", "HELLO"], "").unwrap();
    assert!(
        said.contains("proto") && said.contains("ringbolt"),
        "{said}"
    );
    assert_eq!(cli(&["--scan"], "").unwrap(), "a\n");
    let said = cli(&["--bigkeys"], "").unwrap();
    assert!(said.contains("Biggest string found"), "{said}");
    let arguments = [
        "-p",
        &port,
        "-t",
        "ping,set,get,incr,mset",
        "-n",
        "2000",
        "-c",
        "20",
        "-P",
        "4",
        "-r",
        "100",
        "--csv",
    ];
    let Some(said) = tool("redis-benchmark", &arguments, "") else {
        return;
    };
    for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET"] {
        assert!(said.contains(&format!("\"{test}")), "{said}");
    }
}

#[test]
fn redis_py_works_with_both_protocols() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &[]);
    redis_py(&[node.resp]);
}

/// Runs the script of redis-py, if that is there; says so loudly if it is not.
pub(super) fn redis_py(nodes: &[SocketAddr]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/resp/script.py");
    let output = Command::new("python3")
        .arg(script)
        .args(nodes.iter().map(|node| node.port().to_string()))
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: python3 is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) {
        eprintln!("SKIPPED: redis-py 5 is not installed; pip install redis, to run this test");
        return;
    }
    assert!(output.status.success(), "{said}{failed}");
    assert_eq!(said.lines().last(), Some("done"));
}
