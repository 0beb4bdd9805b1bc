//! One life of a simulated process: recover, compare everything, then read and write until the
//! operations are done, the engine stops with a typed error, or the plug is pulled.

use std::cell::Cell;
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::engine::{Engine, EngineOptions};
use ringbolt_engine::entry::{Effect, LogId, PartitionId};
use ringbolt_engine::env::sim::{Rng, SimEnv};
use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::log::{AppendError, RecordView};
use ringbolt_engine::row::ReadAt;
use ringbolt_engine::tree::Snapshot;

use crate::check::{Checker, ScanRange};
use crate::model::{Key, ModelRow, OwnedEffect, OwnedEntry};
use crate::report::Stage;
use crate::shared::{Shared, StatsSeen};
use crate::signal::Signal;
use crate::workload;

/// The engine's directory on the simulated disk.
pub const DIR: &str = "data";

/// Reads under way at once.
const READERS_MAX: u32 = 4;
/// How long to wait when the engine asks to hold back or has no room.
const HOLD_BACK: Duration = Duration::from_millis(5);

/// What a life is to be like.
#[derive(Debug, Clone)]
pub struct LifePlan {
    /// Operations to do before it ends by itself.
    pub operations: u64,
    /// Whether it then closes the engine in good order.
    pub close: bool,
    /// Whether the plug is pulled while it closes: after so many polled tasks.
    pub crash_in_closing: Option<u64>,
    /// The engine's settings.
    pub options: EngineOptions,
}

/// How a life ended, if nothing pulled the plug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As planned.
    AsPlanned,
    /// The engine would not open, and said why.
    Refused,
    /// The engine stopped, and said why.
    Stopped,
    /// Something contradicts the model: [`Shared::violation`].
    Violated,
}

/// Lives one life.
pub async fn live(env: SimEnv, shared: Rc<Shared>, mut rng: Rng, plan: LifePlan) -> Ended {
    shared.stage.set(Stage::Opening);
    shared.stats_seen.take();
    let opened = Engine::open(env.clone(), Path::new(DIR), plan.options.clone()).await;
    let (engine, replicas) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            shared.error("open", &error);
            return match shared.violation() {
                Some(_) => Ended::Violated,
                None => Ended::Refused,
            };
        }
    };
    shared.count("openings", 1);
    shared.note_strays(env.store());
    for at in 0..usize::from(shared.profile.partitions) {
        let replica = replicas.iter().find(|r| usize::from(r.partition) == at);
        let last = replica.map_or(LogId::default(), |replica| replica.last);
        if let Err(what) = shared.recovered(at, last) {
            shared.violated(what);
            return Ended::Violated;
        }
        let time_ms = shared.partitions.borrow()[at].time_ms;
        if let Some(replica) = replica.filter(|r| r.time_ms != time_ms) {
            shared.violated(format!(
                "partition {at}: its time is {} ms, should be {time_ms} ms",
                replica.time_ms
            ));
            return Ended::Violated;
        }
        let applied = engine.tree().applied(at as PartitionId).id;
        if applied != last {
            shared.violated(format!(
                "partition {at}: the log ends at {last:?}, the tree at {applied:?}"
            ));
            return Ended::Violated;
        }
    }
    let progress = Rc::new(Signal::default());
    let hook = progress.clone();
    engine.on_progress(Rc::new(move || hook.notify()));
    let life = Life {
        checker: Checker {
            shared: shared.clone(),
            tree: engine.tree().clone(),
        },
        env: env.clone(),
        engine: engine.clone(),
        shared: shared.clone(),
        progress,
        order: Rc::default(),
        readers: Rc::default(),
        stopped: Rc::default(),
        taking: Rc::new(Cell::new(true)),
    };
    life.checker.everything(&mut rng).await;
    shared.stage.set(Stage::Serving);
    let taker = life.clone();
    env.spawn(TaskClass::Log, async move { taker.take().await });
    life.serve(&mut rng, plan.operations).await;
    life.settle().await;
    life.note_stats();
    if life.shared.violation().is_some() {
        return Ended::Violated;
    }
    if life.stopped.get() {
        return Ended::Stopped;
    }
    life.taking.set(false);
    life.progress.notify();
    if plan.close {
        shared.stage.set(Stage::Closing);
        if let Some(steps) = plan.crash_in_closing {
            env.crash_after_steps(steps);
        }
        let closed = engine.close().await;
        if shared.checked("close", closed).is_none() {
            return match shared.violation() {
                Some(_) => Ended::Violated,
                None => Ended::Stopped,
            };
        }
        shared.count("clean closings", 1);
    }
    Ended::AsPlanned
}

