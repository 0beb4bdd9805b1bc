//! Finds out what the log holds after a stop of any kind.
//!
//! 1. Read every file's header area. The intact header of the highest epoch is the newest segment.
//! 2. Follow `prev_epoch` back until a segment whose predecessors are not needed: every entry that
//!    its checkpoint knows of is in tables. A predecessor that is needed and missing is corruption.
//! 3. Walk the groups forward from there, by their numbers. Each segment must end exactly where the
//!    next one's header says, with the state that its checkpoint says.
//! 4. The walk ends at the first group that is missing or damaged. If any intact header after it
//!    says that it had been durable (`durable_through`), the group was acknowledged: corruption.
//!    Else it is the torn tail: nobody was told that it was there, and it is cut off, with
//!    everything after it.
//!    Damage in a segment before the newest is passed over if nothing of it is needed, as far as later
//!    segments tell: its file had been given back, and was being written over.
//! 5. What is there and was not cut off counts from now on. Those writes among it that no later header
//!    says had been durable are kept as `unproved`: see [`Recovery::renew`].
//!
//! [`Recovery::renew`]: super::Recovery::renew
//!
//! Two headers are never in flight together, so a header that is there means that those before it
//! were. The newest segment's header may be what is missing: groups of a higher epoch than any header's, in a file
//! that is not part of the log, are looked for as well.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::chain::{self, Slot};
use super::format::record::{RECORD_BYTES_MAX, RecordView};
use super::format::segment::{CheckpointEntry, HeaderError, SEGMENT_VERSION, SegmentHeader};
use super::handle::{File, RecordRef};
use super::places::RecordAt;
use super::reader::{Cursor, Reader, walk};
use super::replicas::Replicas;
use ahash::AHashMap;

use crate::entry::{Effect, LogId, PartitionId};
use crate::env::{Disk, DiskError, DiskErrorKind, DiskFile, Env, FileClass, SECTOR};
use crate::error::{EngineError, Result};
use crate::planted::{self, Bug};

/// How much further than the newest header's area a free file is searched for groups whose header
/// is lost, in bytes.
const PROBE_BYTES: u64 = 1 << 20;
/// With so many bytes after a bad group in which no group begins, none follows: no group is larger.
const GAP_BYTES: u64 = RECORD_BYTES_MAX as u64 + (1 << 20);

/// A file of the log's directory.
pub(super) struct Found<F> {
    pub(super) slot: Slot<F>,
    pub(super) path: PathBuf,
    /// Its header, if that and all checkpoints are intact.
    pub(super) header: Option<(SegmentHeader, Vec<CheckpointEntry>)>,
}

/// A segment that the log consists of.
pub(super) struct Part<F> {
    pub(super) slot: Slot<F>,
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    pub(super) checkpoints: Vec<CheckpointEntry>,
    /// Where its groups end.
    pub(super) end: Cursor,
}

/// A write that is intact, and of which no later header says that it had been durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unproved {
    /// Its segment's place in [`Scanned::parts`].
    pub(super) part: usize,
    /// Where it begins, in bytes; 0 for the segment's header area.
    pub(super) offset: u64,
    pub(super) sequence: u64,
}

/// What was found.
pub(super) struct Scanned<F> {
    pub(super) log_id: u64,
    /// Segments, oldest first; the first `retained` of them are not needed. Empty: a new log.
    pub(super) parts: VecDeque<Part<F>>,
    pub(super) retained: usize,
    /// Files that hold nothing needed.
    pub(super) free: Vec<Slot<F>>,
    /// Those of them that were filled and never written to, as far as their headers tell.
    pub(super) unused: Vec<Slot<F>>,
    pub(super) slot_newest: u32,
    /// The highest epoch seen anywhere.
    pub(super) epoch_newest: u64,
    /// The segment before the first is not there.
    missing: Option<u64>,
    /// The part in which the walk met damage.
    damaged: Option<usize>,
    /// The state at the end of the log.
    pub(super) replicas: Replicas,
    /// From which record on entries of a partition with at least this index no longer counted.
    pub(super) superseded: Vec<(RecordRef, PartitionId, u64)>,
    /// By partition: the entries found that change its group's membership, in order.
    pub(super) membership_changes: AHashMap<PartitionId, Vec<u64>>,
    /// The last few writes: hardly more than can be in flight at once.
    pub(super) unproved: VecDeque<Unproved>,
}

