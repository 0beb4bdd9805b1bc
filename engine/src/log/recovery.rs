//! Opens a log: scans what is there, hands out what has to be applied again, and goes on in a new
//! segment.
//!
//! What is read after a stop need not be on the medium. A write whose process was killed, or whose
//! sync failed, may be shown from a cache (the kernel's, the hypervisor's, the device's), and once a
//! sync has failed, the next one may report success without having written it. So a sync proves
//! nothing of earlier writes: the last writes, of which no later header says that they had been
//! durable, are written again as they are before anything is built on them ([`Recovery::renew`]).
//!
//! The new segment's header says where the log ended and has a higher epoch than anything seen, so
//! that what was cut off can never come back. Until that header is durable no byte on disk is
//! changed: a recovery that is cut short is simply done again.

use std::path::{Path, PathBuf};

use super::chain::{self, Segment, Slot};
use super::format::group::GroupHeader;
use super::format::record::{Effects, HardState, Place, RecordView};
use super::format::segment::{self, SegmentHeader, SegmentStart};
use super::handle::{File, Log, RecordRef};
use super::options::LogOptions;
use super::reader::Reader;
use super::scan::{Part, Scanned, Unproved, scan};
use super::slots;
use super::state::State;
use crate::entry::{EntryHead, LogId, PartitionId};
use crate::env::{AlignedBuf, Disk, DiskErrorKind, DiskFile, Env, SECTOR};
use crate::error::{EngineError, Result};

/// Epochs left out at each open: more than the segments whose headers can be in flight at once, so
/// that groups which outlived their header can never be taken for the new segment's.
const EPOCHS_SKIPPED: u64 = 16;
/// Least room for groups in a segment that a log is opened with, in bytes.
const ROOM_BYTES_MIN: u64 = 8 * SECTOR as u64;

const CHANGED: &str = "what was intact a moment ago is damaged";

/// A replica as the log remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredReplica {
    /// The partition.
    pub partition: PartitionId,
    /// Its hard state.
    pub hard: HardState,
    /// The last entry that is *not* in the log any more: the entries after it, up to `last`, are.
    pub truncated: LogId,
    /// Its last entry.
    pub last: LogId,
    /// The partition's time at `last`, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The group's membership, as the consensus layer wrote it; empty if it never did.
    pub membership: Vec<u8>,
    /// Its last entry that was applied: the tree has everything up to here.
    pub applied: LogId,
    /// The entries after `applied`, up to `last`: durable, and not known to be committed, or behind a
    /// change of the membership that the consensus layer has to apply.
    pub tail: Vec<RecoveredEntry>,
}

/// An entry as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredEntry {
    /// Term and index.
    pub id: LogId,
    /// What it carries, as [`super::encode_payload`] made it.
    pub payload: Vec<u8>,
}

/// A log that was scanned and is not open yet.
///
/// Call [`Recovery::next_group`] until it answers `None`, and apply what it gives; then
/// [`Recovery::finish`]. If what was applied may get into tables before that, call
/// [`Recovery::renew`] first.
pub struct Recovery<E: Env> {
    env: E,
    dir: PathBuf,
    options: LogOptions,
    scanned: Scanned<File<E>>,
    /// Everything that was found is durable.
    renewed: bool,
    replay: Replay<File<E>>,
    replayed: u64,
}

/// How far the second pass has come.
struct Replay<F> {
    reader: Option<Reader<F>>,
    part: usize,
    offset: u64,
    sequence: u64,
    /// By partition: entries up to this index are in tables.
    flushed: Vec<u64>,
    /// By partition: entries up to this index count as committed.
    committed: Vec<u64>,
}

/// Entries of one group that have to be applied again.
pub struct ReplayGroup<'a> {
    header: GroupHeader,
    bytes: &'a [u8],
    filter: Filter<'a>,
}

#[derive(Clone, Copy)]
struct Filter<'a> {
    flushed: &'a [u64],
    superseded: &'a [(RecordRef, PartitionId, u64)],
    committed: &'a [u64],
}

impl Filter<'_> {
    /// Whether an entry still counts and is not in tables: and if so, whether it is committed.
    #[inline]
    fn fate(&self, at: RecordRef, head: &EntryHead) -> Option<bool> {
        let partition = usize::from(head.partition);
        let flushed = self.flushed.get(partition);
        if flushed.is_some_and(|flushed| head.id.index <= *flushed) {
            return None;
        }
        let superseded = self.superseded.iter().any(|(by, partition, from)| {
            *by > at && *partition == head.partition && head.id.index >= *from
        });
        let committed = self.committed.get(partition);
        (!superseded).then(|| committed.is_some_and(|committed| head.id.index <= *committed))
    }
}