#[derive(Clone)]
struct Life {
    checker: Checker,
    env: SimEnv,
    engine: Engine<SimEnv>,
    shared: Rc<Shared>,
    progress: Rc<Signal>,
    /// The entries handed to the log, in that order, that it has not given back as durable.
    order: Rc<std::cell::RefCell<VecDeque<(PartitionId, u64)>>>,
    readers: Rc<Cell<u32>>,
    /// The engine has failed.
    stopped: Rc<Cell<bool>>,
    /// Whether the task that takes durable entries goes on.
    taking: Rc<Cell<bool>>,
}

/// A snapshot with what it should show.
struct Held {
    snapshot: Snapshot,
    partition: usize,
    rows: Vec<(Key, ModelRow)>,
}

impl Life {
    fn is_over(&self) -> bool {
        self.stopped.get() || self.shared.violation().is_some()
    }

    /// Looks whether the engine has failed.
    fn look_at_failure(&self) {
        if !self.stopped.get()
            && let Some(error) = self
                .engine
                .failure()
                .or_else(|| self.engine.tree().failure())
        {
            self.shared.error("engine", &error);
            self.stopped.set(true);
            self.progress.notify();
        }
    }

    /// Applies what becomes durable: that is the acknowledgement.
    async fn take(&self) {
        while self.taking.get() && !self.is_over() {
            let seen = self.progress.generation();
            while let Some(group) = self.engine.take_durable() {
                for record in group.records() {
                    let RecordView::Entry { head, effects } = record else {
                        continue;
                    };
                    let owned = OwnedEntry {
                        head,
                        effects: effects.filter_map(owned).collect(),
                    };
                    let at = usize::from(head.partition);
                    let expected = {
                        let partitions = self.shared.partitions.borrow();
                        partitions.get(at).and_then(|p| p.pending.front().cloned())
                    };
                    let next = self.order.borrow_mut().pop_front();
                    if next != Some((head.partition, head.id.index))
                        || expected.as_ref() != Some(&owned)
                    {
                        self.shared.violated(format!(
                            "durable: entry {:?} of partition {}, should be {next:?}",
                            head.id, head.partition
                        ));
                        return;
                    }
                    self.engine.apply(&head, effects);
                    self.shared.acknowledge(head.partition);
                    self.shared.count("entries acknowledged", 1);
                }
            }
            self.look_at_failure();
            self.progress.changed_since(seen).await;
        }
    }

    async fn serve(&self, rng: &mut Rng, operations: u64) {
        let end = self.shared.operations.get() + operations;
        let mut held: Option<Held> = None;
        let profile = self.shared.profile.clone();
        while self.shared.operations.get() < end && !self.is_over() {
            self.count_operation();
            if rng.one_in(profile.scan_one_in) {
                self.spawn_scan(rng).await;
            } else if rng.one_in(profile.flush_one_in) {
                self.flush(rng).await;
            } else if rng.one_in(profile.pause_one_in) {
                self.pause(rng).await;
            } else if rng.one_in(150) {
                held = self.snapshot(rng, held).await;
            } else if rng.percent(profile.read_percent) {
                self.read(rng).await;
            } else {
                self.write_turn(rng).await;
            }
            if rng.one_in(64) {
                self.note_stats();
            }
        }
    }

    fn count_operation(&self) {
        self.shared.operations.set(self.shared.operations.get() + 1);
        self.shared.count("operations", 1);
    }

