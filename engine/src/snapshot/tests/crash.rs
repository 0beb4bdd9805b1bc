//! Power cuts and kills around installs and drops: a partition is always as some entry left it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::super::*;
use crate::engine::{Engine, EngineOptions};
use crate::entry::KeyspaceId;
use crate::env::Env;
use crate::env::sim::{self, IoMatch, Rng, SimEnv, SimOptions, SimWorld, Stop};
use crate::log::{AppendError, HardState, LogOptions};
use crate::row::{ReadAt, keyspace_range, partition_range};
use crate::tree::TreeOptions;
use crate::tree::tests::model::{Entry, Model};
use crate::tree::tests::walk::{Walk, first_seed};

const PARTITIONS: PartitionId = 3;
const OWN_KEYSPACE: KeyspaceId = KeyspaceId::MAX;

/// What was once written elsewhere: every partition's entries, and snapshots of some moments.
struct History {
    entries: BTreeMap<PartitionId, Vec<Entry>>,
    snapshots: Vec<(SnapshotId, Vec<Vec<u8>>)>,
}

impl History {
    /// Writes `writes` entries and takes a snapshot of a random partition at every `every`-th.
    fn new(seed: u64, writes: u64, every: u64) -> Self {
        sim::run(seed, SimOptions::default(), move |env| async move {
            let mut options = TreeOptions::tiny();
            options.memory_bytes = 8 << 20;
            options.own_keyspace = Some(OWN_KEYSPACE);
            options.memtable_bytes = 1 << 20;
            let mut walk = Walk::new(env.clone(), seed, 150, options).await;
            let mut snapshots = Vec::new();
            for n in 1..=writes {
                walk.write();
                if n % every == 0 {
                    let partition = walk.rng.below(PARTITIONS.into()) as PartitionId;
                    let far = env.now() + Duration::from_secs(60);
                    let mut export = walk.tree.export(partition, far);
                    let mut chunks = Vec::new();
                    let mut after = Vec::new();
                    loop {
                        let chunk = export.chunk(&after).await.expect("reads");
                        chunks.push(chunk.bytes);
                        after = chunk.last_key;
                        if chunk.is_last {
                            break;
                        }
                    }
                    snapshots.push((export.of(), chunks));
                }
            }
            walk.tree.close().await.expect("closes");
            let mut entries: BTreeMap<PartitionId, Vec<Entry>> = BTreeMap::new();
            for entry in walk.entries.take() {
                let partition = entry.head.partition;
                entries.entry(partition).or_default().push(entry);
            }
            Self { entries, snapshots }
        })
    }

    /// What a partition shows after its entry `index`.
    fn at(&self, partition: PartitionId, index: u64) -> Model {
        let mut model = Model::default();
        for entry in self.entries[&partition].iter().take(index as usize) {
            model.apply(entry);
            model.times.insert(partition, entry.head.time_ms);
        }
        model
    }

    fn entry(&self, partition: PartitionId, index: u64) -> Option<&Entry> {
        self.entries[&partition].get(index as usize - 1)
    }
}

/// What is known of a partition outside the machine.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// It is at least at this entry.
    index: u64,
    /// It may have been dropped.
    may_be_gone: bool,
}

type KnownAll = Rc<RefCell<BTreeMap<PartitionId, Known>>>;

fn options() -> EngineOptions {
    EngineOptions {
        log: LogOptions {
            segment_bytes: 64 << 10,
            first_fill_bytes: 64 << 10,
            group_bytes: 8 << 10,
            buffer_bytes_max: 64 << 10,
            segments_max: 8,
            segments_flush: 2,
            seal_after: Duration::from_millis(2),
            ..LogOptions::default()
        },
        tree: TreeOptions {
            own_keyspace: Some(OWN_KEYSPACE),
            ..TreeOptions::tiny()
        },
        ..EngineOptions::default()
    }
}

struct Shard {
    env: SimEnv,
    engine: Engine<SimEnv>,
    history: Rc<History>,
    known: KnownAll,
    rng: Rng,
    /// Being exchanged: to be left alone.
    busy: Rc<RefCell<Vec<PartitionId>>>,
}

