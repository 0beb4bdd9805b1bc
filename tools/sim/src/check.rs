//! Reads of the engine, compared with the model.
//!
//! The model moves on while a read waits for the disk. A scan shows the moment at which its cursor
//! was made, exactly. A get may show any moment between its start and its end.

use std::rc::Rc;

use ringbolt_engine::entry::LogId;
use ringbolt_engine::env::sim::{Rng, SimEnv};
use ringbolt_engine::error::EngineError;
use ringbolt_engine::row::{
    ReadAt, RowKeyBuf, RowMeta, keyspace_range, partition_range, split_row_key,
};
use ringbolt_engine::tree::{Lookup, Tree};

use crate::model::{Key, ModelRow, OwnedEffect};
use crate::shared::Shared;
use crate::workload::{self, OWN_KEYSPACE};

/// What a read returned, or what it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    meta: RowMeta,
    /// `None` where only the meta data was asked for; then the creation must be known.
    value: Option<Vec<u8>>,
}

impl Seen {
    fn new(meta: RowMeta, value: &[u8]) -> Self {
        Self {
            meta,
            value: Some(value.to_vec()),
        }
    }

    fn is(&self, row: &ModelRow) -> bool {
        let created = self.meta.created_ms;
        let created_is_right = created == row.created_ms
            || created == 0 && self.value.is_some()
            || row.created_loose && (row.created_ms..=row.updated_ms).contains(&created);
        created_is_right
            && self.meta.version == row.version
            && self.meta.updated_ms == row.updated_ms
            && self.meta.expires_ms == row.expires_ms
            && self
                .value
                .as_ref()
                .is_none_or(|value| **value == *row.value)
    }

    fn brief(&self) -> String {
        let value = self.value.as_ref().map(Vec::len);
        format!("{:?}, bytes: {value:?}", self.meta)
    }
}

fn brief(row: Option<&ModelRow>) -> String {
    row.map_or("nothing".to_owned(), |row| {
        format!(
            "version {} updated {} created {} (loose: {}) expires {}, {} bytes",
            row.version,
            row.updated_ms,
            row.created_ms,
            row.created_loose,
            row.expires_ms,
            row.value.len()
        )
    })
}

fn matches(seen: Option<&Seen>, row: Option<&ModelRow>) -> bool {
    match (seen, row) {
        (Some(seen), Some(row)) => seen.is(row),
        (None, None) => true,
        _ => false,
    }
}

/// The checks of one life of the engine.
#[derive(Clone)]
pub struct Checker {
    /// The state of the run.
    pub shared: Rc<Shared>,
    /// The tree that is read.
    pub tree: Tree<SimEnv>,
}

impl Checker {
    /// A time at which the partition may be read: now, or where one of its rows is about to expire
    /// or just has.
    pub fn read_time(&self, rng: &mut Rng, partition: usize) -> u64 {
        let partitions = self.shared.partitions.borrow();
        let partition = &partitions[partition];
        let now = partition.time_ms;
        if rng.one_in(2) {
            return now;
        }
        let key = workload::key(rng, &self.shared.profile);
        let next = partition.rows.range(key..).take(20);
        let mut edges = next.map(|(_, row)| row.expires_ms).filter(|&ms| ms > now);
        match edges.next() {
            Some(ms) if rng.one_in(2) => ms,
            Some(ms) => ms - 1,
            None => now,
        }
    }

    fn expected(&self, partition: usize, key: &Key, time_ms: u64) -> Option<ModelRow> {
        let partitions = self.shared.partitions.borrow();
        partitions[partition].get(key, time_ms).cloned()
    }

    /// Reads one key: from memory if that will do, else from the disk.
    pub async fn get(&self, partition: usize, key: &Key, time_ms: u64) {
        let row_key = RowKeyBuf::of(partition as u16, key.0, &key.1);
        let at = ReadAt {
            version: u64::MAX,
            time_ms,
        };
        let before = self.expected(partition, key, time_ms);
        let applied_before = self.applied(partition);
        self.shared.count("gets", 1);
        let seen = match self.tree.get_now(&row_key, at, Seen::new) {
            Lookup::Found(seen) => Some(seen),
            Lookup::Absent => None,
            Lookup::NeedsDisk(undecided) => {
                self.shared.count("gets that waited", 1);
                let got = self.tree.go_on(undecided, &row_key, at, Seen::new).await;
                match self.shared.checked("get", got) {
                    Some(seen) => seen,
                    None => return,
                }
            }
        };
        self.judge(partition, key, time_ms, (before, applied_before), seen);
    }

