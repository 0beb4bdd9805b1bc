//! What outlives a simulated process: the model, the counts, and what went wrong.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ringbolt_engine::entry::PartitionId;
use ringbolt_engine::env::sim::{SimStore, Stray};
use ringbolt_engine::error::EngineError;

use crate::model::{Key, OwnedEffect, OwnedEntry, Partition};
use crate::report::{Stage, Tally};
use crate::workload::Profile;

/// What an engine had counted when it was last looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct StatsSeen {
    /// Memtables flushed.
    pub flushes: u64,
    /// Compactions finished.
    pub compactions: u64,
    /// Bytes compacted from level 0 into the base level.
    pub l0_bytes: u64,
    /// Bytes compacted below that.
    pub deeper_bytes: u64,
    /// Tables moved without being rewritten.
    pub moved: u64,
    /// Tables dropped unread.
    pub dropped: u64,
    /// Segments of the log given back.
    pub recycled: u64,
}

/// The state of one seed's run, on the tester's side.
pub struct Shared {
    /// The seed.
    pub seed: u64,
    /// What its operations look like.
    pub profile: Profile,
    /// What the engine should hold.
    pub partitions: RefCell<Vec<Partition>>,
    /// Every acknowledged entry, by partition, for going back when damage to the log costs some.
    pub history: RefCell<Vec<Vec<OwnedEntry>>>,
    /// Counts.
    pub tally: RefCell<Tally>,
    /// What the process is at.
    pub stage: Cell<Stage>,
    /// Operations done so far.
    pub operations: Cell<u64>,
    /// Whether faults may have been injected since the last healing: then typed errors are in order.
    pub errors_allowed: Cell<bool>,
    /// Whether the log itself was damaged behind the engine's back: then its unsealed end may be
    /// taken for a torn tail, and acknowledged entries may be gone from there.
    pub log_damaged: Cell<bool>,
    /// How many of the disk's misdirected writes are behind a life that closed in good order.
    strays_settled: Cell<usize>,
    /// What this life's engine had counted when it was last looked at.
    pub stats_seen: Cell<StatsSeen>,
    /// The first contradiction between engine and model.
    violation: RefCell<Option<String>>,
}

impl Shared {
    /// A fresh run: nothing written.
    #[must_use]
    pub fn new(seed: u64, profile: Profile) -> Rc<Self> {
        let partitions = (0..profile.partitions).map(Partition::new).collect();
        let history = (0..profile.partitions).map(|_| Vec::new()).collect();
        Rc::new(Self {
            seed,
            profile,
            partitions: RefCell::new(partitions),
            history: RefCell::new(history),
            tally: RefCell::default(),
            stage: Cell::new(Stage::Opening),
            operations: Cell::new(0),
            errors_allowed: Cell::new(false),
            log_damaged: Cell::new(false),
            strays_settled: Cell::new(0),
            stats_seen: Cell::default(),
            violation: RefCell::default(),
        })
    }

    /// Notes a contradiction; the first one counts.
    pub fn violated(&self, what: String) {
        self.violation.borrow_mut().get_or_insert(what);
    }

    /// The first contradiction.
    #[must_use]
    pub fn violation(&self) -> Option<String> {
        self.violation.borrow().clone()
    }

    /// Looks whether a misdirected write hit the log, whatever it was meant for. It may have been one
    /// of this life: the tree, which writes too, is opened before the log (seed 8030).
    pub fn note_strays(&self, store: &SimStore) {
        let strays = store.strays();
        let hits_log = |stray: &Stray| {
            !stray.sectors.is_empty() && stray.path.extension().is_some_and(|kind| kind == "seg")
        };
        if strays.iter().skip(self.strays_settled.get()).any(hits_log) {
            self.log_damaged.set(true);
        }
    }

    /// The log was healed, opened and closed: what befell it before no longer counts.
    pub fn log_is_whole(&self, store: &SimStore) {
        self.log_damaged.set(false);
        self.strays_settled.set(store.strays().len());
    }

