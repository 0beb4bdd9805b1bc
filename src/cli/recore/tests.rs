use std::collections::BTreeMap;
use std::path::Path;

use ringbolt_engine::entry::{Effect, EntryHead, LogId};
use ringbolt_engine::log::HardState;
use ringbolt_engine::row::{ReadAt, RowKeyBuf, RowMeta};

use super::*;
use crate::config::{Flag, Inputs, Machine, load};
use crate::node::format::Format;

const PARTITIONS: u16 = 16;

fn settings(data: &Path, cores: u16) -> Settings {
    let flag = |key: &str, value: String| Flag {
        name: format!("--{key}"),
        key: key.into(),
        value,
    };
    let inputs = Inputs {
        file: None,
        environment: Vec::new(),
        flags: vec![
            flag("data", data.to_str().unwrap().into()),
            flag("cores", cores.to_string()),
            flag("log.segment_bytes", "1MiB".into()),
            flag("disk.reserve_bytes", "1MiB".into()),
        ],
        machine: Machine {
            cpus: vec![0],
            memory: 2 << 30,
        },
    };
    load(&inputs).unwrap().settings
}

fn open(data: &Path, cores: u16) -> DataDir {
    DataDir::open(data, || {
        Ok(Format::new("test".into(), cores, PARTITIONS, "O_DSYNC"))
    })
    .unwrap()
}

fn time_of(index: u64) -> u64 {
    1_700_000_000_000 + index
}

/// Three entries for a partition: a blind put, another over it with an expiry, and a second key
/// that is deleted again.
async fn fill(engine: &Engine<PlainEnv>, partition: u16) {
    let hard = HardState {
        replica_id: 7,
        term: 3,
        vote: 7,
        commit: 0,
    };
    engine.append_hard_state(partition, hard).unwrap();
    let key = format!("key of {partition}");
    let put = |key, value, expires_ms| Effect::Put {
        keyspace: 0,
        key,
        value,
        expires_ms,
        created_ms: 0,
    };
    let writes = [
        vec![put(key.as_bytes(), b"old", 0), put(b"gone", b"x", 0)],
        vec![put(key.as_bytes(), b"new", time_of(1000))],
        vec![Effect::Delete {
            keyspace: 0,
            key: b"gone",
        }],
    ];
    for (index, effects) in (1..).zip(writes) {
        let head = EntryHead {
            partition,
            id: LogId { term: 3, index },
            client: 0,
            sequence: 0,
            time_ms: time_of(index),
        };
        engine.append(&head, &effects).unwrap();
        engine.apply(&head, effects.iter().copied());
    }
}

/// Makes a folder for `cores` cores in which every partition but the last has rows.
fn make(data: &Path, cores: u16) {
    let dir = open(data, cores);
    let map = PartitionMap::spread("test".into(), PARTITIONS, cores);
    let settings = settings(data, cores);
    let env = PlainEnv::new(Access::Write);
    env.block_on(async {
        for core in 0..cores {
            let options = options(&settings, cores);
            let (engine, _) = Engine::open(env.clone(), &dir.shard(core), options)
                .await
                .unwrap();
            for partition in map.owned_by(core).filter(|p| p + 1 < PARTITIONS) {
                fill(&engine, partition).await;
            }
            engine.close().await.unwrap();
        }
    });
}

/// Rows with what they say of themselves, hard state, last entry.
type Content = (Vec<(Vec<u8>, RowMeta, Vec<u8>)>, HardState, LogId);