    /// Appends a few entries and submits them together.
    async fn write_turn(&self, rng: &mut Rng) {
        let count = rng.between(1, self.shared.profile.turn_max);
        let mut left = count;
        while left > 0 && !self.is_over() {
            if self.engine.tree().pressure().stop {
                self.shared.count("times held back", 1);
                self.engine.submit();
                self.look_at_failure();
                self.env.sleep(HOLD_BACK).await;
                continue;
            }
            let at = rng.index(usize::from(self.shared.profile.partitions));
            let entry = {
                let partitions = self.shared.partitions.borrow();
                workload::entry(
                    rng,
                    &self.shared.profile,
                    &partitions[at],
                    self.env.wall_ms(),
                )
            };
            if !self.append(rng, at, entry).await {
                continue;
            }
            left -= 1;
            if left > 0 {
                self.count_operation();
            }
        }
        self.engine.submit();
        match rng.below(20) {
            0 => self.wait_durable().await,
            1..8 => self.env.yield_now().await,
            _ => {}
        }
    }

    /// Returns whether the entry was taken, or never will be.
    async fn append(&self, rng: &mut Rng, at: usize, entry: OwnedEntry) -> bool {
        let effects: Vec<Effect<'_>> = entry.effects.iter().map(OwnedEffect::borrowed).collect();
        let seen = self.progress.generation();
        match self.engine.append(&entry.head, &effects) {
            Ok(place) => {
                let same = rng.one_in(16).then(|| {
                    self.engine.with_pending(place, |head, effects| {
                        *head == entry.head
                            && effects.filter_map(owned).eq(entry.effects.iter().cloned())
                    })
                });
                if same.is_some_and(|same| same != Some(true)) {
                    self.shared.violated(format!(
                        "with_pending does not show entry {:?} of partition {at} as appended",
                        entry.head.id
                    ));
                }
                let id = (entry.head.partition, entry.head.id.index);
                self.order.borrow_mut().push_back(id);
                let mut partitions = self.shared.partitions.borrow_mut();
                partitions[at].time_proposed_ms = entry.head.time_ms;
                partitions[at].pending.push_back(entry);
                true
            }
            Err(AppendError::Full) => {
                self.shared.count("times the log was full", 1);
                self.engine.submit();
                self.progress.changed_since(seen).await;
                false
            }
            Err(AppendError::NoSpace) => {
                if !self.shared.errors_allowed.get() {
                    let what = "append: no space although there is room".to_owned();
                    self.shared.violated(what);
                }
                self.shared.count("times the disk was full", 1);
                self.engine.submit();
                self.env.sleep(HOLD_BACK).await;
                false
            }
            Err(AppendError::TooLarge) => {
                self.shared.count("entries too large", 1);
                true
            }
            Err(AppendError::Gap) => {
                let id = entry.head.id;
                self.shared
                    .violated(format!("append: {id:?} is said to leave a gap"));
                true
            }
            Err(AppendError::Failed) => {
                self.look_at_failure();
                if !self.stopped.get() {
                    let what = "append: stopped, but there is no failure".to_owned();
                    self.shared.violated(what);
                }
                true
            }
        }
    }

    /// Waits until everything appended so far is acknowledged.
    async fn wait_durable(&self) {
        loop {
            let seen = self.progress.generation();
            if self.is_over() || self.order.borrow().is_empty() {
                return;
            }
            self.engine.submit();
            self.progress.changed_since(seen).await;
        }
    }

    /// A get or stat, waited for or beside what follows.
    async fn read(&self, rng: &mut Rng) {
        let partition = rng.index(usize::from(self.shared.profile.partitions));
        let key = workload::key(rng, &self.shared.profile);
        let time_ms = self.checker.read_time(rng, partition);
        let stat = rng.one_in(6);
        let checker = self.checker.clone();
        let read = async move {
            match stat {
                true => checker.stat(partition, &key, time_ms).await,
                false => checker.get(partition, &key, time_ms).await,
            }
        };
        self.beside(rng, read).await;
    }

    async fn spawn_scan(&self, rng: &mut Rng) {
        let partition = rng.index(usize::from(self.shared.profile.partitions));
        let range = ScanRange::draw(rng, &self.shared.profile);
        let reverse = rng.one_in(2);
        let limit = match rng.one_in(3) {
            true => usize::MAX,
            false => rng.between(1, 50) as usize,
        };
        let checker = self.checker.clone();
        let scan = async move { checker.scan(partition, range, reverse, limit).await };
        self.beside(rng, scan).await;
    }