    /// Takes a result of the engine: an error is counted if faults were injected, else it is a
    /// contradiction.
    pub fn checked<T>(&self, what: &str, result: Result<T, EngineError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(what, &error);
                None
            }
        }
    }

    /// Counts a typed error, or notes that there was no reason for it.
    pub fn error(&self, what: &str, error: &EngineError) {
        if self.errors_allowed.get() {
            let kind = kind(error);
            self.tally.borrow_mut().error(format!("{what}: {kind}"));
        } else {
            self.violated(format!(
                "{what} failed although no fault was injected: {error}"
            ));
        }
    }

    /// Counts what the engine did since it was last looked at.
    pub fn note_stats(&self, now: StatsSeen) {
        let last = self.stats_seen.replace(now);
        for (name, now, last) in [
            ("flushes", now.flushes, last.flushes),
            ("compactions", now.compactions, last.compactions),
            (
                "bytes compacted out of level 0",
                now.l0_bytes,
                last.l0_bytes,
            ),
            (
                "bytes compacted deeper",
                now.deeper_bytes,
                last.deeper_bytes,
            ),
            ("tables moved", now.moved, last.moved),
            ("tables dropped unread", now.dropped, last.dropped),
            ("log segments recycled", now.recycled, last.recycled),
        ] {
            self.count(name, now.saturating_sub(last));
        }
    }

    /// Counts operations.
    pub fn count(&self, name: &'static str, count: u64) {
        self.tally.borrow_mut().add(name, count);
    }

    /// Acknowledges the partition's oldest pending entry.
    pub fn acknowledge(&self, partition: PartitionId) {
        let at = usize::from(partition);
        let entry = match self.partitions.borrow_mut().get_mut(at) {
            Some(partition) => partition.acknowledge(),
            None => None,
        };
        if let (Some(entry), Some(history)) = (entry, self.history.borrow_mut().get_mut(at)) {
            history.push(entry);
        }
    }

    /// The last entries that touched a key, for people to read.
    #[must_use]
    pub fn last_changes(&self, partition: usize, key: &Key) -> String {
        let history = self.history.borrow();
        let changes = history[partition].iter().rev().filter_map(|entry| {
            let change = entry.effects.iter().find_map(|effect| match effect {
                OwnedEffect::Put {
                    key: k,
                    expires_ms,
                    created_ms,
                    ..
                } if k == key => Some(format!("put, expires {expires_ms}, created {created_ms}")),
                OwnedEffect::Delete { key: k } if k == key => Some("delete".to_owned()),
                range @ OwnedEffect::DeleteRange { .. } if range.covers(key) => {
                    Some("range delete".to_owned())
                }
                _ => None,
            })?;
            let head = &entry.head;
            Some(format!(
                "{} at {} ms: {change}",
                head.id.index, head.time_ms
            ))
        });
        changes.take(8).collect::<Vec<_>>().join("; ")
    }

    /// Takes the engine's word on where a partition's history ended.
    pub fn recovered(&self, at: usize, last: ringbolt_engine::entry::LogId) -> Result<(), String> {
        let mut partitions = self.partitions.borrow_mut();
        let mut history = self.history.borrow_mut();
        let (Some(partition), Some(history)) = (partitions.get_mut(at), history.get_mut(at)) else {
            return Err(format!("partition {at} was never written"));
        };
        if last.index < partition.applied.index && self.log_damaged.get() {
            let lost = partition.applied.index - last.index;
            self.count("acknowledged entries lost to a damaged log", lost);
            history.truncate(last.index as usize);
            let mut rebuilt = Partition::new(partition.id);
            rebuilt.term = partition.term;
            rebuilt.pending = history.iter().cloned().collect();
            while rebuilt.acknowledge().is_some() {}
            *partition = rebuilt;
        }
        let pending: Vec<OwnedEntry> = partition.pending.iter().cloned().collect();
        let kept = partition.recovered(last)?;
        history.extend(pending.into_iter().take(kept as usize));
        self.count("unacknowledged entries that survived", kept);
        Ok(())
    }
}

/// The kind of an engine's error, for counting.
fn kind(error: &EngineError) -> &'static str {
    match error {
        EngineError::Corrupt { .. } => "corrupt",
        EngineError::NoSpace(_) => "no space",
        EngineError::Disk(_) => "disk failed",
        EngineError::WrongFormat { .. } => "wrong format",
        EngineError::Invalid(_) => "invalid",
        EngineError::Busy(_) => "busy",
        EngineError::Deadline => "deadline",
        EngineError::Gone(_) => "gone",
        EngineError::Closed => "closed",
    }
}