/// All that a folder holds, by partition.
fn contents(data: &Path) -> BTreeMap<u16, Content> {
    let dir = open(data, 0);
    let cores = dir.format().cores;
    let settings = settings(data, cores);
    let map = PartitionMap::spread("test".into(), PARTITIONS, cores);
    let env = PlainEnv::new(Access::Write);
    let mut all = BTreeMap::new();
    env.block_on(async {
        for core in 0..cores {
            let options = options(&settings, cores);
            let (engine, replicas) = Engine::open(env.clone(), &dir.shard(core), options)
                .await
                .unwrap();
            for replica in replicas {
                let partition = replica.partition;
                assert_eq!(map.core_of(partition), core, "partition {partition}");
                assert_eq!(replica.time_ms, time_of(3));
                let mut rows = Vec::new();
                let from = RowKeyBuf::of(partition, 0, b"");
                let to = RowKeyBuf::of(partition, 1, b"");
                let at = ReadAt::newest(replica.time_ms);
                let mut cursor = engine.tree().cursor(&from, &to, false, at);
                while let Some((key, _, value)) = cursor.next().await.unwrap() {
                    let meta = engine.tree().stat(key, at).await.unwrap().unwrap();
                    rows.push((key.to_vec(), meta, value.to_vec()));
                }
                all.insert(partition, (rows, replica.hard, replica.last));
            }
            engine.close().await.unwrap();
        }
    });
    all
}

#[test]
fn every_partition_moves_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    make(&data, 1);
    let before = contents(&data);
    assert_eq!(before.len(), usize::from(PARTITIONS) - 1);
    let (rows, _, last) = &before[&3];
    assert_eq!((rows.len(), last.index), (1, 3));
    assert_eq!(
        rows[0].1.created_ms,
        time_of(1),
        "from the version that was overwritten"
    );
    for cores in [3, 8, 1] {
        let mut dir = open(&data, 0);
        let moved = recore(&mut dir, &settings(&data, cores)).unwrap();
        // A row of each partition that was written, and one that says where its term begins.
        assert_eq!((moved.partitions, moved.rows), (16, 30));
        let leftovers = dir.leftovers().unwrap();
        assert!(!leftovers.is_empty(), "the old layout waits to be removed");
        remove(&dir).unwrap();
        assert_eq!(dir.leftovers().unwrap(), [] as [std::path::PathBuf; 0]);
        drop(dir);
        assert_eq!(contents(&data), before, "{cores} cores");
    }
}

#[test]
fn what_was_cut_short_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    make(&data, 2);
    let before = contents(&data);
    // A crash before the switch: half a new layout lies about.
    let mut dir = open(&data, 0);
    let staged = dir.shard_in(1, 0).join("tables");
    std::fs::create_dir_all(&staged).unwrap();
    std::fs::write(staged.join("0000000001.table"), [0; 100]).unwrap();
    drop(dir);
    assert_eq!(contents(&data), before, "the old layout counts");
    dir = open(&data, 0);
    remove(&dir).unwrap();
    recore(&mut dir, &settings(&data, 1)).unwrap();
    drop(dir);
    // A crash after the switch: the old layout lies about.
    assert_eq!(contents(&data), before, "the new layout counts");
}

#[test]
fn entries_that_the_others_may_discard_are_not_moved() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    make(&data, 1);
    let mut dir = open(&data, 0);
    let env = PlainEnv::new(Access::Write);
    env.block_on(async {
        let options = options(&settings(&data, 1), 1);
        let (engine, _) = Engine::open(env.clone(), &dir.shard(0), options)
            .await
            .unwrap();
        let partition = PARTITIONS - 1;
        let members = crate::replica::Membership::of_voters(&[7, 8, 9]).encode();
        engine.log().append_membership(partition, &members).unwrap();
        let hard = HardState {
            replica_id: 7,
            term: 3,
            ..HardState::default()
        };
        engine.append_hard_state(partition, hard).unwrap();
        let head = EntryHead {
            partition,
            id: LogId { term: 3, index: 1 },
            ..EntryHead::default()
        };
        engine.append(&head, &[]).unwrap();
        engine.close().await.unwrap();
    });
    let error = recore(&mut dir, &settings(&data, 2)).unwrap_err();
    assert!(
        error.message.contains("only those up to 0 are"),
        "{}",
        error.message
    );
    assert_eq!(dir.format().cores, 1, "the old layout counts");
}

#[test]
fn more_cores_than_partitions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    make(&data, 1);
    let mut dir = open(&data, 0);
    let error = recore(&mut dir, &settings(&data, 17)).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.message.contains("16 partitions"), "{}", error.message);
    assert_eq!(dir.format().cores, 1);
}
