//! The log and the tree together: crashes, full disks, long logs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::entry::LogId;
use crate::env::sim::{self, Rng, SimEnv, SimOptions, SimWorld, Stop};
use crate::log::RecordView;
use crate::row::{ReadAt, RowKeyBuf};

const DIR: &str = "shard";
const PARTITIONS: u64 = 4;
const KEYS: u64 = 60;

type Key = (PartitionId, u64);

fn options() -> EngineOptions {
    EngineOptions {
        log: LogOptions {
            segment_bytes: 64 << 10,
            first_fill_bytes: 64 << 10,
            group_bytes: 8 << 10,
            buffer_bytes_max: 64 << 10,
            segments_max: 8,
            segments_flush: 3,
            seal_after: Duration::from_millis(2),
            ..LogOptions::default()
        },
        tree: TreeOptions::tiny(),
        commits_alone: |_| true,
        membership_index: |_| 0,
    }
}

/// A shard in the small: proposes, waits, applies, and keeps a model of what it holds.
struct Shard {
    env: SimEnv,
    engine: Engine<SimEnv>,
    last: BTreeMap<PartitionId, u64>,
}

/// What is known outside the machine: for each key the index of its last acknowledged write, and of
/// writes not known to be done.
#[derive(Debug, Clone, Default)]
struct Known {
    acked: Rc<RefCell<BTreeMap<Key, u64>>>,
    doubtful: Rc<RefCell<BTreeMap<Key, Vec<u64>>>>,
}

/// Every fifth write of a partition deletes.
fn deletes(index: u64) -> bool {
    index.is_multiple_of(5)
}