/// An entry that has to be applied again, or to be kept until it is known to be committed.
pub struct ReplayedEntry<'a> {
    /// Where it stands, who wrote it.
    pub head: EntryHead,
    /// What it does.
    pub effects: Effects<'a>,
    /// Whether it is to be applied.
    pub committed: bool,
    record: &'a [u8],
}

impl ReplayedEntry<'_> {
    /// As it was appended.
    #[must_use]
    pub fn to_recovered(&self) -> Option<RecoveredEntry> {
        Some(RecoveredEntry {
            id: self.head.id,
            payload: super::format::record::payload_of(self.record)?,
        })
    }
}

impl<'a> ReplayGroup<'a> {
    /// The entries that count and are not in tables, in log order.
    pub fn entries(&self) -> impl Iterator<Item = ReplayedEntry<'a>> {
        let (group, filter, bytes) = (self.header.sequence, self.filter, self.bytes);
        self.header
            .records(bytes)
            .filter_map(move |(offset, record)| match record {
                RecordView::Entry { head, effects } => {
                    let committed = filter.fate(RecordRef { group, offset }, &head)?;
                    let record =
                        super::format::record::first_record(bytes.get(offset as usize..)?)?;
                    Some(ReplayedEntry {
                        head,
                        effects,
                        committed,
                        record,
                    })
                }
                _ => None,
            })
    }
}

impl<E: Env> Recovery<E> {
    /// Reads the log in `dir`, which is created if it is not there. `flushed` says of each
    /// partition what the last entry in its tables is. `commits_alone` says of a membership whether
    /// this replica is its only voter: then what is durable counts as committed; `membership_index`,
    /// which entry made it. What follows a later change of the membership does not count as committed,
    /// nor does the change itself.
    ///
    /// # Errors
    ///
    /// [`EngineError::Corrupt`] if something that was acknowledged is missing or damaged,
    /// [`EngineError::WrongFormat`] for another version's log, and what the disk says.
    pub async fn scan(
        env: E,
        dir: &Path,
        options: LogOptions,
        commits_alone: fn(&[u8]) -> bool,
        membership_index: fn(&[u8]) -> u64,
        flushed: &dyn Fn(PartitionId) -> LogId,
    ) -> Result<Self> {
        let options = options.checked();
        make_dir(&env, dir).await?;
        let scanned = scan(&env, dir, options.segments_retained, flushed).await?;
        let (mut in_tables, mut committed) = (Vec::new(), Vec::new());
        for entry in scanned.replicas.checkpoints() {
            let at = usize::from(entry.partition);
            if in_tables.len() <= at {
                in_tables.resize(at + 1, 0);
                committed.resize(at + 1, 0);
            }
            in_tables[at] = flushed(entry.partition).index;
            let known = if commits_alone(&entry.membership) {
                entry.last.index
            } else {
                entry.hard.commit
            };
            let made_by = membership_index(&entry.membership);
            let done = made_by.max(in_tables[at]);
            let changes = scanned.membership_changes.get(&entry.partition);
            let mut changes = changes.into_iter().flatten();
            let change = changes.find(|change| **change > done);
            committed[at] = change.map_or(known, |change| known.min(change - 1));
        }
        let replay = Replay {
            reader: None,
            part: scanned.retained,
            offset: 0,
            sequence: 0,
            flushed: in_tables,
            committed,
        };
        Ok(Self {
            env,
            dir: dir.to_path_buf(),
            options,
            scanned,
            renewed: false,
            replay,
            replayed: 0,
        })
    }

