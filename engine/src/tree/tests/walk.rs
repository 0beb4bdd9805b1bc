//! Long random walks that must agree with the model.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::model::{Entry, Model, Op};
use crate::env::sim::{self, Rng, SimEnv, SimOptions};
use crate::env::{Disk, Env};
use crate::row::{ReadAt, RowMeta, encode_row_key, partition_range};
use crate::tree::{Lookup, Snapshot, Tree, TreeOptions, TreeStats};

const PARTITIONS: u64 = 3;
const KEYSPACES: u64 = 2;

pub(crate) type Log = Rc<RefCell<Vec<Entry>>>;

pub(crate) struct Walk {
    pub env: SimEnv,
    pub rng: Rng,
    pub keys: u64,
    pub model: Model,
    /// All that was ever written: it stands in for the log.
    pub entries: Log,
    pub tree: Tree<SimEnv>,
    pub options: TreeOptions,
    /// Snapshots with what they must show.
    snapshots: Vec<(Snapshot, Model)>,
    pub total: TreeStats,
}

pub(crate) async fn open(env: &SimEnv, options: &TreeOptions) -> Tree<SimEnv> {
    // The tree's directory is its own business, the one above is the caller's.
    let disk = env.disk();
    disk.create_dir_all(Path::new("shard"))
        .await
        .expect("creates");
    disk.sync_dir(Path::new("")).await.expect("syncs");
    Tree::open(env.clone(), Path::new("shard/tree"), options.clone())
        .await
        .expect("opens")
}