impl<F> Scanned<F> {
    /// Has the walk begin behind the segment that is damaged, as if that were missing. `false` if none
    /// follows it.
    ///
    /// A segment that was given back because what tables lack of it was superseded looks as if it were
    /// needed until its file has another header: a crash may have left the groups behind that header,
    /// and not the header. Whether that is so, [`check_missing`] sees.
    fn begin_after_damage(&mut self, files: &mut Vec<Found<F>>) -> bool {
        let Some(at) = self.damaged.take().filter(|at| at + 1 < self.parts.len()) else {
            return false;
        };
        self.missing = self.parts.get(at).map(|part| part.header.epoch);
        let gone = self.parts.drain(..=at).map(Found::from);
        files.extend(gone);
        self.retained = 0;
        self.replicas = Replicas::default();
        self.superseded.clear();
        self.membership_changes.clear();
        self.unproved.clear();
        true
    }
}

impl<F> From<Part<F>> for Found<F> {
    /// The file of a segment that is not part of the log any more.
    fn from(part: Part<F>) -> Self {
        Self {
            slot: part.slot,
            path: part.path,
            header: None,
        }
    }
}

/// Takes in a write that is intact, after all those before it: it may be the proof of some of them.
fn prove(unproved: &mut VecDeque<Unproved>, write: Unproved, durable_through: u64) {
    while unproved
        .front()
        .is_some_and(|oldest| oldest.sequence <= durable_through)
    {
        unproved.pop_front();
    }
    unproved.push_back(write);
}

/// Looks at the directory `dir`, which exists.
pub(super) async fn scan<E: Env>(
    env: &E,
    dir: &Path,
    retained_max: usize,
    flushed: &dyn Fn(PartitionId) -> LogId,
) -> Result<Scanned<File<E>>> {
    let mut files = find(env, dir).await?;
    let slot_newest = files.iter().map(|file| file.slot.number).max().unwrap_or(0);
    let headers = || files.iter().filter_map(|file| file.header.as_ref());
    let newest = headers().map(|(header, _)| *header).max_by_key(|h| h.epoch);
    let mut scanned = Scanned {
        log_id: newest.map_or(0, |header| header.log_id),
        parts: VecDeque::new(),
        retained: 0,
        free: Vec::new(),
        unused: Vec::new(),
        slot_newest,
        epoch_newest: newest.map_or(0, |header| header.epoch),
        missing: None,
        damaged: None,
        replicas: Replicas::default(),
        superseded: Vec::new(),
        membership_changes: AHashMap::new(),
        unproved: VecDeque::new(),
    };
    if let Some(stranger) = files.iter().find(|file| {
        let header = file.header.as_ref();
        header.is_some_and(|(header, _)| header.log_id != scanned.log_id)
    }) {
        let what = "the segment belongs to another log";
        return Err(EngineError::corrupt(&stranger.path, 0, what));
    }
    if let Some(newest) = newest {
        chain_back(
            &mut files,
            newest.epoch,
            retained_max,
            flushed,
            &mut scanned,
        );
    }
    let mut damage = None;
    while let Err(error) = walk_parts(env, &mut files, &mut scanned, flushed).await {
        if !matches!(error, EngineError::Corrupt { .. }) || !scanned.begin_after_damage(&mut files)
        {
            return Err(damage.unwrap_or(error));
        }
        damage.get_or_insert(error);
    }
    check_missing(&scanned, flushed, dir).map_err(|error| damage.unwrap_or(error))?;
    let unused = files.iter().filter(|file| file.header.is_none());
    scanned.unused = unused.map(|file| file.slot.clone()).collect();
    scanned.free = files.into_iter().map(|file| file.slot).collect();
    Ok(scanned)
}