    /// Whether there was no log: the directory is new.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.scanned.parts.is_empty()
    }

    /// Entries handed out so far.
    #[must_use]
    pub fn replayed(&self) -> u64 {
        self.replayed
    }

    /// The last entry of a partition; `None` if the log knows nothing of it.
    #[must_use]
    pub fn last(&self, partition: PartitionId) -> Option<LogId> {
        let replica = self.scanned.replicas.get(partition)?;
        Some(replica.now.last)
    }

    /// Makes durable what was found, unless that was done before: only then may anything that rests
    /// on it be flushed, or told to anybody. Writes the last writes over themselves, byte for byte.
    ///
    /// # Errors
    ///
    /// What the disk says, and [`EngineError::Corrupt`] if it says something else than before.
    pub async fn renew(&mut self) -> Result<()> {
        if self.renewed {
            return Ok(());
        }
        let (env, scanned) = (&self.env, &mut self.scanned);
        while let Some(write) = scanned.unproved.front() {
            if let Some(part) = scanned.parts.get(write.part) {
                rewrite(part, write).await?;
            }
            scanned.unproved.pop_front();
            env.yield_if_needed().await;
        }
        // The length that the filling of a file gave it is one more write that may be shown and not
        // be there: a segment whose file turns out shorter would not be believed.
        for slot in std::mem::take(&mut scanned.unused) {
            let Some(last) = slot.bytes.checked_sub(SECTOR as u64) else {
                continue;
            };
            match slot.file.write_at(last, AlignedBuf::zeroed(SECTOR)).await.0 {
                Err(error) if error.kind == DiskErrorKind::NoSpace => {
                    scanned.free.retain(|free| free.number != slot.number);
                }
                written => written?,
            }
        }
        // Lengths and names may have been shown from a cache, too.
        let parts = scanned.parts.iter().map(|part| &part.slot);
        for slot in parts.chain(&scanned.free) {
            slot.file.sync().await?;
        }
        env.disk().sync_dir(&self.dir).await?;
        self.renewed = true;
        Ok(())
    }

    /// The newest snapshot of a partition that the log says was put in place of its content; `None`
    /// if it knows of none since the oldest entry that is not in tables.
    #[must_use]
    pub fn snapshot(&self, partition: PartitionId) -> Option<LogId> {
        self.scanned.replicas.get(partition)?.snapshot
    }

    /// The next group that has entries to apply; `None` after the last.
    ///
    /// # Errors
    ///
    /// What the disk says, and [`EngineError::Corrupt`] if it says something else than before.
    pub async fn next_group(&mut self) -> Result<Option<ReplayGroup<'_>>> {
        let (replay, scanned) = (&mut self.replay, &self.scanned);
        loop {
            let Some(part) = scanned.parts.get(replay.part) else {
                return Ok(None);
            };
            if replay.reader.is_none() {
                replay.reader = Some(Reader::new(&part.slot));
                replay.offset = part.header.area_bytes() as u64;
                replay.sequence = part.header.sequence + 1;
            }
            if replay.sequence == part.end.sequence {
                replay.reader = None;
                replay.part += 1;
                continue;
            }
            break;
        }
        self.group_at_cursor().await.map(Some)
    }

    async fn group_at_cursor(&mut self) -> Result<ReplayGroup<'_>> {
        self.env.yield_if_needed().await;
        let (replay, scanned) = (&mut self.replay, &self.scanned);
        let (Some(part), Some(reader)) = (scanned.parts.get(replay.part), &mut replay.reader)
        else {
            return Err(EngineError::Closed);
        };
        let place = Place {
            epoch: part.header.epoch,
            offset: replay.offset as u32,
        };
        let offset = replay.offset;
        let Some(group) = reader.group(place, replay.sequence).await? else {
            return Err(EngineError::corrupt(&part.path, offset, CHANGED));
        };
        replay.offset += group.header.group_bytes() as u64;
        replay.sequence += 1;
        let group = ReplayGroup {
            header: group.header,
            bytes: group.bytes,
            filter: Filter {
                flushed: &replay.flushed,
                superseded: &scanned.superseded,
                committed: &replay.committed,
            },
        };
        self.replayed += group.header.records as u64;
        Ok(group)
    }

    /// Begins a new segment and opens the log, once what was found is durable.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoSpace`] if a file is needed and there is no room for it; what the disk says.
    pub async fn finish(mut self) -> Result<(Log<E>, Vec<RecoveredReplica>)> {
        self.renew().await?;
        let is_new = self.is_new();
        let (env, scanned) = (&self.env, &mut self.scanned);
        if is_new {
            scanned.log_id = env.random();
        }
        // A newest segment without any group is replaced: opening again and again does not make the
        // log longer.
        let mut reused = None;
        let last_is_empty = scanned.parts.back().is_some_and(|part| {
            part.end.sequence == part.header.sequence + 1 && part.header.prev_epoch != 0
        });
        if last_is_empty && scanned.parts.len() > scanned.retained + 1 {
            reused = scanned.parts.pop_back().map(|part| part.slot);
        }
        let last = scanned.parts.back();
        let area = segment::area_bytes(scanned.replicas.checkpoints()) as u64;
        let mut header = SegmentHeader {
            slot: 0,
            log_id: scanned.log_id,
            epoch: scanned.epoch_newest + if is_new { 1 } else { EPOCHS_SKIPPED },
            sequence: last.map_or(1, |part| part.end.sequence),
            durable_through: last.map_or(0, |part| part.end.sequence - 1),
            prev_epoch: last.map_or(0, |part| part.header.epoch),
            prev_end: last.map_or(0, |part| part.end.offset),
            segment_bytes: 0,
            replicas: 0,
            used_bytes: 0,
            start: if is_new {
                SegmentStart::Format
            } else {
                SegmentStart::Open
            },
        };
        let slot = take_slot(env, &self.dir, &self.options, scanned, area).await?;
        header.slot = slot.number;
        header.segment_bytes = slot.bytes;
        let mut buf = AlignedBuf::zeroed(area as usize);
        header.encode(&mut buf, scanned.replicas.checkpoints());
        slot.file.write_at(0, buf).await.0?;
        // Only now is its own header not needed.
        scanned.free.extend(reused);

        let replicas = recovered(scanned);
        let mut chain: std::collections::VecDeque<_> =
            scanned.parts.drain(..).map(segment_of).collect();
        chain.push_back(Segment {
            slot,
            epoch: header.epoch,
            sequence: header.sequence,
            begin: area,
            needs: chain::needs(scanned.replicas.checkpoints()),
        });
        for (by, partition, from) in &scanned.superseded {
            chain::supersede(&mut chain, *partition, *from, by.group);
        }
        let state = State::new(
            self.options,
            scanned.log_id,
            chain,
            area,
            std::mem::take(&mut scanned.replicas),
            std::mem::take(&mut scanned.free),
            scanned.slot_newest,
        );
        Ok((Log::start(self.env, self.dir, state), replicas))
    }
}