impl Walk {
    pub(crate) async fn new(env: SimEnv, seed: u64, keys: u64, options: TreeOptions) -> Self {
        Self {
            tree: open(&env, &options).await,
            env,
            rng: Rng::new(seed),
            keys,
            model: Model::default(),
            entries: Log::default(),
            options,
            snapshots: Vec::new(),
            total: TreeStats::default(),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let n = self.rng.below(self.keys);
        match n % 7 {
            0 => Vec::new(),
            1 => format!("{n:0150}").into_bytes(),
            _ => format!("key-{n:05}").into_bytes(),
        }
    }

    fn op(&mut self, time_ms: u64) -> Op {
        let key = self.key();
        match self.rng.below(100) {
            0..70 => {
                let len = match self.rng.below(40) {
                    0 => 3000 + self.rng.index(3000),
                    1..5 => 0,
                    _ => self.rng.index(150),
                };
                let fill = self.rng.next_u64() as u8;
                let expires_ms = match self.rng.below(5) {
                    0 => time_ms + self.rng.below(400),
                    _ => 0,
                };
                let created_ms = match self.rng.below(8) {
                    0 => time_ms.saturating_sub(self.rng.below(50)),
                    _ => 0,
                };
                Op::Put {
                    key,
                    value: (0..len).map(|i| fill.wrapping_add(i as u8)).collect(),
                    expires_ms,
                    created_ms,
                }
            }
            70..98 => Op::Delete { key },
            _ => {
                let mut to = self.key();
                if self.rng.one_in(20) {
                    to = Vec::new();
                }
                Op::DeleteRange { from: key, to }
            }
        }
    }

    pub(crate) fn write(&mut self) {
        let partition = self.rng.below(PARTITIONS) as u16;
        let passed = match self.rng.below(30) {
            0 => 200,
            n => n % 3,
        };
        let head = self.model.next_head(partition, passed);
        let ops: Vec<Op> = match self.rng.below(10) {
            0 => Vec::new(),
            1 => {
                let mut ops: Vec<Op> = (0..4).map(|_| self.op(head.time_ms)).collect();
                // A key occurs once in a batch.
                let mut seen = std::collections::BTreeSet::new();
                ops.retain(|op| match op {
                    Op::Put { key, .. } | Op::Delete { key } => seen.insert(key.clone()),
                    Op::DeleteRange { .. } => true,
                });
                ops
            }
            _ => vec![self.op(head.time_ms)],
        };
        let entry = Entry {
            head,
            keyspace: self.rng.below(KEYSPACES) as u32,
            ops,
        };
        self.tree.apply(&entry.head, entry.effects());
        self.model.apply(&entry);
        self.entries.borrow_mut().push(entry);
    }

    async fn check_row(&mut self, row_key: &[u8], partition: u16) {
        let time_ms = self.model.time(partition);
        let at = ReadAt::newest(time_ms);
        let expected = self.model.live(row_key, time_ms).cloned();
        let tree = self.tree.clone();
        let now = tree.get_now(row_key, at, |meta, value| (meta, value.to_vec()));
        let found = tree.get(row_key, at).await.expect("reads");
        let found = found.map(|row| (row.meta, row.value));
        match now {
            Lookup::Found(row) => assert_eq!(Some(&row), found.as_ref()),
            Lookup::Absent => assert_eq!(None, found),
            Lookup::NeedsDisk(undecided) => {
                let own = |meta, value: &[u8]| (meta, value.to_vec());
                let went_on = tree.go_on(undecided, row_key, at, own).await;
                assert_eq!(went_on.expect("reads"), found);
            }
        }
        let expected_row = expected.as_ref().map(|e| (e.meta, e.value.clone()));
        assert_eq!(
            found.as_ref().map(|(meta, value)| (strip(meta), value)),
            expected_row
                .as_ref()
                .map(|(meta, value)| (strip(meta), value)),
            "row {row_key:?}"
        );
        let stat = tree.stat(row_key, at).await.expect("stats");
        assert_eq!(stat.is_some(), expected.is_some());
        if let (Some(stat), Some(expected)) = (stat, expected) {
            let exact = expected.meta.created_ms;
            match expected.created_is_loose {
                true => assert!(stat.created_ms >= exact),
                false => assert_eq!(stat.created_ms, exact, "creation of {row_key:?}"),
            }
        }
    }

    pub(crate) async fn check_random_row(&mut self) {
        let partition = self.rng.below(PARTITIONS) as u16;
        let keyspace = self.rng.below(KEYSPACES) as u32;
        let key = self.key();
        let mut row_key = Vec::new();
        encode_row_key(partition, keyspace, &key, &mut row_key);
        self.check_row(&row_key, partition).await;
    }

    /// Reads a range through a cursor while the world goes on.
    async fn check_scan(&mut self, whole: bool) {
        let partition = self.rng.below(PARTITIONS) as u16;
        let (mut from, mut to) = partition_range(partition);
        if !whole {
            from.clear();
            let (keyspace, key) = (self.rng.below(KEYSPACES) as u32, self.key());
            encode_row_key(partition, keyspace, &key, &mut from);
            if self.rng.one_in(2) {
                to.clear();
                let (keyspace, key) = (self.rng.below(KEYSPACES) as u32, self.key());
                encode_row_key(partition, keyspace, &key, &mut to);
            }
        }
        let time_ms = self.model.time(partition);
        let reverse = self.rng.one_in(2);
        let mut cursor = self
            .tree
            .cursor(&from, &to, reverse, ReadAt::newest(time_ms));
        let model = self.model.clone();
        let mut expected = rows_of(&model, &from, &to, time_ms, reverse);
        let mut steps = if self.rng.one_in(3) { 5 } else { u64::MAX };
        while steps > 0 {
            steps -= 1;
            if self.rng.one_in(20) {
                self.write();
            }
            if self.rng.one_in(100) {
                self.env.sleep(Duration::from_millis(5)).await;
            }
            let row = cursor.next().await.expect("scans");
            let row = row.map(|(key, meta, value)| (key.to_vec(), strip(&meta), value.to_vec()));
            let expected = expected.next();
            assert_eq!(row, expected, "scan {from:?}..{to:?} reverse {reverse}");
            if row.is_none() {
                break;
            }
        }
    }

    async fn check_snapshot(&mut self) {
        if self.snapshots.len() < 3 && self.rng.one_in(3) {
            let partition = self.rng.below(PARTITIONS) as u16;
            let snapshot = self.tree.snapshot(partition);
            self.snapshots.push((snapshot, self.model.clone()));
            return;
        }
        if self.snapshots.is_empty() {
            return;
        }
        let at = self.rng.index(self.snapshots.len());
        let (snapshot, model) = self.snapshots.swap_remove(at);
        let (from, to) = partition_range(snapshot.partition());
        let reverse = self.rng.one_in(2);
        let mut cursor = self.tree.cursor(&from, &to, reverse, snapshot.at());
        let mut expected = rows_of(&model, &from, &to, snapshot.at().time_ms, reverse);
        loop {
            let row = cursor.next().await.expect("scans");
            let row = row.map(|(key, meta, value)| (key.to_vec(), strip(&meta), value.to_vec()));
            assert_eq!(row, expected.next(), "snapshot at {:?}", snapshot.at());
            match row {
                Some((row_key, meta, _)) => {
                    let row = self.tree.get(&row_key, snapshot.at()).await.expect("reads");
                    assert_eq!(row.map(|r| strip(&r.meta)), Some(meta));
                }
                None => break,
            }
        }
        drop(expected);
        if self.rng.one_in(2) {
            self.snapshots.push((snapshot, model));
        }
    }

    /// Closes, opens again, and replays what was not flushed, as the log would.
    async fn reopen(&mut self) {
        self.snapshots.clear();
        self.tree.close().await.expect("closes");
        self.add_stats();
        self.tree = open(&self.env, &self.options).await;
        self.replay();
        for (partition, index) in &self.model.indexes {
            assert_eq!(self.tree.applied(*partition).id.index, *index);
        }
    }

    /// Applies what is not in tables.
    pub(crate) fn replay(&self) {
        for entry in self.entries.borrow().iter() {
            if entry.head.id.index > self.tree.flushed(entry.head.partition).id.index {
                self.tree.apply(&entry.head, entry.effects());
            }
        }
    }

    pub(crate) fn add_stats(&mut self) {
        let s = self.tree.stats();
        self.total.flushes += s.flushes;
        self.total.compactions += s.compactions;
        self.total.tables_moved += s.tables_moved;
        self.total.tables_dropped += s.tables_dropped;
        self.total.tables_removed += s.tables_removed;
        self.total.intra_l0_bytes_written += s.intra_l0_bytes_written;
        self.total.l0_bytes_written += s.l0_bytes_written;
        self.total.tombstone_compactions += s.tombstone_compactions;
        self.total.compaction_bytes_written += s.compaction_bytes_written;
        self.total.gets_cached += s.gets_cached;
        self.total.gets_from_disk += s.gets_from_disk;
    }

    pub(crate) async fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            match self.rng.below(1000) {
                0..600 => self.write(),
                600..850 => self.check_random_row().await,
                850..900 => self.check_scan(false).await,
                900..920 => self.check_snapshot().await,
                920..990 => {
                    let ms = self.rng.below(10);
                    self.env.sleep(Duration::from_millis(ms)).await;
                }
                990..998 => self.tree.flush().await.expect("flushes"),
                _ => self.reopen().await,
            }
        }
        self.check_all().await;
        self.snapshots.clear();
        self.tree.close().await.expect("closes");
        self.add_stats();
    }

    pub(crate) async fn check_all(&mut self) {
        for _ in 0..3 {
            self.check_scan(true).await;
        }
        let rows: Vec<_> = self.model.rows.keys().cloned().collect();
        for row_key in rows {
            let partition = u16::from_be_bytes([row_key[0], row_key[1]]);
            self.check_row(&row_key, partition).await;
        }
    }
}

