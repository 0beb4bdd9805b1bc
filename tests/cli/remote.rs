//! What commands say, and how they end, for each kind of answer.

use super::{Ended, end, fake, ringbolt};
use crate::support::free_address;

/// Runs a command against a fake server.
fn ask_with(args: &[&str], input: &[u8]) -> Ended {
    let addr = fake::start().to_string();
    let mut command = ringbolt(args);
    command.env("RINGBOLT_ADDR", addr);
    end(command, input)
}

fn ask(args: &[&str]) -> Ended {
    ask_with(args, b"")
}

/// It succeeds, with this on standard output and nothing else said.
fn says(args: &[&str], stdout: &str) {
    let ended = ask(args);
    assert_eq!(ended.stderr, "", "{args:?}");
    assert_eq!((ended.code, ended.stdout.as_str()), (0, stdout), "{args:?}");
}

#[test]
fn text_is_plain() {
    says(&["get", "k"], "value of k");
    says(&["get", "k", "l"], "k\tvalue of k\nl\tvalue of l\n");
    says(&["put", "k", "v"], "OK version 7\n");
    says(&["del", "k"], "OK\n");
    says(&["incr", "n"], "41\n");
    says(&["incr", "n", "-50"], "-10\n");
    says(&["touch", "k", "--ttl", "5s"], "OK version 7\n");
    says(
        &["stat", "k"],
        "version  7\nbytes    5\ncreated  2020-09-13T12:26:40.000Z\n\
         updated  2023-11-14T22:13:20.123Z\nexpires  never\n",
    );
    says(&["scan", "--keys-only", "--limit", "1"], "a\n");
    says(&["stats"], "connections     1\nrequests_total  12\n");
    says(
        &["status", "--partitions"],
        "node  name  address  cores  leads  replicas     lag\n   \
            1  fake  -            1      1         1       0\n\
         1 partitions, each with a leader\n\
         partition  leader    term   committed     applied  lag by node\n        \
                 0       1       4          12          11  1:0 2:3\n",
    );
    says(&["keyspace", "create", "users"], "OK\n");
    says(&["keyspace", "drop", "users", "--yes"], "OK\n");
    says(
        &["keyspace", "list"],
        "name         id  default ttl\ndefault       0  never\nsessions      3  5s\n",
    );
}

#[test]
fn one_address_of_several_that_answers_is_enough() {
    let addresses = format!("{},{}", free_address(), fake::start());
    let ended = end(ringbolt(&["get", "k", "--addr", &addresses]), b"");
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "value of k"));
}

#[test]
fn json_is_one_object_a_line() {
    let json = ["--format", "json"];
    let says = |args: &[&str], stdout: &str| says(&[args, &json].concat(), stdout);
    let times = "\"version\":7,\"updated_ms\":1700000000123,\"created_ms\":1600000000000,\
                 \"expires_ms\":null";
    says(
        &["get", "k"],
        &format!("{{\"key\":\"k\",\"value\":\"value of k\",{times},\"token\":\"0:1:7\"}}\n"),
    );
    says(
        &["get", "bytes"],
        &format!(
            "{{\"key\":\"bytes\",\"value\":{{\"base64\":\"/wA=\"}},{times},\"token\":\"0:1:7\"}}\n"
        ),
    );
    says(
        &["put", "k", "v"],
        "{\"key\":\"k\",\"done\":true,\"version\":7,\"token\":\"0:1:7\"}\n",
    );
    says(
        &["incr", "n", "2"],
        "{\"key\":\"n\",\"done\":true,\"version\":7,\"value\":42,\"token\":\"0:1:7\"}\n",
    );
    says(
        &["stat", "k"],
        &format!("{{\"key\":\"k\",{times},\"token\":\"0:1:7\",\"value_bytes\":5}}\n"),
    );
    says(
        &["scan"],
        &format!(
            "{{\"key\":\"a\",\"value\":\"1\\t2\",{times}}}\n\
             {{\"key\":{{\"base64\":\"Yv8=\"}},\"value\":\"1\\t2\",{times}}}\n\
             {{\"key\":\"c\",\"value\":\"1\\t2\",{times}}}\n"
        ),
    );
    says(&["stats"], "{\"connections\":1,\"requests_total\":12}\n");
    says(
        &["keyspace", "list"],
        "{\"id\":0,\"name\":\"default\",\"default_ttl_ms\":null}\n\
         {\"id\":3,\"name\":\"sessions\",\"default_ttl_ms\":5000}\n",
    );
}

#[test]
fn scans_are_key_tab_value_with_the_bytes_as_they_are() {
    let addr = fake::start().to_string();
    let output = ringbolt(&["scan", "--addr", &addr]).output().unwrap();
    assert_eq!(output.stdout, b"a\t1\t2\nb\xff\t1\t2\nc\t1\t2\n");
}

#[test]
fn values_come_from_standard_input_files_and_base64() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    std::fs::write(&file, "v").unwrap();
    assert_eq!(ask_with(&["put", "k", "-"], b"\xff\x00").code, 0);
    assert_eq!(ask(&["put", "k", "--file", file.to_str().unwrap()]).code, 0);
    says(&["get", "--base64", "aw=="], "value of k");
}

#[test]
fn batches_answer_line_by_line() {
    let input = b"{\"op\":\"incr\",\"key\":\"n\",\"by\":2}\n{\"op\":\"del\",\"key\":\"a\"}\n";
    let ended = ask_with(&["batch"], input);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, "42\nOK\n"),
        "{ended:?}"
    );
    let ended = ask_with(&["batch", "--format", "json"], input);
    assert_eq!(
        ended.stdout,
        "{\"done\":true,\"version\":7,\"token\":\"0:1:7\",\"counters\":[42,null]}\n"
    );
}

#[test]
fn what_is_not_there_and_what_does_not_hold_end_with_1() {
    for (args, json) in [
        (
            &["get", "missing"][..],
            "{\"key\":\"missing\",\"value\":null}\n",
        ),
        (
            &["stat", "missing"],
            "{\"key\":\"missing\",\"value\":null}\n",
        ),
        (
            &["touch", "missing", "--ttl", "1s"],
            "{\"key\":\"missing\",\"value\":null}\n",
        ),
        (
            &["put", "taken", "v", "--if-absent"],
            "{\"key\":\"taken\",\"done\":false,\"version\":7}\n",
        ),
    ] {
        let ended = ask(args);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{args:?}");
        assert!(!ended.stderr.is_empty(), "{args:?}");
        let ended = ask(&[args, &["--format", "json"]].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (1, json), "{args:?}");
        assert_eq!(ended.stderr, "", "{args:?}");
    }
    let ended = ask(&["get", "k", "missing"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, "k\tvalue of k\n"));
}

#[test]
fn refusals_end_with_3_and_doubt_with_4() {
    for (key, code, part) in [
        ("full", 3, "the disk is full (NoSpace)"),
        ("words", 3, "it is no number (NotANumber)"),
        ("doubt", 4, "in doubt: "),
    ] {
        let ended = ask(&["put", key, "v"]);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (code, ""),
            "{key}: {ended:?}"
        );
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    let ended = ask(&["put", "doubt", "v", "--format", "json"]);
    let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(
        (ended.code, &error["error"]["kind"]),
        (4, &"in_doubt".into())
    );
    let ended = ask(&["get", "k", "--keyspace", "nowhere"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains("nowhere"), "{}", ended.stderr);
}