/// Writes over itself what was found intact.
async fn rewrite<F: DiskFile>(part: &Part<F>, write: &Unproved) -> Result<()> {
    let mut reader = Reader::new(&part.slot);
    let place = Place {
        epoch: part.header.epoch,
        offset: write.offset as u32,
    };
    let bytes = if write.offset == 0 {
        let area = reader.at(0, part.header.area_bytes()).await?;
        let same = SegmentHeader::decode(area).is_ok_and(|header| header == part.header);
        (same && part.header.checkpoints(area).is_some()).then_some(area)
    } else {
        let group = reader.group(place, write.sequence).await?;
        group.map(|group| group.bytes)
    };
    let Some(bytes) = bytes else {
        return Err(EngineError::corrupt(&part.path, write.offset, CHANGED));
    };
    let mut buf = AlignedBuf::zeroed(bytes.len());
    buf.copy_from_slice(bytes);
    part.slot.file.write_at(write.offset, buf).await.0?;
    Ok(())
}

/// Makes the directory and its name durable. The parent's own name is its owner's business.
async fn make_dir<E: Env>(env: &E, dir: &Path) -> Result<()> {
    env.disk().create_dir_all(dir).await?;
    if let Some(parent) = dir.parent() {
        env.disk().sync_dir(parent).await?;
    }
    Ok(())
}

fn recovered<F>(scanned: &Scanned<F>) -> Vec<RecoveredReplica> {
    let mut replicas: Vec<_> = scanned
        .replicas
        .checkpoints()
        .map(|entry| RecoveredReplica {
            partition: entry.partition,
            hard: entry.hard,
            truncated: entry.truncated,
            last: entry.last,
            time_ms: entry.time_ms,
            membership: entry.membership.clone(),
            applied: LogId::default(),
            tail: Vec::new(),
        })
        .collect();
    replicas.sort_unstable_by_key(|replica| replica.partition);
    replicas
}

fn segment_of<F>(part: Part<F>) -> Segment<F> {
    Segment {
        needs: chain::needs(part.checkpoints.iter()),
        slot: part.slot,
        epoch: part.header.epoch,
        sequence: part.header.sequence,
        begin: part.header.area_bytes() as u64,
    }
}

/// The file to go on in: the largest free one, else a new one.
async fn take_slot<E: Env>(
    env: &E,
    dir: &Path,
    options: &LogOptions,
    scanned: &mut Scanned<File<E>>,
    area: u64,
) -> Result<Slot<File<E>>> {
    let largest = (0..scanned.free.len()).max_by_key(|place| scanned.free[*place].bytes);
    if let Some(place) = largest
        && scanned.free[place].bytes >= area + ROOM_BYTES_MIN
    {
        let mut slot = scanned.free.swap_remove(place);
        slot.bytes = slot
            .bytes
            .min(options.segment_bytes.max(area + ROOM_BYTES_MIN));
        return Ok(slot);
    }
    scanned.slot_newest += 1;
    let mut options = options.clone();
    options.first_fill_bytes = options.first_fill_bytes.max(area + ROOM_BYTES_MIN);
    let slot = slots::create_first(env, dir, scanned.slot_newest, &options).await?;
    if slot.bytes < area + ROOM_BYTES_MIN {
        return Err(EngineError::Busy(
            "the disk is too slow to begin a log segment",
        ));
    }
    Ok(slot)
}