impl Shard {
    /// Opens the shard, and checks that every partition is as one entry left it.
    async fn open(env: SimEnv, history: &Rc<History>, known: &KnownAll) -> Self {
        let opened = Engine::open(env.clone(), Path::new("shard"), options()).await;
        let (engine, replicas) = opened.expect("opens");
        let shard = Self {
            rng: Rng::new(env.random()),
            env,
            engine,
            history: Rc::clone(history),
            known: Rc::clone(known),
            busy: Rc::default(),
        };
        for partition in 0..PARTITIONS {
            let replica = replicas.iter().find(|r| r.partition == partition);
            let applied = shard.engine.tree().applied(partition);
            let before = shard.known.borrow().get(&partition).copied();
            let before = before.unwrap_or_default();
            let index = applied.id.index;
            assert!(
                index >= before.index || (before.may_be_gone && index == 0),
                "partition {partition} is at {index}: {before:?}"
            );
            assert_eq!(replica.map_or(0, |r| r.last.index), index);
            if index == 0 && before.index > 0 {
                assert_eq!(replica, None, "gone from the tree, not from the log");
            }
            shard.know(partition, index);
            shard.check(partition).await;
        }
        assert!(shard.engine.tree().pending().await.is_empty());
        shard
    }

    fn know(&self, partition: PartitionId, index: u64) {
        let known = Known {
            index,
            may_be_gone: false,
        };
        self.known.borrow_mut().insert(partition, known);
    }

    /// The partition shows what its entries up to the applied one made of it, and nothing else.
    async fn check(&self, partition: PartitionId) {
        let tree = self.engine.tree();
        let applied = tree.applied(partition);
        let model = self.history.at(partition, applied.id.index);
        assert_eq!(applied.time_ms, model.time(partition));
        let entries = self.history.entries[&partition].iter();
        let numbered = entries
            .take(applied.id.index as usize)
            .filter_map(|entry| Some((entry.head.write_id()?, entry.head.id, &[][..])));
        assert!(
            tree.writers(partition).results().into_iter().eq(numbered),
            "what became of writes of partition {partition} at {applied:?}"
        );
        let (from, _) = partition_range(partition);
        let (to, _) = keyspace_range(partition, OWN_KEYSPACE, b"", b"");
        let at = ReadAt::newest(applied.time_ms);
        let reverse = applied.id.index.is_multiple_of(2);
        let mut cursor = tree.cursor(&from, &to, reverse, at);
        let mut rows = Vec::new();
        while let Some((key, meta, value)) = cursor.next().await.expect("scans") {
            rows.push((key.to_vec(), meta.version, value.to_vec()));
        }
        if reverse {
            rows.reverse();
        }
        let expected: Vec<_> = model
            .rows
            .iter()
            .filter(|(_, row)| !row.meta.expired_at(at.time_ms))
            .map(|(key, row)| (key.clone(), row.meta.version, row.value.clone()))
            .collect();
        assert!(
            rows == expected,
            "partition {partition} at {applied:?} has {} rows of {}",
            rows.len(),
            expected.len()
        );
        let newest = self.history.at(partition, u64::MAX);
        for key in newest.rows.keys() {
            let found = tree.get(key, at).await.expect("reads");
            let expected = model.live(key, at.time_ms);
            assert_eq!(
                found.map(|row| (row.meta.version, row.value)),
                expected.map(|row| (row.meta.version, row.value.clone())),
                "row {key:?} at {applied:?}"
            );
        }
    }

    /// Logs the next entry of a partition; whether there was room.
    fn append(&self, partition: PartitionId, index: u64) -> bool {
        let Some(entry) = self.history.entry(partition, index) else {
            return true;
        };
        if index == 1 {
            let hard = HardState {
                replica_id: 7,
                term: 1,
                ..HardState::default()
            };
            if self.engine.append_hard_state(partition, hard).is_err() {
                return false;
            }
        }
        let effects: Vec<_> = entry.effects().collect();
        match self.engine.append(&entry.head, &effects) {
            Ok(_) => true,
            Err(AppendError::Full | AppendError::NoSpace) => false,
            Err(e) => panic!("{e}"),
        }
    }

    /// Applies what is durable.
    fn take(&self) {
        while let Some(group) = self.engine.take_durable() {
            for record in group.records() {
                if let crate::log::RecordView::Entry { head, effects } = record {
                    self.engine.apply(&head, effects);
                    self.know(head.partition, head.id.index);
                }
            }
        }
    }

