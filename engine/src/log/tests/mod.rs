//! The log on a simulated disk.

mod basics;
mod carry;
mod crash;
mod damage;
mod limits;
mod read;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::*;
use crate::entry::{Effect, EntryHead, LogId, PartitionId};
use crate::env::Env;
use crate::env::sim::{Rng, SimEnv};
use crate::error::EngineError;

pub(super) const DIR: &str = "log";

/// Small enough that a few hundred records fill several segments.
pub(super) fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        first_fill_bytes: 64 << 10,
        group_bytes: 8 << 10,
        buffer_bytes_max: 64 << 10,
        segments_max: 8,
        segments_flush: 3,
        seal_after: Duration::from_millis(2),
        ..LogOptions::default()
    }
}

/// The value of an entry, which tells it from every other one.
pub(super) fn value(partition: PartitionId, index: u64, salt: u64) -> Vec<u8> {
    let seed = u64::from(partition) << 48 ^ index << 8 ^ salt;
    let mut rng = Rng::new(seed);
    let len = match index % 17 {
        0 => 5000,
        1 => 0,
        n => n as usize * 20,
    };
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

pub(super) fn head(partition: PartitionId, index: u64) -> EntryHead {
    EntryHead {
        partition,
        id: LogId { term: 1, index },
        client: index % 3,
        sequence: index,
        time_ms: 1000 + index,
    }
}

/// What the entry at `index` does, with its key and value.
pub(super) fn effects_of<'a>(index: u64, key: &'a [u8], value: &'a [u8]) -> [Effect<'a>; 2] {
    [
        Effect::Put {
            keyspace: 7,
            key,
            value,
            expires_ms: index % 2 * 99,
            created_ms: index % 5,
        },
        Effect::Delete {
            keyspace: 7,
            key: b"gone",
        },
    ]
}

/// Appends the entry that belongs to (partition, index).
pub(super) fn append<E: Env>(
    log: &Log<E>,
    partition: PartitionId,
    index: u64,
) -> Result<RecordRef, AppendError> {
    let (key, value) = (index.to_be_bytes(), value(partition, index, 0));
    log.append(&head(partition, index), &effects_of(index, &key, &value))
}

/// Panics unless this is what [`append`] wrote.
pub(super) fn check_entry(got: &EntryHead, effects: Effects<'_>) {
    let (partition, index) = (got.partition, got.id.index);
    assert_eq!(*got, head(partition, index));
    let (key, value) = (index.to_be_bytes(), value(partition, index, 0));
    assert!(
        effects.eq(effects_of(index, &key, &value)),
        "entry ({partition}, {index}) differs"
    );
}

/// What would be in tables: survives every crash.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables(Rc<RefCell<BTreeMap<PartitionId, LogId>>>);

impl Tables {
    pub(super) fn flushed(&self) -> impl Fn(PartitionId) -> LogId + use<> {
        let map = Rc::clone(&self.0);
        move |partition| map.borrow().get(&partition).copied().unwrap_or_default()
    }

    pub(super) fn flush(&self, partition: PartitionId, index: u64) {
        if index > 0 {
            let id = LogId { term: 1, index };
            self.0.borrow_mut().insert(partition, id);
        }
    }
}

/// A log opened again: what was replayed is checked and listed by partition.
pub(super) struct Opened {
    pub(super) log: Log<SimEnv>,
    pub(super) replicas: Vec<RecoveredReplica>,
    /// Highest index in the log or in tables, by partition.
    pub(super) last: BTreeMap<PartitionId, u64>,
    pub(super) replayed: u64,
}

/// Opens the log and checks that what it gives follows on what is in tables without a hole.
pub(super) async fn open(
    env: &SimEnv,
    options: LogOptions,
    tables: &Tables,
) -> Result<Opened, EngineError> {
    let flushed = tables.flushed();
    let mut recovery = Recovery::scan(
        env.clone(),
        Path::new(DIR),
        options,
        |_| true,
        |_| 0,
        &flushed,
    )
    .await?;
    let mut last: BTreeMap<PartitionId, u64> = BTreeMap::new();
    let mut replayed = 0;
    while let Some(group) = recovery.next_group().await? {
        for ReplayedEntry { head, effects, .. } in group.entries() {
            check_entry(&head, effects);
            let index = last
                .entry(head.partition)
                .or_insert_with(|| flushed(head.partition).index);
            assert_eq!(head.id.index, *index + 1, "partition {}", head.partition);
            *index = head.id.index;
            replayed += 1;
        }
    }
    let (log, replicas) = recovery.finish().await?;
    for replica in &replicas {
        let known = last
            .entry(replica.partition)
            .or_insert_with(|| flushed(replica.partition).index);
        assert_eq!(
            replica.last.index, *known,
            "partition {}",
            replica.partition
        );
    }
    Ok(Opened {
        log,
        replicas,
        last,
        replayed,
    })
}

/// Waits until the log has news.
pub(super) async fn progress<E: Env>(log: &Log<E>, env: &E) {
    let waker: Rc<RefCell<Option<Waker>>> = Rc::default();
    let fired = Rc::new(std::cell::Cell::new(false));
    let (hook_waker, hook_fired) = (Rc::clone(&waker), Rc::clone(&fired));
    log.on_progress(Rc::new(move || {
        hook_fired.set(true);
        if let Some(waker) = hook_waker.take() {
            waker.wake();
        }
    }));
    // Progress may have been made before the hook was there.
    let timer = env.clone();
    let (timer_waker, timer_fired) = (Rc::clone(&waker), Rc::clone(&fired));
    env.spawn(crate::env::TaskClass::Log, async move {
        timer.sleep(Duration::from_millis(5)).await;
        timer_fired.set(true);
        if let Some(waker) = timer_waker.take() {
            waker.wake();
        }
    });
    std::future::poll_fn(|context| {
        if fired.get() {
            return Poll::Ready(());
        }
        *waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Takes every group that is durable, checks it, and notes how far each partition got.
pub(super) fn take_all<E: Env>(log: &Log<E>, acked: &mut BTreeMap<PartitionId, u64>) -> usize {
    let mut groups = 0;
    while let Some(group) = log.take_durable() {
        groups += 1;
        assert_eq!(group.records().count(), group.len());
        for record in group.records() {
            if let RecordView::Entry { head, effects } = record {
                check_entry(&head, effects);
                acked.insert(head.partition, head.id.index);
            }
        }
    }
    groups
}

/// Submits and waits until all is durable; what is durable is taken.
pub(super) async fn settle<E: Env>(
    log: &Log<E>,
    env: &E,
    acked: &mut BTreeMap<PartitionId, u64>,
    until: (PartitionId, u64),
) -> Result<(), EngineError> {
    loop {
        log.submit();
        take_all(log, acked);
        if acked.get(&until.0).is_some_and(|index| *index >= until.1) {
            return Ok(());
        }
        if let Some(failure) = log.failure() {
            return Err(failure);
        }
        progress(log, env).await;
    }
}