/// Opens every segment file and reads its header area.
async fn find<E: Env>(env: &E, dir: &Path) -> Result<Vec<Found<File<E>>>> {
    let mut files = Vec::new();
    for path in env.disk().list(dir).await? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(number) = name
            .and_then(|name| name.strip_suffix(".seg"))
            .and_then(|digits| digits.parse().ok())
        else {
            continue;
        };
        let file = match env.disk().open(&path, FileClass::Log).await {
            // The name outlived the file, or was just removed.
            Err(error) if error.kind == DiskErrorKind::NotFound => continue,
            other => other?,
        };
        let bytes = file.len().await? / SECTOR as u64 * SECTOR as u64;
        let slot = Slot {
            number,
            file: Rc::new(file),
            bytes: bytes.min(u64::from(u32::MAX) / SECTOR as u64 * SECTOR as u64),
        };
        let header = read_header(&slot, &path).await?;
        files.push(Found { slot, path, header });
        env.yield_if_needed().await;
    }
    Ok(files)
}

async fn read_header<F: DiskFile>(
    slot: &Slot<F>,
    path: &Path,
) -> Result<Option<(SegmentHeader, Vec<CheckpointEntry>)>> {
    let mut reader = Reader::new(slot);
    let header = match SegmentHeader::decode(reader.at(0, SECTOR).await?) {
        Ok(header) => header,
        Err(HeaderError::Invalid) => return Ok(None),
        Err(HeaderError::Version(version)) => {
            return Err(EngineError::WrongFormat {
                file: path.to_path_buf(),
                found: format!("log segment, version {version}"),
                expected: format!("versions up to {SEGMENT_VERSION}"),
            });
        }
    };
    if header.slot != slot.number {
        // Whatever was here, this was written over it.
        let what = format!("the header is that of segment file {}", header.slot);
        return Err(EngineError::corrupt(path, 0, what));
    }
    if header.segment_bytes > slot.bytes {
        return Ok(None);
    }
    let area = reader.at(0, header.area_bytes()).await?;
    Ok(header
        .checkpoints(area)
        .map(|checkpoints| (header, checkpoints)))
}

/// Takes the segments that the log consists of out of `files`, from the newest back.
fn chain_back<F>(
    files: &mut Vec<Found<F>>,
    newest: u64,
    retained_max: usize,
    flushed: &dyn Fn(PartitionId) -> LogId,
    scanned: &mut Scanned<F>,
) {
    let mut wanted = newest;
    let mut needed = true;
    while wanted != 0 {
        let place = files.iter().position(|file| {
            let header = file.header.as_ref();
            header.is_some_and(|(header, _)| header.epoch == wanted)
        });
        let Some(place) = place else {
            scanned.missing = needed.then_some(wanted);
            return;
        };
        let file = files.swap_remove(place);
        let Some((header, checkpoints)) = file.header else {
            return;
        };
        wanted = header.prev_epoch;
        if !needed {
            scanned.retained += 1;
        }
        if chain::met(&chain::needs(checkpoints.iter()), flushed) {
            needed = false;
        }
        scanned.parts.push_front(Part {
            slot: file.slot,
            path: file.path,
            header,
            checkpoints,
            end: Cursor::first(&header),
        });
        if !needed && scanned.retained >= retained_max {
            return;
        }
    }
}

/// A segment that is not there may have been recycled although tables do not hold all that was
/// appended to it: what they lack was superseded.
fn check_missing<F>(
    scanned: &Scanned<F>,
    flushed: &dyn Fn(PartitionId) -> LogId,
    dir: &Path,
) -> Result<()> {
    let (Some(epoch), Some(first)) = (scanned.missing, scanned.parts.front()) else {
        return Ok(());
    };
    let mut needs = chain::needs(first.checkpoints.iter());
    for need in &mut needs {
        for (_, partition, from) in &scanned.superseded {
            if *partition == need.partition {
                need.index = need.index.min(from.saturating_sub(1));
            }
        }
    }
    if chain::met(&needs, flushed) {
        return Ok(());
    }
    let what = format!(
        "the segment of epoch {epoch} is missing or its header is damaged, and it holds entries \
         that are not in tables"
    );
    Err(EngineError::corrupt(dir, 0, what))
}