    /// Asks for the exact creation as well.
    pub async fn stat(&self, partition: usize, key: &Key, time_ms: u64) {
        let row_key = RowKeyBuf::of(partition as u16, key.0, &key.1);
        let at = ReadAt {
            version: u64::MAX,
            time_ms,
        };
        let before = self.expected(partition, key, time_ms);
        let applied_before = self.applied(partition);
        self.shared.count("stats", 1);
        let got = self.tree.stat(&row_key, at).await;
        let Some(got) = self.shared.checked("stat", got) else {
            return;
        };
        let seen = got.map(|meta| Seen { meta, value: None });
        self.judge(partition, key, time_ms, (before, applied_before), seen);
    }

    fn applied(&self, partition: usize) -> u64 {
        self.shared.partitions.borrow()[partition].applied.index
    }

    fn judge(
        &self,
        partition: usize,
        key: &Key,
        time_ms: u64,
        (before, applied_before): (Option<ModelRow>, u64),
        seen: Option<Seen>,
    ) {
        if matches(seen.as_ref(), before.as_ref()) {
            return;
        }
        let after = self.expected(partition, key, time_ms);
        let applied_after = self.applied(partition);
        if matches(seen.as_ref(), after.as_ref()) {
            return;
        }
        let moved = applied_after > applied_before;
        if moved && self.between(partition, key, applied_before, seen.as_ref()) {
            return;
        }
        // The partition's time has passed the time of the read: its compaction may have, too.
        let time_now = self.shared.partitions.borrow()[partition].time_ms;
        let gone = |row: &Option<ModelRow>| row.as_ref().is_some_and(|r| !r.lives_at(time_now));
        if seen.is_none() && (gone(&before) || gone(&after)) {
            return;
        }
        self.shared.violated(format!(
            "partition {partition} key {key:?} at {time_ms} ms: read {}, should be {} (entries {applied_before} to {applied_after}; {})",
            seen.map_or("nothing".to_owned(), |seen| seen.brief()),
            brief(before.as_ref()),
            self.shared.last_changes(partition, key),
        ));
    }

    /// Whether an entry acknowledged after `applied` explains what was read.
    fn between(&self, partition: usize, key: &Key, applied: u64, seen: Option<&Seen>) -> bool {
        let history = self.shared.history.borrow();
        history[partition]
            .iter()
            .skip(applied as usize)
            .flat_map(|entry| entry.effects.iter().map(move |e| (entry.head, e)))
            .any(|(head, effect)| match (effect, seen) {
                (OwnedEffect::Put { key: k, value, .. }, Some(seen)) => {
                    k == key
                        && head.id.index == seen.meta.version
                        && seen.value.as_ref().is_none_or(|seen| **seen == **value)
                }
                (
                    OwnedEffect::Put {
                        key: k, expires_ms, ..
                    },
                    None,
                ) => k == key && *expires_ms != 0,
                (OwnedEffect::Delete { key: k }, None) => k == key,
                (range @ OwnedEffect::DeleteRange { .. }, None) => range.covers(key),
                _ => false,
            })
    }

    /// Scans a range of a partition and compares each row. `limit`: rows after which to stop.
    pub async fn scan(&self, partition: usize, range: ScanRange, reverse: bool, limit: usize) {
        let time_ms = self.shared.partitions.borrow()[partition].time_ms;
        let at = ReadAt {
            version: u64::MAX,
            time_ms,
        };
        let expected: Vec<(Key, ModelRow)> = {
            let partitions = self.shared.partitions.borrow();
            let rows = partitions[partition].rows.iter();
            rows.filter(|(key, row)| row.lives_at(time_ms) && range.contains(key))
                .map(|(key, row)| (key.clone(), row.clone()))
                .collect()
        };
        self.scan_at(partition, range, reverse, limit, at, expected)
            .await;
    }

    /// As [`Checker::scan`], at a moment of which the rows are known.
    pub async fn scan_at(
        &self,
        partition: usize,
        range: ScanRange,
        reverse: bool,
        limit: usize,
        at: ReadAt,
        mut expected: Vec<(Key, ModelRow)>,
    ) {
        self.shared.count("scans", 1);
        if reverse {
            expected.reverse();
        }
        let (from, to) = range.row_keys(partition as u16);
        let mut cursor = self.tree.cursor(&from, &to, reverse, at);
        let whole = expected.len() <= limit;
        for (key, row) in expected.into_iter().take(limit) {
            let next: Result<_, EngineError> = cursor.next().await;
            let Some(next) = self.shared.checked("scan", next) else {
                return;
            };
            let Some((row_key, meta, value)) = next else {
                self.shared.violated(format!(
                    "partition {partition}: a scan at {} ms (reverse: {reverse}) ended before {key:?}, {}",
                    at.time_ms,
                    brief(Some(&row))
                ));
                return;
            };
            self.shared.count("rows scanned", 1);
            let seen = Seen::new(meta, value);
            let seen_key = split_row_key(row_key).map(|parts| (parts.keyspace, parts.key.to_vec()));
            if seen_key.as_ref() != Some(&key) || !seen.is(&row) {
                self.shared.violated(format!(
                    "partition {partition}: a scan at {} ms (reverse: {reverse}) gave {seen_key:?} {}, should be {key:?} {} ({})",
                    at.time_ms,
                    seen.brief(),
                    brief(Some(&row)),
                    self.shared.last_changes(partition, &key)
                ));
                return;
            }
        }
        if whole {
            let next: Result<_, EngineError> = cursor.next().await;
            if let Some(Some((row_key, meta, value))) = self.shared.checked("scan", next) {
                self.shared.violated(format!(
                    "partition {partition}: a scan at {} ms (reverse: {reverse}) went on with {row_key:?} {}",
                    at.time_ms,
                    Seen::new(meta, value).brief()
                ));
            }
        }
    }

