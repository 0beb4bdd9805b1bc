//! Exports against the model, and stages against everything a sender may do wrong.

use std::path::Path;
use std::time::Duration;

use super::super::chunk::Reader;
use super::super::*;
use crate::env::Env;
use crate::env::sim::{self, Rng, SimEnv, SimOptions};
use crate::error::EngineError;
use crate::row::{RowMeta, partition_range};
use crate::tree::tests::model::Model;
use crate::tree::tests::walk::{Walk, first_seed};
use crate::tree::{Tree, TreeOptions};

type Rows = Vec<(Vec<u8>, RowMeta, Vec<u8>)>;

fn rows_in(chunk: &[u8]) -> Rows {
    let reader = Reader::new(chunk).expect("intact");
    let mut rows = reader.rows();
    let mut out = Rows::new();
    while let Some((row_key, meta, value)) = rows.next() {
        out.push((row_key.to_vec(), meta, value.to_vec()));
    }
    out
}

/// What a partition must show, and nothing else.
fn check(model: &Model, of: &SnapshotId, rows: &Rows) {
    let (from, to) = partition_range(of.partition);
    let expected: Vec<_> = model
        .rows
        .range(from..to)
        .filter(|(_, row)| !row.meta.expired_at(of.time_ms))
        .collect();
    assert_eq!(rows.len(), expected.len());
    for ((row_key, meta, value), (expected_key, row)) in rows.iter().zip(expected) {
        assert_eq!((row_key, value), (expected_key, &row.value));
        let mut like = row.meta;
        if row.created_is_loose {
            assert!(meta.created_ms >= like.created_ms);
            like.created_ms = meta.created_ms;
        }
        assert_eq!(*meta, like, "row {row_key:?}");
    }
}

fn of_model(model: &Model, partition: PartitionId) -> (u64, u64) {
    let index = model.indexes.get(&partition).copied().unwrap_or(0);
    (index, model.time(partition))
}

/// Exports go on for long, while rows are written, flushed and compacted.
async fn export_walk(env: SimEnv, seed: u64) -> u64 {
    let mut walk = Walk::new(env.clone(), seed, 300, TreeOptions::tiny()).await;
    let far = Duration::from_secs(3600);
    let mut chunks = 0;
    for round in 0..8 {
        for _ in 0..walk.rng.below(800) {
            walk.write();
        }
        let partition = walk.rng.below(3) as PartitionId;
        let mut export = walk.tree.export(partition, env.now() + far);
        let of = export.of();
        let model = walk.model.clone();
        assert_eq!((of.id.index, of.time_ms), of_model(&model, partition));
        let mut rows = Rows::new();
        let mut after = Vec::new();
        loop {
            match walk.rng.below(10) {
                0..5 => (0..40).for_each(|_| walk.write()),
                5 => walk.tree.flush().await.expect("flushes"),
                6 => env.sleep(Duration::from_millis(5)).await,
                7 => env.sleep(Duration::from_secs(2)).await,
                8 => {
                    // A sender that lost track asks for something from before.
                    let back = rows.len() / 2;
                    rows.truncate(back);
                    after = rows.last().map_or(Vec::new(), |(key, ..)| key.clone());
                }
                _ => {}
            }
            if walk.tree.pressure().stop {
                env.sleep(Duration::from_millis(50)).await;
            }
            let chunk = export.chunk(&after).await.expect("reads");
            chunks += 1;
            let row_max = 3 * KEY_BYTES_MAX;
            assert!(chunk.bytes.len() <= walk.options.chunk_bytes() + row_max);
            rows.extend(rows_in(&chunk.bytes));
            after = chunk.last_key;
            if chunk.is_last {
                break;
            }
        }
        check(&model, &of, &rows);
        drop(export);
        if round == 4 {
            walk.tree.flush().await.expect("flushes");
        }
    }
    walk.tree.close().await.expect("closes");
    chunks
}

#[test]
fn an_export_shows_one_moment_exactly() {
    let first = first_seed();
    let mut chunks = 0;
    for seed in first..first + 6 {
        println!("export of seed {seed}");
        chunks += sim::run(seed, SimOptions::default(), move |env| {
            export_walk(env, seed)
        });
    }
    assert!(chunks > 200, "{chunks}");
}

#[test]
fn an_export_ends_by_its_deadline_and_lets_go_of_memory() {
    sim::run(3, SimOptions::default(), |env| async move {
        let mut walk = Walk::new(env.clone(), 3, 300, TreeOptions::tiny()).await;
        (0..150).for_each(|_| walk.write());
        // The last write may have closed a memtable.
        while walk
            .tree
            .inner
            .memtables
            .borrow()
            .active
            .borrow()
            .is_empty()
        {
            walk.write();
        }
        let mut export = walk.tree.export(1, env.now() + Duration::from_secs(5));
        let first = export.chunk(&[]).await.expect("reads");
        assert!(!first.is_last);
        let held = std::rc::Rc::downgrade(&walk.tree.inner.memtables.borrow().active);
        let begun = env.now();
        walk.tree.flush().await.expect("flushes");
        let took = env.now() - begun;
        assert!(held.upgrade().is_some(), "held for a second, not {took:?}");
        env.sleep(Duration::from_secs(2)).await;
        assert!(held.upgrade().is_none(), "and then is let go");
        assert!(export.chunk(&first.last_key).await.is_ok());
        let outside = export.chunk(&[9, 9]).await;
        assert!(matches!(outside, Err(EngineError::Invalid(_))));
        env.sleep(Duration::from_secs(4)).await;
        let late = export.chunk(&[]).await;
        assert!(matches!(late, Err(EngineError::Deadline)), "{late:?}");
        walk.tree.close().await.expect("closes");
    });
}

