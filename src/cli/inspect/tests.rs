use std::cell::RefCell;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;

use clap::Parser;
use ringbolt_engine::engine::{Engine, EngineOptions};
use ringbolt_engine::entry::{Effect, EntryHead, LogId};
use ringbolt_engine::log::{HardState, LogOptions, Recovery};

use super::Args;
use crate::cli::failure::Outcome;
use crate::cli::offline::{Access, PlainEnv};
use crate::cli::output::Out;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

#[derive(Clone, Default)]
struct Captured(Rc<RefCell<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs `ringbolt inspect` with these arguments.
fn inspect(args: &[&str]) -> (Outcome, String) {
    let line = Line::try_parse_from([&["inspect"], args].concat()).unwrap();
    let captured = Captured::default();
    let mut out = Out::new(captured.clone(), false);
    let outcome = line.args.run(&mut out);
    out.flush().unwrap();
    drop(out);
    let text = String::from_utf8(captured.0.take()).unwrap();
    (outcome, text)
}

/// A log of two opens, with three entries of partition 5 and one of partition 6.
fn write_log(folder: &Path) {
    let options = LogOptions {
        segment_bytes: 1 << 20,
        first_fill_bytes: 1 << 20,
        ..LogOptions::default()
    };
    let entries: [(u16, u64, &[u8]); 4] = [(5, 1, b"a"), (6, 1, b"b"), (5, 2, b"c"), (5, 3, b"a")];
    let env = PlainEnv::new(Access::Write);
    for half in [&entries[..2], &entries[2..]] {
        env.block_on(async {
            let nothing = |_| LogId::default();
            let recovery = Recovery::scan(
                env.clone(),
                folder,
                options.clone(),
                |_| true,
                |_| 0,
                &nothing,
            )
            .await;
            let mut recovery = recovery.unwrap();
            while recovery.next_group().await.unwrap().is_some() {}
            let (log, _) = recovery.finish().await.unwrap();
            for (partition, index, key) in half {
                if *index == 1 {
                    let hard = HardState {
                        replica_id: 9,
                        term: 1,
                        ..HardState::default()
                    };
                    log.append_hard_state(*partition, hard).unwrap();
                }
                let head = EntryHead {
                    partition: *partition,
                    id: LogId {
                        term: 1,
                        index: *index,
                    },
                    client: 0xabc,
                    sequence: 4,
                    time_ms: 1_700_000_000_000 + *index,
                };
                let put = Effect::Put {
                    keyspace: 0,
                    key,
                    value: b"\xff",
                    expires_ms: 0,
                    created_ms: 0,
                };
                log.append(&head, &[put]).unwrap();
            }
            log.close().await.unwrap();
        });
    }
}

#[test]
fn segments_are_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    write_log(folder.path());
    let path = folder.path().to_str().unwrap();
    let (outcome, text) = inspect(&["log", path, "--format", "json"]);
    outcome.unwrap();
    let segments: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|segment: &serde_json::Value| !segment["epoch"].is_null())
        .collect();
    assert_eq!(segments.len(), 2, "{text}");
    assert_eq!(segments[0]["start"], "format");
    assert_eq!(segments[0]["records"], 4);
    assert_eq!(segments[1]["start"], "open");
    assert_eq!(segments[1]["replicas"], 2);
    assert_eq!(segments[1]["records"], 2);
    let (outcome, text) = inspect(&["log", path]);
    outcome.unwrap();
    assert!(text.contains("begun by open, follows epoch"), "{text}");
}

#[test]
fn records_are_chosen_by_partition_and_key() {
    let folder = tempfile::tempdir().unwrap();
    write_log(folder.path());
    let path = folder.path().to_str().unwrap();
    let lines = |args: &[&str]| {
        let (outcome, text) = inspect(&[&["log", path, "--records"], args].concat());
        outcome.unwrap();
        text.lines().map(str::to_string).collect::<Vec<_>>()
    };
    let puts = lines(&["--key", "a"]);
    assert_eq!(puts.len(), 4, "two entries, each with its effect: {puts:?}");
    assert!(
        puts[0].contains("partition 5, entry 1:1, 2023-11-14T22:13:20.001Z"),
        "{puts:?}"
    );
    assert!(
        puts[0].ends_with("client 0000000000000abc write 4"),
        "{puts:?}"
    );
    assert_eq!(puts[1], "    put keyspace 0 \"a\" = \"\\xff\"");
    let json = lines(&["--partition", "6", "--format", "json"]);
    let records: Vec<serde_json::Value> = json
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds = ["hard_state", "entry", "checkpoint"].map(|kind| {
        records
            .iter()
            .filter(|record| record.get(kind).is_some())
            .count()
    });
    assert_eq!(kinds, [1, 1, 1], "{json:?}");
    assert_eq!(lines(&["--limit", "1", "--format", "json"]).len(), 1);
}