    /// Runs a read here, or in a task of its own if there are not too many.
    async fn beside(&self, rng: &mut Rng, read: impl Future<Output = ()> + 'static) {
        if rng.one_in(2) || self.readers.get() >= READERS_MAX {
            read.await;
            return;
        }
        let (readers, progress) = (self.readers.clone(), self.progress.clone());
        readers.set(readers.get() + 1);
        self.env.spawn(TaskClass::Foreground, async move {
            read.await;
            readers.set(readers.get() - 1);
            progress.notify();
        });
    }

    async fn flush(&self, rng: &mut Rng) {
        self.shared.count("flushes asked for", 1);
        let (tree, shared) = (self.engine.tree().clone(), self.shared.clone());
        let flush = async move {
            let flushed = tree.flush().await;
            shared.checked("flush", flushed);
        };
        self.beside(rng, flush).await;
    }

    /// Lets time pass: for background work, for expiry.
    async fn pause(&self, rng: &mut Rng) {
        let us = [rng.below(300), rng.below(30_000), rng.below(20_000_000)][rng.index(3)];
        self.env.sleep(Duration::from_micros(us)).await;
    }

    /// Takes a snapshot, or reads at the one held and gives it up.
    async fn snapshot(&self, rng: &mut Rng, held: Option<Held>) -> Option<Held> {
        let Some(held) = held else {
            let partition = rng.index(usize::from(self.shared.profile.partitions));
            let snapshot = self.engine.tree().snapshot(partition as PartitionId);
            let partitions = self.shared.partitions.borrow();
            let model = &partitions[partition];
            let rows = model.rows.iter();
            let rows = rows
                .filter(|(_, row)| row.lives_at(model.time_ms))
                .map(|(key, row)| (key.clone(), row.clone()))
                .collect();
            return Some(Held {
                snapshot,
                partition,
                rows,
            });
        };
        let at: ReadAt = held.snapshot.at();
        for _ in 0..10 {
            let key = workload::key(rng, &self.shared.profile);
            let row = held.rows.iter().find(|(k, _)| *k == key);
            let row = row.map(|(_, row)| row.clone());
            self.checker.get_at(held.partition, &key, at, row).await;
        }
        let reverse = rng.one_in(2);
        let rows = held.rows.clone();
        self.checker
            .scan_at(
                held.partition,
                ScanRange::Partition,
                reverse,
                usize::MAX,
                at,
                rows,
            )
            .await;
        None
    }

    /// Waits for everything that was begun.
    async fn settle(&self) {
        self.wait_durable().await;
        loop {
            let seen = self.progress.generation();
            if self.readers.get() == 0 || self.shared.violation().is_some() {
                return;
            }
            self.progress.changed_since(seen).await;
        }
    }

    /// Adds what the engine has counted since the last time.
    fn note_stats(&self) {
        let tree = self.engine.tree().stats();
        let log = self.engine.stats();
        self.shared.note_stats(StatsSeen {
            flushes: tree.flushes,
            compactions: tree.compactions,
            l0_bytes: tree.l0_bytes_written,
            deeper_bytes: tree
                .compaction_bytes_written
                .saturating_sub(tree.l0_bytes_written + tree.intra_l0_bytes_written),
            moved: tree.tables_moved,
            dropped: tree.tables_dropped,
            recycled: log.log.segments_recycled,
        });
    }
}

/// An effect on rows, to be kept; `None` for one that concerns the group.
fn owned(effect: Effect<'_>) -> Option<OwnedEffect> {
    Some(match effect {
        Effect::Put {
            keyspace,
            key,
            value,
            expires_ms,
            created_ms,
        } => OwnedEffect::Put {
            key: (keyspace, key.to_vec()),
            value: value.into(),
            expires_ms,
            created_ms,
        },
        Effect::Delete { keyspace, key } => OwnedEffect::Delete {
            key: (keyspace, key.to_vec()),
        },
        Effect::DeleteRange { keyspace, from, to } => OwnedEffect::DeleteRange {
            keyspace,
            from: from.to_vec(),
            to: to.to_vec(),
        },
        Effect::Outcome { outcome } => OwnedEffect::Outcome(outcome.to_vec()),
        Effect::Membership { .. } => return None,
    })
}