/// Without the creation, which a read need not know.
fn strip(meta: &RowMeta) -> RowMeta {
    RowMeta {
        created_ms: 0,
        ..*meta
    }
}

fn rows_of<'m>(
    model: &'m Model,
    from: &[u8],
    to: &[u8],
    time_ms: u64,
    reverse: bool,
) -> Box<dyn Iterator<Item = (Vec<u8>, RowMeta, Vec<u8>)> + 'm> {
    if from >= to {
        return Box::new(std::iter::empty());
    }
    let rows = model
        .rows
        .range(from.to_vec()..to.to_vec())
        .filter(move |(_, row)| !row.meta.expired_at(time_ms))
        .map(|(key, row)| (key.clone(), strip(&row.meta), row.value.clone()));
    match reverse {
        true => Box::new(rows.rev()),
        false => Box::new(rows),
    }
}

fn walk(seed: u64, keys: u64, steps: u64) -> TreeStats {
    sim::run(seed, SimOptions::default(), move |env| async move {
        let mut walk = Walk::new(env, seed, keys, TreeOptions::tiny()).await;
        walk.run(steps).await;
        walk.total
    })
}

/// The first seed of a test that runs some: always the same, unless `RINGBOLT_SEED` says another.
pub(crate) fn first_seed() -> u64 {
    let seed = match std::env::var("RINGBOLT_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => 1,
    };
    println!("seed {seed}");
    seed
}

#[test]
fn random_walks_agree_with_the_model() {
    let first = first_seed();
    let mut total = TreeStats::default();
    for seed in first..first + 9 {
        println!("walk of seed {seed}");
        let keys = [40, 300, 3000][(seed % 3) as usize];
        let s = walk(seed, keys, 4000);
        total.flushes += s.flushes;
        total.tables_moved += s.tables_moved;
        total.tables_dropped += s.tables_dropped;
        total.tables_removed += s.tables_removed;
        total.intra_l0_bytes_written += s.intra_l0_bytes_written;
        total.l0_bytes_written += s.l0_bytes_written;
        total.tombstone_compactions += s.tombstone_compactions;
        total.compaction_bytes_written += s.compaction_bytes_written;
        total.gets_from_disk += s.gets_from_disk;
    }
    // Limits this small must lead through every path.
    println!("{total:?}");
    assert!(total.flushes > 50);
    assert!(total.tables_moved > 0);
    assert!(total.tables_dropped > 0);
    assert!(total.tables_removed > 0);
    assert!(total.l0_bytes_written > 0);
    assert!(total.compaction_bytes_written > total.l0_bytes_written);
    assert!(total.tombstone_compactions > 0);
    assert!(total.gets_from_disk > 0);
}