    /// Writes a few entries of partitions that are not being exchanged, and applies them.
    async fn write(&mut self) {
        for _ in 0..=self.rng.below(6) {
            let partition = self.rng.below(PARTITIONS.into()) as PartitionId;
            if self.busy.borrow().contains(&partition) {
                continue;
            }
            let index = self.known.borrow()[&partition].index + 1;
            if !self.append(partition, index) {
                // Only time makes room.
                self.env.sleep(Duration::from_millis(1)).await;
                break;
            }
            self.engine.submit();
            while self.history.entry(partition, index).is_some()
                && self.engine.tree().applied(partition).id.index < index
            {
                self.take();
                self.env.sleep(Duration::from_micros(50)).await;
            }
        }
        self.take();
        if self.engine.tree().pressure().stop {
            self.env.sleep(Duration::from_millis(20)).await;
        }
    }

    /// A snapshot that is ahead of what the partition has.
    fn snapshot_ahead(&mut self) -> Option<usize> {
        let at = self.rng.index(self.history.snapshots.len());
        let (of, _) = &self.history.snapshots[at];
        let index = self.known.borrow()[&of.partition].index;
        let is_free = !self.busy.borrow().contains(&of.partition);
        (is_free && of.id.index > index).then_some(at)
    }

    async fn stage(&self, at: usize) -> Staged<SimEnv> {
        let (of, chunks) = &self.history.snapshots[at];
        let mut stage = self.engine.tree().stage(*of);
        for chunk in chunks {
            stage.accept(chunk).await.expect("takes");
        }
        stage.finish().await.expect("finishes")
    }

    /// Exchanges a partition while the others are written to.
    async fn exchange(&mut self, partition: PartitionId, at: Option<usize>) {
        let staged = match at {
            Some(at) => Some(self.stage(at).await),
            None => None,
        };
        // What is under way of it ends first.
        self.take();
        self.busy.borrow_mut().push(partition);
        if at.is_none() {
            let mut known = self.known.borrow_mut();
            known.entry(partition).or_default().may_be_gone = true;
        }
        let done = Rc::new(std::cell::Cell::new(false));
        let (engine, told) = (self.engine.clone(), Rc::clone(&done));
        self.env
            .spawn(crate::env::TaskClass::Foreground, async move {
                let result = match staged {
                    Some(staged) => engine.install(staged, b"members").await,
                    None => engine.drop_partition(partition).await,
                };
                result.expect("is exchanged");
                told.set(true);
            });
        while !done.get() {
            self.write().await;
            self.env.sleep(Duration::from_micros(100)).await;
        }
        self.busy.borrow_mut().retain(|busy| *busy != partition);
        let index = at.map_or(0, |at| self.history.snapshots[at].0.id.index);
        self.know(partition, index);
        assert_eq!(self.engine.tree().applied(partition).id.index, index);
        assert_eq!(self.engine.tree().flushed(partition).id.index, index);
    }

    async fn step(&mut self) {
        match self.rng.below(100) {
            0..70 => self.write().await,
            70..78 => {
                if let Some(at) = self.snapshot_ahead() {
                    let partition = self.history.snapshots[at].0.partition;
                    self.exchange(partition, Some(at)).await;
                    self.check(partition).await;
                }
            }
            78..80 => {
                let partition = self.rng.below(PARTITIONS.into()) as PartitionId;
                self.exchange(partition, None).await;
                self.check(partition).await;
            }
            80..84 => {
                if let Some(at) = self.snapshot_ahead() {
                    let (of, chunks) = &self.history.snapshots[at];
                    let mut stage = self.engine.tree().stage(*of);
                    for chunk in chunks.iter().take(3) {
                        stage.accept(chunk).await.expect("takes");
                    }
                }
            }
            84..90 => self.engine.tree().flush().await.expect("flushes"),
            90..95 => {
                let partition = self.rng.below(PARTITIONS.into()) as PartitionId;
                self.check(partition).await;
            }
            _ => {
                let us = self.rng.below(5000);
                self.env.sleep(Duration::from_micros(us)).await;
            }
        }
    }
}

