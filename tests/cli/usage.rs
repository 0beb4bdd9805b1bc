//! Wrong usage, no server, and pipes that close.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;

use super::{end, ringbolt, run};
use crate::support::free_address;

#[test]
fn wrong_usage_ends_with_2() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["get"],
        &["put", "k"],
        &["put", "k", "v", "--if-absent", "--if-present"],
        &["put", "k", "v", "--ttl", "soon"],
        &["put", "k", "v", "--ack", "0"],
        &["put", "", "v"],
        &["put", "k", "v", "--base64"],
        &["put", "k", "--file", "/nonexistent"],
        &["get", "k", "--read", "psychic"],
        &["get", "k", "--token", "1:2"],
        &["get", "k", "--timeout", "0s"],
        &["incr", "k", "1.5"],
        &["touch", "k"],
        &["keyspace", "drop", "users"],
        &["completions", "tcsh"],
        &["plan"],
        &[
            "plan",
            "--keys",
            "many",
            "--value-size",
            "1KB",
            "--node-disk",
            "2TB",
        ],
        &[
            "plan",
            "--keys",
            "0",
            "--value-size",
            "1KB",
            "--node-disk",
            "2TB",
        ],
        &[
            "plan",
            "--keys",
            "1e9",
            "--value-size",
            "1GB",
            "--node-disk",
            "2TB",
        ],
        &[
            "plan",
            "--keys",
            "1e15",
            "--value-size",
            "1KB",
            "--node-disk",
            "2TB",
        ],
    ] {
        let ended = run(args);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (2, ""),
            "{args:?}: {ended:?}"
        );
        assert!(!ended.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_batch_that_cannot_be_read_names_its_line() {
    let input = b"{\"op\":\"del\",\"key\":\"a\"}\n\n{\"op\":\"dell\",\"key\":\"b\"}\n";
    let ended = end(ringbolt(&["batch"]), input);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.contains("standard input, line 3: "),
        "{}",
        ended.stderr
    );
    assert_eq!(end(ringbolt(&["batch"]), b"\n").code, 2, "no writes");
}

#[test]
fn a_value_over_16_mib_is_refused_before_it_is_sent() {
    let ended = end(ringbolt(&["put", "k", "-"]), &vec![b'x'; (16 << 20) + 1]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("more than 16MiB"), "{}", ended.stderr);
}

#[test]
fn a_server_that_is_not_there_ends_with_3() {
    let addr = free_address().to_string();
    for args in [
        &["get", "k"][..],
        &["put", "k", "v"],
        &["scan"],
        &["stats"],
        &["keyspace", "list"],
    ] {
        let ended = run(&[args, &["--addr", &addr, "--timeout", "300ms"]].concat());
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (3, ""),
            "{args:?}: {ended:?}"
        );
        assert!(ended.stderr.contains(&addr), "{}", ended.stderr);
    }
    let ended = run(&[
        "get",
        "k",
        "--addr",
        &addr,
        "--timeout",
        "300ms",
        "--format",
        "json",
    ]);
    let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "refused");
}

#[test]
fn a_server_of_another_kind_ends_with_3() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream
                .unwrap()
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let ended = run(&["get", "k", "--addr", &addr, "--timeout", "2s"]);
    assert_eq!(ended.code, 3, "{ended:?}");
}

/// `ringbolt … | head`: the rest of the output is nobody's business, and no error. The output is
/// longer than any pipe holds.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let addr = super::fake::start().to_string();
    let mut child = ringbolt(&["scan", "--prefix", "big", "--addr", &addr])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 3];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"a\tx");
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = run(&["completions", shell]);
        assert_eq!(ended.code, 0, "{shell}");
        assert!(ended.stdout.contains("if-version"), "{shell}");
    }
}