async fn tables_in(env: &SimEnv, dir: &str) -> usize {
    use crate::env::Disk;
    let names = env.disk().list(Path::new(dir)).await.expect("lists");
    let is_table = |path: &&std::path::PathBuf| crate::tree::table_id(path).is_some();
    names.iter().filter(is_table).count()
}

async fn receiver(env: &SimEnv) -> Tree<SimEnv> {
    let options = TreeOptions::tiny();
    Tree::open(env.clone(), Path::new("other"), options)
        .await
        .expect("opens")
}

/// Sends a whole export over a line that repeats, skips and damages. Says how many were refused.
async fn send(export: &mut Export<SimEnv>, stage: &mut Stage<SimEnv>, rng: &mut Rng) -> u64 {
    let mut refused = 0;
    let mut sent: Vec<Chunk> = Vec::new();
    while !stage.is_complete() {
        let position = stage.position().to_vec();
        let chunk = export.chunk(&position).await.expect("reads");
        match rng.below(4) {
            0 => {
                let mut bytes = chunk.bytes.clone();
                let at = rng.index(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
                let damaged = stage.accept(&bytes).await;
                assert!(
                    matches!(damaged, Err(EngineError::Invalid(_))),
                    "{damaged:?}"
                );
                refused += 1;
            }
            1 if !chunk.is_last => {
                let next = export.chunk(&chunk.last_key).await.expect("reads");
                let gap = stage.accept(&next.bytes).await;
                assert!(matches!(gap, Err(EngineError::Invalid(_))), "{gap:?}");
                refused += 1;
            }
            2 if !sent.is_empty() => {
                let again = &sent[rng.index(sent.len())];
                stage.accept(&again.bytes).await.expect("passed over");
            }
            _ => {}
        }
        assert_eq!(stage.position(), position);
        stage.accept(&chunk.bytes).await.expect("taken");
        sent.push(chunk);
    }
    refused
}

#[test]
fn a_stage_takes_every_row_once_whatever_the_line_does() {
    let first = first_seed();
    let mut refused = 0;
    for seed in first..first + 12 {
        println!("stage of seed {seed}");
        refused += sim::run(seed, SimOptions::default(), move |env| async move {
            let mut walk = Walk::new(env.clone(), seed, 300, TreeOptions::tiny()).await;
            (0..1500).for_each(|_| walk.write());
            walk.tree.flush().await.expect("flushes");
            let mut export = walk.tree.export(1, env.now() + Duration::from_secs(60));
            let other = receiver(&env).await;
            let mut stage = other.stage(export.of());
            let refused = send(&mut export, &mut stage, &mut walk.rng).await;
            let rows = stage.rows();
            let staged = stage.finish().await.expect("finishes");
            assert_eq!((staged.of(), staged.rows()), (export.of(), rows));
            let entries: u64 = staged.tables.iter().map(|t| t.record.entries).sum();
            assert_eq!(entries, rows);
            assert_eq!(tables_in(&env, "other").await, staged.tables.len());
            drop(staged);
            env.sleep(Duration::from_secs(3)).await;
            assert_eq!(tables_in(&env, "other").await, 0, "dropped, so removed");
            other.close().await.expect("closes");
            walk.tree.close().await.expect("closes");
            refused
        });
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn a_stage_left_half_done_leaves_no_file_behind() {
    sim::run(4, SimOptions::default(), |env| async move {
        let mut walk = Walk::new(env.clone(), 4, 300, TreeOptions::tiny()).await;
        (0..1500).for_each(|_| walk.write());
        let mut export = walk.tree.export(1, env.now() + Duration::from_secs(60));
        let other = receiver(&env).await;
        let mut stage = other.stage(export.of());
        for _ in 0..4 {
            let chunk = export.chunk(stage.position()).await.expect("reads");
            stage.accept(&chunk.bytes).await.expect("taken");
        }
        assert!(tables_in(&env, "other").await > 0);
        let unfinished = other.stage(export.of()).finish().await;
        assert!(matches!(unfinished, Err(EngineError::Invalid(_))));
        let strange = SnapshotId {
            time_ms: 1,
            ..export.of()
        };
        let chunk = export.chunk(&[]).await.expect("reads");
        let refused = other.stage(strange).accept(&chunk.bytes).await;
        assert!(matches!(refused, Err(EngineError::Invalid(_))));
        // Closed before they were removed: the next open does it.
        drop(stage);
        other.close().await.expect("closes");
        let other = receiver(&env).await;
        assert_eq!(tables_in(&env, "other").await, 0);
        other.close().await.expect("closes");
        walk.tree.close().await.expect("closes");
    });
}