fn value(partition: PartitionId, index: u64) -> Vec<u8> {
    let len = if index.is_multiple_of(23) { 6000 } else { 100 };
    let mut rng = Rng::new(u64::from(partition) << 32 | index);
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

impl Shard {
    async fn open(env: &SimEnv, options: EngineOptions) -> Result<Self> {
        let (engine, replicas) = Engine::open(env.clone(), Path::new(DIR), options).await?;
        for replica in &replicas {
            assert_eq!(replica.hard.commit, replica.last.index);
            assert_eq!(engine.tree().applied(replica.partition).id, replica.last);
        }
        let last = replicas
            .iter()
            .map(|replica| (replica.partition, replica.last.index));
        Ok(Self {
            env: env.clone(),
            last: last.collect(),
            engine,
        })
    }

    fn write(
        &mut self,
        partition: PartitionId,
        key: u64,
        known: &Known,
    ) -> Result<(), AppendError> {
        let last = self.last.entry(partition).or_default();
        let index = *last + 1;
        let head = EntryHead {
            partition,
            id: LogId { term: 1, index },
            time_ms: index,
            ..EntryHead::default()
        };
        let (key_bytes, value) = (key.to_be_bytes(), value(partition, index));
        let effect = if deletes(index) {
            Effect::Delete {
                keyspace: 0,
                key: &key_bytes,
            }
        } else {
            Effect::Put {
                keyspace: 0,
                key: &key_bytes,
                value: &value,
                expires_ms: 0,
                created_ms: 0,
            }
        };
        self.engine.append(&head, &[effect])?;
        *last = index;
        let mut doubtful = known.doubtful.borrow_mut();
        doubtful.entry((partition, key)).or_default().push(index);
        Ok(())
    }

    /// Applies what is durable and acknowledges it.
    fn take(&self, known: &Known) -> usize {
        let mut taken = 0;
        while let Some(group) = self.engine.take_durable() {
            for record in group.records() {
                let RecordView::Entry { head, effects } = record else {
                    continue;
                };
                self.engine.apply(&head, effects);
                taken += 1;
                for effect in effects {
                    let (Effect::Put { key, .. } | Effect::Delete { key, .. }) = effect else {
                        continue;
                    };
                    let number = u64::from_be_bytes(key.try_into().unwrap());
                    let key = (head.partition, number);
                    known.acked.borrow_mut().insert(key, head.id.index);
                    if let Some(doubtful) = known.doubtful.borrow_mut().get_mut(&key) {
                        doubtful.retain(|index| *index > head.id.index);
                    }
                }
            }
        }
        taken
    }

    /// Reads every key: each is as its last acknowledged write left it, or a doubtful one.
    async fn check(&self, known: &Known) {
        let mut row_key = RowKeyBuf::new();
        for partition in 0..PARTITIONS as PartitionId {
            for number in 0..KEYS {
                let key = (partition, number);
                let key_bytes = number.to_be_bytes();
                let row_key = row_key.set(partition, 0, &key_bytes);
                let row = self
                    .engine
                    .tree()
                    .get(row_key, ReadAt::newest(0))
                    .await
                    .unwrap();
                let acked = known.acked.borrow().get(&key).copied();
                let doubtful = known.doubtful.borrow().get(&key).cloned();
                let mut may_be: Vec<Option<u64>> = vec![acked];
                may_be.extend(doubtful.into_iter().flatten().map(Some));
                let matches = may_be.iter().any(|index| match (index, &row) {
                    (None, row) => row.is_none(),
                    (Some(index), None) => deletes(*index),
                    (Some(index), Some(row)) => {
                        !deletes(*index)
                            && row.meta.version == *index
                            && row.value == value(partition, *index)
                    }
                });
                let version = row.map(|row| row.meta.version);
                assert!(matches, "{key:?} is {version:?}, may be {may_be:?}");
            }
        }
    }
}

async fn life(env: SimEnv, known: Known, writes: u64) {
    let mut shard = Shard::open(&env, options()).await.unwrap();
    shard.check(&known).await;
    // What was found is durable; what was not found will never be.
    for (key, doubtful) in &mut *known.doubtful.borrow_mut() {
        let last = shard.last.get(&key.0).copied().unwrap_or(0);
        if let Some(index) = doubtful.iter().filter(|index| **index <= last).max() {
            known.acked.borrow_mut().insert(*key, *index);
        }
        doubtful.clear();
    }
    shard.check(&known).await;
    let mut rng = Rng::new(env.random());
    let mut done = 0;
    while done < writes {
        for _ in 0..=rng.below(5) {
            let (partition, key) = (rng.below(PARTITIONS) as PartitionId, rng.below(KEYS));
            match shard.write(partition, key, &known) {
                Ok(()) => done += 1,
                Err(AppendError::Full | AppendError::NoSpace) => break,
                Err(error) => panic!("{error}"),
            }
        }
        shard.engine.submit();
        if rng.one_in(3) || shard.engine.tree().pressure().stop {
            env.sleep(Duration::from_micros(rng.below(400))).await;
        } else {
            env.yield_now().await;
        }
        shard.take(&known);
        if let Some(failure) = shard.engine.failure() {
            panic!("{failure}");
        }
    }
    let engine = shard.engine.clone();
    engine.close().await.unwrap();
    shard.take(&known);
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_deleted_returns() {
    let seeds = std::env::var("RINGBOLT_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok());
    let (base, seeds) = (1, seeds.unwrap_or(40));
    let (mut crashes, mut whole) = (0, 0);
    for seed in base..base + seeds {
        let mut world = SimWorld::new(seed, SimOptions::default());
        let known = Known::default();
        let mut rng = Rng::new(seed ^ 0xc0ffee);
        for _ in 0..6 {
            let most = [300, 5000, 1_000_000][rng.index(3)];
            let steps = rng.between(1, most);
            let life_known = known.clone();
            let result = world.run(|env| async move {
                env.crash_after_steps(steps);
                life(env, life_known, 500).await;
            });
            match result {
                Ok(()) => whole += 1,
                Err(Stop::Crashed) => crashes += 1,
                Err(stop) => panic!("seed {seed}: {stop}"),
            }
            if rng.one_in(4) {
                world.kill();
            } else {
                world.crash();
            }
        }
        let last = known.clone();
        world
            .run(|env| async move { life(env, last, 5).await })
            .unwrap();
    }
    println!(
        "seeds {base}..{}: {crashes} crashes, {whole} whole lives",
        base + seeds
    );
    assert!(crashes > 0 && whole > 0);
}

#[test]
fn a_log_of_padding_asks_for_flushes_and_stays_short() {
    sim::run(7, SimOptions::default(), |env| async move {
        let known = Known::default();
        // A memtable so large that only the log's length asks for flushes.
        let mut roomy = options();
        roomy.tree.memory_bytes = 16 << 20;
        roomy.tree.memtable_bytes = 1 << 20;
        let mut shard = Shard::open(&env, roomy).await.unwrap();
        for i in 0..600 {
            // One write at a time: each takes a whole sector of the log.
            while shard.write(0, i % KEYS, &known).is_err() {
                env.sleep(Duration::from_millis(1)).await;
            }
            shard.engine.submit();
            while shard.take(&known) == 0 {
                env.sleep(Duration::from_micros(50)).await;
            }
        }
        let stats = shard.engine.stats();
        assert!(stats.flushes_for_log > 1, "{stats:?}");
        assert!(stats.log.segments_recycled > 10, "{stats:?}");
        assert!(stats.log.segments <= 8, "{stats:?}");
        shard.check(&known).await;
        shard.engine.close().await.unwrap();
        assert!(shard.engine.failure().is_none());
        let closed = shard.write(0, 0, &known);
        assert_eq!(closed, Err(AppendError::Failed));
        assert!(shard.env.store().used_bytes() < 4 << 20);
    });
}

#[test]
fn tables_without_their_log_are_refused() {
    let mut world = SimWorld::new(8, SimOptions::default());
    world
        .run(|env| async move {
            let known = Known::default();
            let mut shard = Shard::open(&env, options()).await.unwrap();
            shard.write(0, 1, &known).unwrap();
            shard.engine.submit();
            while shard.take(&known) == 0 {
                env.sleep(Duration::from_millis(1)).await;
            }
            shard.engine.tree().flush().await.unwrap();
            shard.engine.close().await.unwrap();
            use crate::env::Disk;
            for path in env.disk().list(&Path::new(DIR).join("log")).await.unwrap() {
                env.disk().remove(&path).await.unwrap();
            }
        })
        .unwrap();
    let error = world
        .run(|env| async move { Shard::open(&env, options()).await.err() })
        .unwrap();
    assert!(
        matches!(error, Some(EngineError::Corrupt { .. })),
        "{error:?}"
    );
}

#[test]
fn a_change_of_the_members_that_the_log_does_not_remember_is_not_replayed() {
    let of_three = || EngineOptions {
        commits_alone: |_| false,
        membership_index: |bytes| bytes.first().copied().map_or(0, u64::from),
        ..options()
    };
    for (remembered, applied) in [(None, 2), (Some(3), 5)] {
        let mut world = SimWorld::new(9, SimOptions::default());
        let written = world.run(|env| async move {
            let (engine, _) = Engine::open(env, Path::new(DIR), of_three()).await.unwrap();
            let hard = |commit| HardState {
                replica_id: 7,
                term: 1,
                vote: 0,
                commit,
            };
            engine.append_hard_state(1, hard(0)).unwrap();
            for index in 1..=5 {
                let head = EntryHead {
                    partition: 1,
                    id: LogId { term: 1, index },
                    ..EntryHead::default()
                };
                let change = [Effect::Membership { change: b"change" }];
                let effects = if index == 3 { &change[..] } else { &[] };
                engine.append(&head, effects).unwrap();
            }
            engine.append_hard_state(1, hard(5)).unwrap();
            if let Some(index) = remembered {
                engine.log().append_membership(1, &[index]).unwrap();
            }
            engine.close().await.unwrap();
        });
        assert_eq!(written, Ok(()));
        world.crash();
        let found = world.run(|env| async move {
            let opened = Engine::open(env, Path::new(DIR), of_three()).await;
            opened.unwrap().1.remove(0)
        });
        let found = found.unwrap();
        assert_eq!((found.applied.index, found.hard.commit), (applied, 5));
        let tail: Vec<u64> = found.tail.iter().map(|entry| entry.id.index).collect();
        assert_eq!(tail, (applied + 1..=5).collect::<Vec<_>>());
    }
}