/// Walks the needed segments forward, takes in every record, and cuts off the torn tail.
async fn walk_parts<E: Env>(
    env: &E,
    files: &mut Vec<Found<File<E>>>,
    scanned: &mut Scanned<File<E>>,
    flushed: &dyn Fn(PartitionId) -> LogId,
) -> Result<()> {
    let mut at = scanned.retained;
    while at < scanned.parts.len() {
        let next = scanned.parts.get(at + 1).map(|part| part.header);
        let part = &mut scanned.parts[at];
        if at == scanned.retained {
            for entry in &part.checkpoints {
                scanned.replicas.set(entry);
                scanned.replicas.truncate(entry.partition, entry.last);
            }
        } else {
            check_checkpoint(part, &scanned.replicas)?;
        }
        let (replicas, superseded) = (&mut scanned.replicas, &mut scanned.superseded);
        let changes = &mut scanned.membership_changes;
        let unproved = &mut scanned.unproved;
        let write = |offset, sequence| Unproved {
            part: at,
            offset,
            sequence,
        };
        let mut reader = Reader::new(&part.slot);
        let end = next.map(|header| header.sequence);
        let header = part.header;
        prove(unproved, write(0, header.sequence), header.durable_through);
        part.end = walk(env, &mut reader, &header, end, |group, bytes| {
            let itself = write(u64::from(group.offset), group.sequence);
            prove(unproved, itself, group.durable_through);
            for (offset, record) in group.records(bytes) {
                let at = RecordAt {
                    sequence: group.sequence,
                    offset: u64::from(group.offset),
                    record: offset,
                    segment: header.sequence,
                };
                if let Some((partition, from)) = replicas.observe(&record, at) {
                    let group = group.sequence;
                    superseded.push((RecordRef { group, offset }, partition, from));
                    if let Some(changes) = changes.get_mut(&partition) {
                        changes.retain(|index| *index < from);
                    }
                }
                if let RecordView::Entry { head, mut effects } = record
                    && effects.any(|effect| matches!(effect, Effect::Membership { .. }))
                {
                    changes
                        .entry(head.partition)
                        .or_default()
                        .push(head.id.index);
                }
            }
        })
        .await?;
        match next {
            Some(next) if part.end.sequence == next.sequence => {
                if part.end.offset != next.prev_end {
                    let what = "the segment does not end where the next one says";
                    return Err(EngineError::corrupt(&part.path, part.end.offset, what));
                }
                at += 1;
            }
            _ => {
                scanned.damaged = Some(at);
                cut(env, files, scanned, at).await?;
                break;
            }
        }
    }
    if scanned.parts.is_empty() {
        refuse_groups_without_header(env, files, scanned).await?;
    }
    for entry in scanned.replicas.checkpoints() {
        let (tables, log) = (flushed(entry.partition), entry.last);
        if tables.index > log.index
            && let Some(part) = scanned.parts.back()
        {
            let what = format!(
                "partition {}: the tables hold entry {} and the log ends at {}",
                entry.partition, tables.index, log.index
            );
            return Err(EngineError::corrupt(&part.path, part.end.offset, what));
        }
    }
    Ok(())
}

/// The checkpoint of a segment repeats what the records before it said.
fn check_checkpoint<F>(part: &Part<F>, replicas: &Replicas) -> Result<()> {
    let same = part.checkpoints.len() == replicas.checkpoints().count()
        && part
            .checkpoints
            .iter()
            .all(|entry| replicas.agrees_with(entry));
    if same {
        return Ok(());
    }
    let what = "the checkpoint does not agree with the records before it";
    Err(EngineError::corrupt(&part.path, 0, what))
}