#[test]
fn damage_is_told_and_the_rest_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    write_log(folder.path());
    let path = folder.path().to_str().unwrap();
    let first = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .min();
    let first = first.unwrap();
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    let (outcome, text) = inspect(&["log", path]);
    assert_eq!(outcome.unwrap_err().exit_code(), 2);
    assert!(text.contains("begun by open"), "{text}");
    let (outcome, _) = inspect(&["log", "/nonexistent"]);
    assert_eq!(outcome.unwrap_err().exit_code(), 2);
    let empty = tempfile::tempdir().unwrap();
    let (outcome, _) = inspect(&["log", empty.path().to_str().unwrap()]);
    assert!(outcome.unwrap_err().message.contains("no log segments"));
}

/// An engine's folder with one flushed table: two versions of a key, a tombstone, a range delete.
fn write_tables(folder: &Path) {
    let env = PlainEnv::new(Access::Write);
    let options = EngineOptions {
        log: LogOptions {
            segment_bytes: 1 << 20,
            first_fill_bytes: 1 << 20,
            ..LogOptions::default()
        },
        ..EngineOptions::default()
    };
    env.block_on(async {
        let (engine, _) = Engine::open(env.clone(), folder, options).await.unwrap();
        let put = |key, value| Effect::Put {
            keyspace: 2,
            key,
            value,
            expires_ms: 0,
            created_ms: 0,
        };
        let writes = [
            vec![put(b"a", b"first"), put(b"b", b"x")],
            vec![Effect::Delete {
                keyspace: 2,
                key: b"b",
            }],
            vec![Effect::DeleteRange {
                keyspace: 2,
                from: b"m",
                to: b"",
            }],
        ];
        for (index, effects) in (1..).zip(writes) {
            let head = EntryHead {
                partition: 5,
                id: LogId { term: 1, index },
                time_ms: 1_700_000_000_000,
                ..EntryHead::default()
            };
            engine.append(&head, &effects).unwrap();
            engine.apply(&head, effects.iter().copied());
        }
        engine.tree().flush().await.unwrap();
        engine.close().await.unwrap();
    });
}

#[test]
fn tables_and_manifests_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    write_tables(folder.path());
    let path = folder.path().to_str().unwrap();
    let run = |args: &[&str]| {
        let (outcome, text) = inspect(args);
        outcome.unwrap();
        text
    };
    let text = run(&["manifest", path, "--tables", "--partitions"]);
    assert!(text.contains("level 0: 1 tables, "), "{text}");
    assert!(text.contains("5/2/\"a\" to "), "{text}");
    assert!(
        text.contains("partition 5: up to 1:3, 2023-11-14T22:13:20.000Z"),
        "{text}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&run(&["manifest", path, "--format", "json"])).unwrap();
    assert_eq!(json["levels"][0]["tables"], 1);

    let text = run(&["table", path, "--verify"]);
    assert!(text.contains("1 tombstones, 1 range deletes"), "{text}");
    assert!(text.contains("every block intact"), "{text}");
    let text = run(&["table", path, "--rows"]);
    assert!(
        text.contains("5/2/\"a\" version 1: \"first\", updated 2023-"),
        "{text}"
    );
    assert!(text.contains("5/2/\"b\" version 2: deleted"), "{text}");
    assert!(text.contains("version 3: range deleted"), "{text}");
    let rows = run(&["table", path, "--rows", "--key", "a", "--format", "json"]);
    let row: serde_json::Value = serde_json::from_str(&rows).unwrap();
    assert_eq!(row["row"]["key"], "a");
    assert_eq!(row["cell"]["value"], "first");
}

#[test]
fn a_damaged_table_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_tables(folder.path());
    let tables = folder.path().join("tables");
    let entries = std::fs::read_dir(&tables)
        .unwrap()
        .map(|e| e.unwrap().path());
    let table = entries
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "table"));
    let table = table.unwrap();
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&table, bytes).unwrap();
    let (outcome, _) = inspect(&["table", table.to_str().unwrap(), "--verify"]);
    assert_eq!(outcome.unwrap_err().exit_code(), 2);
}