async fn live(env: SimEnv, history: Rc<History>, known: KnownAll, steps: u64) -> (u64, u64) {
    let mut shard = Shard::open(env, &history, &known).await;
    for _ in 0..steps {
        shard.step().await;
        assert!(shard.engine.failure().is_none());
    }
    for partition in 0..PARTITIONS {
        shard.check(partition).await;
    }
    shard.engine.close().await.expect("closes");
    shard.take();
    let stats = shard.engine.tree().stats();
    (stats.exchanges, stats.jobs_void)
}

#[test]
fn partitions_are_exchanged_whole_or_not_at_all_over_crashes() {
    let first = first_seed();
    let seeds = std::env::var("RINGBOLT_SEEDS").ok();
    let seeds: u64 = seeds.and_then(|n| n.parse().ok()).unwrap_or(12);
    let (mut crashes, mut exchanges, mut void) = (0, 0, 0);
    for seed in first..first + seeds {
        println!("world of seed {seed}");
        let history = Rc::new(History::new(seed, 1500, 60));
        let known = KnownAll::default();
        let mut world = SimWorld::new(seed, SimOptions::default());
        let mut rng = Rng::new(seed ^ 0x5eed);
        for life in 0..7 {
            let last = life == 6;
            let (history, known) = (Rc::clone(&history), Rc::clone(&known));
            let most = [500, 10_000, 100_000][rng.index(3)];
            let steps = rng.between(1, most);
            let ended = world.run(|env| async move {
                if !last {
                    env.crash_after_steps(steps);
                }
                live(env, history, known, 150).await
            });
            match ended {
                Ok((done, redone)) => {
                    exchanges += done;
                    void += redone;
                }
                Err(Stop::Crashed) => crashes += 1,
                Err(stop) => panic!("{stop}"),
            }
            match rng.below(3) {
                0 => world.kill(),
                _ => world.crash(),
            }
        }
    }
    println!("{crashes} crashes, {exchanges} exchanges, {void} jobs void");
    assert!(crashes > 2 * seeds && exchanges > 4 * seeds && void > 0);
}

/// Crashes while one disk operation of an exchange after the other is under way, until it is through
/// before the crash.
fn crash_at_every_operation(seed: u64, drops: bool) {
    let history = Rc::new(History::new(seed, 400, 100));
    let at = history.snapshots.len() - 1;
    let of = history.snapshots[at].0;
    let partition = of.partition;
    let target = if drops { 0 } else { of.id.index };
    let (mut old, mut new) = (0, 0);
    for nth in 1.. {
        let mut ended = Ok(());
        for cuts_power in [false, true] {
            let known = KnownAll::default();
            let mut world = SimWorld::new(seed, SimOptions::default());
            let (h, k) = (Rc::clone(&history), Rc::clone(&known));
            ended = world.run(|env| async move {
                let mut shard = Shard::open(env.clone(), &h, &k).await;
                while shard.known.borrow()[&partition].index < 20 {
                    shard.write().await;
                }
                shard.engine.tree().flush().await.expect("flushes");
                shard.write().await;
                env.store().crash_at_io(IoMatch::default(), nth);
                if drops {
                    k.borrow_mut().entry(partition).or_default().may_be_gone = true;
                    shard.engine.drop_partition(partition).await
                } else {
                    let staged = shard.stage(at).await;
                    shard.engine.install(staged, b"members").await
                }
                .expect("is exchanged");
            });
            match cuts_power {
                false => world.kill(),
                true => world.crash(),
            }
            let (h, k) = (Rc::clone(&history), Rc::clone(&known));
            let index = world.run(|env| async move {
                let shard = Shard::open(env, &h, &k).await;
                let index = shard.engine.tree().applied(partition).id.index;
                shard.engine.close().await.expect("closes");
                index
            });
            match index.expect("runs") == target {
                true => new += 1,
                false => old += 1,
            }
        }
        match ended {
            Ok(()) => break,
            Err(Stop::Crashed) => {}
            Err(stop) => panic!("{stop}"),
        }
    }
    println!("seed {seed}: {old} times the old, {new} times the new");
    assert!(old > 8 && new > 8, "{old} {new}");
}

#[test]
fn a_crash_at_any_operation_of_an_install_leaves_the_old_or_the_new() {
    crash_at_every_operation(first_seed(), false);
}

#[test]
fn a_crash_at_any_operation_of_a_drop_leaves_all_or_nothing() {
    crash_at_every_operation(first_seed(), true);
}
