//! What the store says of itself must fit together.
//!
//! Every acknowledged write names its entry by a token (partition, term, index), every read names
//! the position it saw and the version (the entry's index) of what it found. So over a whole
//! history:
//!
//! 1. an index of a partition has one term and one content, and terms rise with indexes: no entry
//!    that was read or acknowledged was ever replaced;
//! 2. a partition's time rises with its indexes, and a write is one entry, however often it is sent;
//! 3. a read finds, of each key, no version beyond its token, and none older than the newest one up
//!    to the position it had to see;
//! 4. a conditional write's entry follows the version it named, with no other between them; one that
//!    is refused is told a version for which its condition does not hold, and none older than a
//!    linearizable read might find;
//! 5. a page of a scan shows a batch whole;
//! 6. what is asked later is answered from a later position: every write and every linearizable
//!    read, with regard to all that was answered before the call; a session read with regard to
//!    what its session had seen; a stale read with regard to what was answered before its bound.

use std::collections::BTreeMap;

use ringbolt_wire::message::{PartitionId, ReadLevel, Token};

use super::super::history::{Call, Cell, Change, Guard, History, KeyId, Operation, Outcome};

/// What is known of one version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It has this content.
    Value(i64),
    /// It is a deletion.
    Deleted,
}

/// What is known of one entry.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    term: Option<u64>,
    time_ms: Option<u64>,
    /// Which acknowledged write it is.
    written_by: Option<usize>,
}

/// What is known of one partition.
#[derive(Default)]
struct Partition {
    entries: BTreeMap<u64, Entry>,
    /// When each position was answered, by time of the answer; later the highest so far.
    answered: Vec<(u64, u64)>,
}

impl Partition {
    /// The highest position that somebody was told of until `time`.
    fn told_by(&self, time: u64) -> u64 {
        let at = self.answered.partition_point(|&(told, _)| told <= time);
        at.checked_sub(1).map_or(0, |at| self.answered[at].1)
    }
}

/// Checks all of the above. `slack_ns` is what clocks may add to the bound of stale reads.
pub(super) fn check(history: &History, slack_ns: u64) -> Result<(), String> {
    let mut order = Order::default();
    for (number, operation) in history.operations.iter().enumerate() {
        order.learn(history, number, operation)?;
    }
    order.settle()?;
    let mut seen: BTreeMap<(u32, PartitionId), u64> = BTreeMap::new();
    for operation in &history.operations {
        order.check(history, operation, &mut seen, slack_ns)?;
    }
    Ok(())
}

#[derive(Default)]
struct Order {
    partitions: BTreeMap<PartitionId, Partition>,
    versions: BTreeMap<KeyId, BTreeMap<u64, Known>>,
    /// The version with each content, which only one write had.
    writes: BTreeMap<(KeyId, i64), u64>,
    /// Keys that may have been deleted by a write whose entry is not known.
    vanishing: std::collections::BTreeSet<KeyId>,
}

impl Order {
    fn entry(&mut self, partition: PartitionId, index: u64) -> &mut Entry {
        let partition = self.partitions.entry(partition).or_default();
        partition.entries.entry(index).or_default()
    }

    fn token(&mut self, token: Token, told: u64) -> Result<(), String> {
        let entry = self.entry(token.partition, token.index);
        match entry.term {
            Some(term) if term != token.term => Err(format!(
                "entry {} of partition {} was of term {term} once and of term {} another time",
                token.index, token.partition, token.term
            )),
            _ => {
                entry.term = Some(token.term);
                let partition = self.partitions.entry(token.partition).or_default();
                partition.answered.push((told, token.index));
                Ok(())
            }
        }
    }

    fn version(&mut self, key: KeyId, index: u64, known: Known) -> Result<(), String> {
        match self.versions.entry(key).or_default().insert(index, known) {
            Some(before) if before != known => {
                return Err(format!(
                    "version {index} of key {key} was {before:?} once and {known:?} another time"
                ));
            }
            _ => {}
        }
        if let Known::Value(value) = known {
            let first = *self.writes.entry((key, value)).or_insert(index);
            if first != index {
                return Err(format!(
                    "key {key} had {value} as version {first} and again as version {index}: its \
                     write was done twice"
                ));
            }
        }
        Ok(())
    }

    fn cell(&mut self, history: &History, key: KeyId, cell: &Cell) -> Result<(), String> {
        self.version(key, cell.version, Known::Value(cell.value))?;
        let partition = history.partition(key);
        let entry = self.entry(partition, cell.version);
        match entry.time_ms {
            Some(before) if before != cell.updated_ms => Err(format!(
                "entry {} of partition {partition} has the times {before} and {}",
                cell.version, cell.updated_ms
            )),
            _ => {
                entry.time_ms = Some(cell.updated_ms);
                Ok(())
            }
        }
    }