/// The log ends within part `at`: decides whether by a torn tail, and if so forgets what follows.
async fn cut<E: Env>(
    env: &E,
    files: &mut Vec<Found<File<E>>>,
    scanned: &mut Scanned<File<E>>,
    at: usize,
) -> Result<()> {
    let part = &scanned.parts[at];
    let (bad, epoch) = (part.end.sequence, part.header.epoch);
    let mut cover = Cover::new(bad, epoch);
    cover.search(env, &part.slot, part.end.offset).await?;
    for later in scanned.parts.iter().skip(at + 1) {
        cover.through(later.header.durable_through);
        cover.search(env, &later.slot, SECTOR as u64).await?;
    }
    let area = part.header.area_bytes() as u64;
    let mut lost_header = Cover::new(bad, scanned.epoch_newest + 1);
    for file in files.iter() {
        lost_header
            .probe(env, &file.slot, area + PROBE_BYTES)
            .await?;
    }
    scanned.epoch_newest = scanned.epoch_newest.max(lost_header.epoch_newest);
    let through = cover.durable_through.max(lost_header.durable_through);
    if through >= bad && !planted::is(Bug::TornTailAccepted) {
        let mut listed = cover.partitions;
        listed.sort_unstable();
        let what = format!(
            "group {bad} is damaged or missing although it had been acknowledged{}",
            if listed.is_empty() {
                String::new()
            } else {
                format!(" (it held records of partitions {listed:?})")
            }
        );
        return Err(EngineError::corrupt(&part.path, part.end.offset, what));
    }
    while scanned.parts.len() > at + 1 {
        files.extend(scanned.parts.pop_back().map(Found::from));
    }
    Ok(())
}

/// No header is intact: fine for a log that was never begun, else its first segment is damaged.
async fn refuse_groups_without_header<E: Env>(
    env: &E,
    files: &[Found<File<E>>],
    scanned: &mut Scanned<File<E>>,
) -> Result<()> {
    for file in files {
        let mut cover = Cover::new(0, 1);
        cover.probe(env, &file.slot, PROBE_BYTES).await?;
        if cover.epoch_newest > 0 {
            let what = "the segment's header is damaged";
            return Err(EngineError::corrupt(&file.path, 0, what));
        }
    }
    scanned.epoch_newest = 0;
    Ok(())
}

/// Looks for headers that say that a write had been durable.
struct Cover {
    bad: u64,
    epoch_min: u64,
    durable_through: u64,
    epoch_newest: u64,
    /// Which partitions the bad group held, if the one after it is there.
    partitions: Vec<PartitionId>,
}

impl Cover {
    fn new(bad: u64, epoch_min: u64) -> Self {
        Self {
            bad,
            epoch_min,
            durable_through: 0,
            epoch_newest: 0,
            partitions: Vec::new(),
        }
    }

    fn through(&mut self, durable_through: u64) {
        self.durable_through = self.durable_through.max(durable_through);
    }

    /// Looks at every sector from `offset` on where a group may begin.
    async fn search<E: Env>(
        &mut self,
        env: &E,
        slot: &Slot<File<E>>,
        offset: u64,
    ) -> Result<(), DiskError> {
        let mut reader = Reader::new(slot);
        let (mut at, mut quiet_since) = (offset, offset);
        while at < slot.bytes && at - quiet_since < GAP_BYTES {
            if let Some(header) = reader.header_at(at, self.epoch_min).await?
                && header.sequence > self.bad
            {
                self.epoch_newest = self.epoch_newest.max(header.epoch);
                self.through(header.durable_through);
                if header.sequence == self.bad + 1 {
                    let sector = reader.at(at, SECTOR).await?;
                    self.partitions = header.listed(sector).collect();
                }
                quiet_since = at;
            }
            at += SECTOR as u64;
            env.yield_if_needed().await;
        }
        Ok(())
    }

    /// Looks at the first `bytes` of a file that is not part of the log, and at all of it if a
    /// group turns up there.
    async fn probe<E: Env>(
        &mut self,
        env: &E,
        slot: &Slot<File<E>>,
        bytes: u64,
    ) -> Result<(), DiskError> {
        let mut reader = Reader::new(slot);
        let mut at = 0;
        while at < bytes.min(slot.bytes) {
            if reader.header_at(at, self.epoch_min).await?.is_some() {
                return self.search(env, slot, at).await;
            }
            at += SECTOR as u64;
            env.yield_if_needed().await;
        }
        Ok(())
    }
}