    /// Reads a key at a snapshot of which the row is known.
    pub async fn get_at(
        &self,
        partition: usize,
        key: &Key,
        at: ReadAt,
        expected: Option<ModelRow>,
    ) {
        let row_key = RowKeyBuf::of(partition as u16, key.0, &key.1);
        self.shared.count("snapshot gets", 1);
        let got = self.tree.get(&row_key, at).await;
        let Some(got) = self.shared.checked("snapshot get", got) else {
            return;
        };
        let seen = got.map(|row| Seen::new(row.meta, &row.value));
        if !matches(seen.as_ref(), expected.as_ref()) {
            self.shared.violated(format!(
                "partition {partition} key {key:?} at snapshot {}: read {}, should be {}",
                at.version,
                seen.map_or("nothing".to_owned(), |seen| seen.brief()),
                brief(expected.as_ref())
            ));
        }
    }

    /// Compares what became of writes.
    pub fn results(&self, partition: usize) {
        let writers = self.tree.writers(partition as u16);
        let partitions = self.shared.partitions.borrow();
        let seen = writers.results();
        let expected = &partitions[partition].results;
        let expected = expected.iter().map(|(write, id, o)| (*write, *id, &o[..]));
        self.shared.count("results of writes", seen.len() as u64);
        if !seen.iter().copied().eq(expected) {
            let last = |of: Option<LogId>| of.map_or(0, |id| id.index);
            self.shared.violated(format!(
                "partition {partition}: {} results of writes up to entry {}, should be {} up to {}",
                seen.len(),
                last(seen.last().map(|(_, id, _)| *id)),
                partitions[partition].results.len(),
                last(partitions[partition].results.back().map(|(_, id, _)| *id)),
            ));
        }
    }

    /// Compares everything: each partition forward or backward, and a sample of keys one by one.
    pub async fn everything(&self, rng: &mut Rng) {
        let partitions = usize::from(self.shared.profile.partitions);
        for partition in 0..partitions {
            self.results(partition);
            let both = rng.one_in(3);
            let reverse = rng.one_in(3);
            self.scan(partition, ScanRange::Partition, reverse, usize::MAX)
                .await;
            if both {
                self.scan(partition, ScanRange::Partition, !reverse, usize::MAX)
                    .await;
            }
            for _ in 0..20 {
                let key = workload::key(rng, &self.shared.profile);
                let time_ms = self.read_time(rng, partition);
                if rng.one_in(3) {
                    self.stat(partition, &key, time_ms).await;
                } else {
                    self.get(partition, &key, time_ms).await;
                }
            }
        }
    }
}

/// What a scan covers.
#[derive(Debug, Clone)]
pub enum ScanRange {
    /// The whole partition, but for the engine's own rows.
    Partition,
    /// A keyspace, from a key up to, not including, another; empty for its ends.
    Keys(u32, Vec<u8>, Vec<u8>),
}

impl ScanRange {
    /// Draws one.
    pub fn draw(rng: &mut Rng, profile: &workload::Profile) -> Self {
        if rng.one_in(6) {
            return Self::Partition;
        }
        let (keyspace, from) = workload::key(rng, profile);
        let (_, to) = workload::key(rng, profile);
        let from = if rng.one_in(5) { Vec::new() } else { from };
        let to = if rng.one_in(5) { Vec::new() } else { to };
        Self::Keys(keyspace, from, to)
    }

    /// Whether the key is in it.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Self::Partition => true,
            Self::Keys(keyspace, from, to) => {
                key.0 == *keyspace && key.1 >= *from && (to.is_empty() || key.1 < *to)
            }
        }
    }

    fn row_keys(&self, partition: u16) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::Partition => {
                let (own, _) = keyspace_range(partition, OWN_KEYSPACE, b"", b"");
                (partition_range(partition).0, own)
            }
            Self::Keys(keyspace, from, to) => keyspace_range(partition, *keyspace, from, to),
        }
    }
}