    fn learn(
        &mut self,
        history: &History,
        number: usize,
        operation: &Operation,
    ) -> Result<(), String> {
        match (&operation.call, &operation.outcome) {
            (
                Call::Write {
                    changes,
                    leader_only: false,
                },
                Outcome::Written { token, numbers },
            ) => {
                self.token(*token, operation.completed)?;
                let entry = self.entry(token.partition, token.index);
                if let Some(other) = entry.written_by.replace(number) {
                    return Err(format!(
                        "{token:?} acknowledges two writes: {:?} and {operation:?}",
                        history.operations[other]
                    ));
                }
                for (i, &(key, _, change)) in changes.iter().enumerate() {
                    let known = match (change, numbers[i]) {
                        (Change::Put(value), _) | (Change::Add(_), Some(value)) => {
                            Known::Value(value)
                        }
                        (Change::Delete, _) => Known::Deleted,
                        (Change::Add(_), None) => {
                            return Err(format!("an increment without its number: {operation:?}"));
                        }
                    };
                    self.version(key, token.index, known)?;
                }
            }
            (Call::Write { changes, .. }, Outcome::InDoubt | Outcome::Written { .. }) => {
                let deleted = changes
                    .iter()
                    .filter(|(_, _, change)| *change == Change::Delete);
                self.vanishing.extend(deleted.map(|(key, _, _)| *key));
            }
            (Call::Read { keys, .. }, Outcome::Seen { tokens, cells }) => {
                for &token in tokens {
                    self.token(token, operation.completed)?;
                }
                for (&key, cell) in keys.iter().zip(cells) {
                    if let Some(cell) = cell {
                        self.cell(history, key, cell)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks at the order of entries, and prepares what was told when.
    fn settle(&mut self) -> Result<(), String> {
        for (number, partition) in &mut self.partitions {
            let (mut term, mut time) = ((0, 0), (0, 0));
            for (&index, entry) in &partition.entries {
                if let Some(found) = entry.term {
                    if found < term.1 {
                        return Err(format!(
                            "partition {number}: entry {index} is of term {found}, entry {} before \
                             it of term {}",
                            term.0, term.1
                        ));
                    }
                    term = (index, found);
                }
                if let Some(found) = entry.time_ms {
                    if found < time.1 {
                        return Err(format!(
                            "partition {number}: time went back from {} at entry {} to {found} at \
                             entry {index}",
                            time.1, time.0
                        ));
                    }
                    time = (index, found);
                }
            }
            partition.answered.sort_unstable();
            let mut highest = 0;
            for (_, index) in &mut partition.answered {
                highest = highest.max(*index);
                *index = highest;
            }
        }
        Ok(())
    }

    fn told(&self, partition: PartitionId, time: u64) -> u64 {
        let partition = self.partitions.get(&partition);
        partition.map_or(0, |partition| partition.told_by(time))
    }

    fn check(
        &self,
        history: &History,
        operation: &Operation,
        seen: &mut BTreeMap<(u32, PartitionId), u64>,
        slack_ns: u64,
    ) -> Result<(), String> {
        match (&operation.call, &operation.outcome) {
            (
                Call::Write {
                    changes,
                    leader_only: false,
                },
                Outcome::Written { token, .. },
            ) => {
                let told = self.told(token.partition, operation.invoked.saturating_sub(1));
                if token.index <= told {
                    return Err(format!(
                        "a write got entry {} although entry {told} was known before it was asked: \
                         {operation:?}",
                        token.index
                    ));
                }
                for &(key, guard, _) in changes {
                    self.follows(key, guard, token.index, operation)?;
                }
                let seen = seen.entry((operation.client, token.partition)).or_default();
                *seen = (*seen).max(token.index);
            }
            (Call::Write { changes, .. }, &Outcome::GuardFailed { version }) => {
                // Of a batch it is not known which guard failed.
                if let [(key, guard, _)] = changes[..] {
                    self.refuses(history.partition(key), key, guard, version, operation)?;
                }
            }
            (
                Call::Read {
                    keys,
                    level,
                    tokens: wanted,
                    page,
                },
                Outcome::Seen { tokens, cells },
            ) => {
                if *page {
                    batches_are_whole(history, keys, cells, operation)?;
                }
                let mut had_to_see = BTreeMap::new();
                for token in tokens {
                    let mine = seen.entry((operation.client, token.partition)).or_default();
                    let least = match level {
                        ReadLevel::Linearizable | ReadLevel::Strict => {
                            self.told(token.partition, operation.invoked.saturating_sub(1))
                        }
                        ReadLevel::Session => wanted
                            .iter()
                            .filter(|wanted| wanted.partition == token.partition)
                            .map(|wanted| wanted.index)
                            .fold(*mine, u64::max),
                        ReadLevel::Stale { max_age_ms } => {
                            let age = u64::from(*max_age_ms) * 1_000_000 + slack_ns;
                            self.told(token.partition, operation.invoked.saturating_sub(age))
                        }
                    };
                    if token.index < least {
                        return Err(format!(
                            "a read of partition {} saw entry {}, it had to see {least}: \
                             {operation:?}",
                            token.partition, token.index
                        ));
                    }
                    *mine = (*mine).max(token.index);
                    had_to_see.insert(token.partition, (least, token.index));
                }
                for (&key, cell) in keys.iter().zip(cells) {
                    let partition = history.partition(key);
                    let Some(&(least, token)) = had_to_see.get(&partition) else {
                        return Err(format!(
                            "a read without a token of partition {partition}: {operation:?}"
                        ));
                    };
                    self.covers(key, cell.as_ref(), least, token, operation)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A write that named a version comes right behind it.
    fn follows(
        &self,
        key: KeyId,
        guard: Guard,
        index: u64,
        operation: &Operation,
    ) -> Result<(), String> {
        let Guard::Is { version, .. } = guard else {
            return Ok(());
        };
        let between = self
            .versions
            .get(&key)
            .and_then(|versions| versions.range(version + 1..index).next());
        match between {
            Some((other, _)) => Err(format!(
                "a write on version {version} of key {key} was done over version {other}: \
                 {operation:?}"
            )),
            None => Ok(()),
        }
    }

    /// A write that is refused is told what the key has by then.
    fn refuses(
        &self,
        partition: PartitionId,
        key: KeyId,
        guard: Guard,
        version: u64,
        operation: &Operation,
    ) -> Result<(), String> {
        let holds = match guard {
            Guard::None => true,
            Guard::Absent => version == 0,
            Guard::Present => version != 0,
            Guard::Is { version: named, .. } => version == named,
        };
        if holds {
            return Err(format!(
                "refused, though the condition holds for version {version}: {operation:?}"
            ));
        }
        let told = self.told(partition, operation.invoked.saturating_sub(1));
        let Some(versions) = self.versions.get(&key) else {
            return Ok(());
        };
        match versions.range(..=told).next_back() {
            Some((&newest, _)) if version != 0 && version < newest => Err(format!(
                "refused by version {version} of key {key}, which had version {newest} at entry \
                 {told}: {operation:?}"
            )),
            Some((&newest, Known::Value(_)))
                if version == 0
                    && !self.vanishing.contains(&key)
                    && !versions
                        .range(newest..)
                        .any(|(_, known)| *known == Known::Deleted) =>
            {
                Err(format!(
                    "refused as absent, but key {key} had version {newest} at entry {told}: \
                     {operation:?}"
                ))
            }
            _ => Ok(()),
        }
    }

    /// A read finds the newest version up to `least`, or a later one up to its token.
    fn covers(
        &self,
        key: KeyId,
        cell: Option<&Cell>,
        least: u64,
        token: u64,
        operation: &Operation,
    ) -> Result<(), String> {
        let Some(versions) = self.versions.get(&key) else {
            return Ok(());
        };
        let newest = versions.range(..=least).next_back();
        let deleted_since = |from: u64| {
            let mut since = versions.range(from + 1..=token);
            since.any(|(_, known)| *known == Known::Deleted)
        };
        match (cell, newest) {
            (Some(cell), _) if cell.version > token => Err(format!(
                "version {} of key {key} is beyond the token it came with: {operation:?}",
                cell.version
            )),
            (Some(cell), Some((&newest, known))) if cell.version < newest => Err(format!(
                "version {newest} of key {key} ({known:?}) was not seen at entry {least}: \
                 {operation:?}"
            )),
            (None, Some((&newest, Known::Value(_))))
                if !self.vanishing.contains(&key) && !deleted_since(newest) =>
            {
                Err(format!(
                    "key {key} has version {newest} and was not found at entry {least}: \
                     {operation:?}"
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Keys that are only written together are only seen together.
fn batches_are_whole(
    history: &History,
    keys: &[KeyId],
    cells: &[Option<Cell>],
    operation: &Operation,
) -> Result<(), String> {
    let mut groups: BTreeMap<u16, Option<Cell>> = BTreeMap::new();
    for (&key, &cell) in keys.iter().zip(cells) {
        let Some(Some(group)) = history.groups.get(usize::from(key)) else {
            continue;
        };
        let first = *groups.entry(*group).or_insert(cell);
        if first != cell {
            return Err(format!("half a batch was seen: {operation:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
