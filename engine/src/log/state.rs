//! The log's state between two polls: no I/O here, only what follows what.
//!
//! Every write, be it a group or a segment's header, has a number. Writes wait in one queue in
//! that order:
//!
//! ```text
//!   taken | durable … | in flight (some done, not all before them) … | queued … | open
//!           ^ first                                                              ^ appends go here
//! ```
//!
//! The open group's place on disk is known when it is opened, so records are encoded once, straight
//! into its buffer. When the group does not fit what is left of the segment, the next segment's
//! header is put into the queue before it: a rotation waits for nothing.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::chain::{self, Segment, Slot};
use super::format::group::{self, GROUP_PARTITIONS_MAX, GroupHeader};
use super::format::record::Place;
use super::format::segment::{self, SegmentHeader, SegmentStart};
use super::hold::{HELD_SEGMENTS_MAX, Holds};
use super::options::{AppendError, LogOptions};
use super::places::RecordAt;
use super::pool::Pool;
use super::replicas::Replicas;
use super::stats::LogStats;
use crate::entry::{LogId, PartitionId};
use crate::env::{AlignedBuf, DiskError, SECTOR};
use crate::error::EngineError;
use crate::planted::{self, Bug};

/// How far a write has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Open,
    Queued,
    InFlight,
    Durable,
}

/// One write of the log.
pub(super) struct Group<F> {
    pub(super) stage: Stage,
    pub(super) buf: AlignedBuf,
    pub(super) file: Rc<F>,
    /// Where in the file.
    pub(super) offset: u64,
    pub(super) epoch: u64,
    /// Where the records begin.
    pub(super) body: usize,
    /// Where they end.
    pub(super) end: usize,
    /// How far they may go.
    limit: usize,
    pub(super) records: u32,
    /// How many partitions the header lists, and whether the group before had more.
    listed: (u16, bool),
    /// Set for a segment's header.
    header: Option<SegmentHeader>,
    started: Duration,
    /// What its header said was durable.
    through: u64,
}

/// A write that is to be started.
pub(super) struct Start<F> {
    pub(super) sequence: u64,
    pub(super) file: Rc<F>,
    pub(super) offset: u64,
    pub(super) buf: AlignedBuf,
}

/// Where a record will stand.
pub(super) struct Reserved {
    pub(super) group: u64,
    /// From the start of the group.
    pub(super) at: usize,
    pub(super) place: Place,
}

/// What keeps the next segment from being ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// Nothing, or it is being made.
    Fine,
    /// The disk is full.
    NoSpace,
}

pub(super) struct State<F> {
    pub(super) options: LogOptions,
    pub(super) log_id: u64,
    pub(super) pool: Rc<Pool>,
    groups: VecDeque<Group<F>>,
    /// The number of `groups[0]`.
    first: u64,
    /// All writes up to this number are durable.
    durable: u64,
    /// Everything with records up to this number is covered by a later durable header.
    sealed: u64,
    /// The newest write with records.
    newest_records: u64,
    pub(super) in_flight: usize,
    /// A submit found too many in flight: the next completion starts a write.
    pub(super) submit_wanted: bool,
    /// Partitions of the open group.
    touched: Vec<PartitionId>,
    /// Partitions of the group before it.
    touched_before: Vec<PartitionId>,
    pub(super) chain: VecDeque<Segment<F>>,
    /// Where the next group goes in the newest segment.
    offset: u64,
    pub(super) replicas: Replicas,
    /// Files that hold nothing needed.
    pub(super) free: Vec<Slot<F>>,
    /// The file that the log goes on in when the newest segment is full.
    pub(super) next: Option<Slot<F>>,
    /// What the next one must hold at least, in bytes.
    pub(super) next_bytes_min: u64,
    pub(super) preparing: bool,
    pub(super) growth: Growth,
    /// The highest number of a file so far.
    pub(super) slot_newest: u32,
    pub(super) failed: Option<EngineError>,
    pub(super) closing: bool,
    /// Segments that there may be while the reserve is open; 0 while it is not.
    pub(super) reserve_max: usize,
    pub(super) holds: Holds,
    /// So many of the oldest segments are only held.
    pub(super) held: usize,
    pub(super) stats: LogStats,
}

impl<F> State<F> {
    /// A log whose newest segment has just been begun by a durable header.
    pub(super) fn new(
        options: LogOptions,
        log_id: u64,
        chain: VecDeque<Segment<F>>,
        offset: u64,
        replicas: Replicas,
        free: Vec<Slot<F>>,
        slot_newest: u32,
    ) -> Self {
        let header = chain.back().map_or(0, |segment| segment.sequence);
        Self {
            pool: Rc::new(Pool::new(options.group_bytes, options.buffer_bytes_max)),
            options,
            log_id,
            groups: VecDeque::new(),
            first: header + 1,
            durable: header,
            sealed: header,
            newest_records: 0,
            in_flight: 0,
            submit_wanted: false,
            touched: Vec::new(),
            touched_before: Vec::new(),
            chain,
            offset,
            replicas,
            free,
            next: None,
            next_bytes_min: 0,
            preparing: false,
            growth: Growth::Fine,
            slot_newest,
            failed: None,
            closing: false,
            reserve_max: 0,
            holds: Holds::default(),
            held: 0,
            stats: LogStats::default(),
        }
    }

    pub(super) fn sequence_after_last(&self) -> u64 {
        self.first + self.groups.len() as u64
    }

    /// Makes room for a record of `bytes` in the open group.
    #[inline]
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<Reserved, AppendError> {
        self.make_room(bytes)?;
        let group = self.sequence_after_last() - 1;
        let Some(open) = self.groups.back_mut() else {
            return Err(AppendError::Failed);
        };
        let at = open.end;
        open.end += bytes;
        open.records += 1;
        self.stats.records += 1;
        self.stats.record_bytes += bytes as u64;
        Ok(Reserved {
            group,
            at,
            place: Place {
                epoch: open.epoch,
                offset: (open.offset + at as u64) as u32,
            },
        })
    }

    /// Sees to it that a record of `bytes` would be taken now.
    #[inline]
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), AppendError> {
        if self.failed.is_some() || self.closing {
            return Err(AppendError::Failed);
        }
        let fits = self
            .groups
            .back()
            .is_some_and(|group| group.stage == Stage::Open && group.end + bytes <= group.limit);
        if !fits {
            self.close_open();
            self.open(bytes)?;
        }
        Ok(())
    }

    /// The bytes of the record just reserved.
    #[inline]
    pub(super) fn reserved(&mut self, at: &Reserved, bytes: usize) -> &mut [u8] {
        let place = (at.group - self.first) as usize;
        &mut self.groups[place].buf[at.at..at.at + bytes]
    }

    /// Notes that the open group has a record of the partition.
    #[inline]
    pub(super) fn touch(&mut self, partition: PartitionId, group: u64) {
        let replica = self.replicas.entry(partition);
        if replica.group != group {
            replica.group = group;
            self.touched.push(partition);
        }
    }

    /// Notes an entry, appended to the open group.
    #[inline]
    pub(super) fn note_entry(
        &mut self,
        partition: PartitionId,
        id: LogId,
        time_ms: u64,
        reserved: &Reserved,
    ) {
        let at = RecordAt {
            sequence: reserved.group,
            offset: self.offset,
            record: reserved.at as u32,
            segment: self.chain.back().map_or(0, |segment| segment.sequence),
        };
        self.replicas.note_entry(partition, id, time_ms, at);
    }

    /// Closes the open group: nothing more is appended to it.
    fn close_open(&mut self) {
        if let Some(open) = self.groups.back_mut()
            && open.stage == Stage::Open
        {
            open.stage = Stage::Queued;
            self.offset = open.offset + (open.end.next_multiple_of(SECTOR)) as u64;
            self.touched_before.clear();
            std::mem::swap(&mut self.touched, &mut self.touched_before);
        }
    }

    /// Opens a group with room for a record of `bytes`, in a new segment if need be.
    fn open(&mut self, bytes: usize) -> Result<(), AppendError> {
        let listed = self.touched_before.len().min(GROUP_PARTITIONS_MAX);
        let body = group::header_bytes(listed);
        let wanted = (body + bytes).next_multiple_of(SECTOR);
        // A segment's last sector is left to the empty group that may have to seal it.
        let spared = if bytes > 0 { SECTOR as u64 } else { 0 };
        let room =
            |segment: &Segment<F>, offset: u64| segment.slot.bytes.saturating_sub(offset + spared);
        let fits = self
            .chain
            .back()
            .is_some_and(|segment| room(segment, self.offset) >= wanted as u64);
        if !fits {
            self.rotate(wanted + SECTOR)?;
        }
        let Some(buf) = self.pool.take(wanted) else {
            self.stats.full += 1;
            return Err(AppendError::Full);
        };
        let Some(segment) = self.chain.back() else {
            return Err(AppendError::Failed);
        };
        let mut new = Group {
            stage: Stage::Open,
            limit: buf.len().min(room(segment, self.offset) as usize),
            buf,
            file: Rc::clone(&segment.slot.file),
            offset: self.offset,
            epoch: segment.epoch,
            body,
            end: body,
            records: 0,
            listed: (listed as u16, self.touched_before.len() > listed),
            header: None,
            started: Duration::ZERO,
            through: 0,
        };
        group::write_partitions(&mut new.buf, &self.touched_before[..listed]);
        self.groups.push_back(new);
        Ok(())
    }

    /// Puts the next segment's header into the queue. The segment must have room for a group of
    /// `group_bytes`.
    fn rotate(&mut self, group_bytes: usize) -> Result<(), AppendError> {
        let area = segment::area_bytes(self.replicas.checkpoints());
        let wanted = (area + group_bytes) as u64;
        if wanted > self.options.segment_bytes {
            return Err(AppendError::TooLarge);
        }
        if self.next.as_ref().is_some_and(|next| next.bytes < wanted) {
            // Too small for this record (a log just formatted begins with small files).
            self.free.extend(self.next.take());
        }
        let Some(slot) = self.next.take() else {
            self.next_bytes_min = self.next_bytes_min.max(wanted);
            return Err(if self.growth == Growth::NoSpace {
                self.stats.no_space += 1;
                AppendError::NoSpace
            } else {
                self.stats.full += 1;
                AppendError::Full
            });
        };
        let Some(previous) = self.chain.back() else {
            return Err(AppendError::Failed);
        };
        let mut header = SegmentHeader {
            slot: slot.number,
            log_id: self.log_id,
            epoch: previous.epoch + 1,
            sequence: self.sequence_after_last(),
            durable_through: 0,
            prev_epoch: previous.epoch,
            prev_end: self.offset,
            segment_bytes: slot.bytes,
            replicas: 0,
            used_bytes: 0,
            start: SegmentStart::Full,
        };
        let mut buf = AlignedBuf::zeroed(area);
        header.encode(&mut buf, self.replicas.checkpoints());
        self.next_bytes_min = 0;
        self.offset = area as u64;
        self.stats.segments_begun += 1;
        self.groups.push_back(Group {
            stage: Stage::Queued,
            limit: area,
            buf,
            file: Rc::clone(&slot.file),
            offset: 0,
            epoch: header.epoch,
            body: area,
            end: area,
            records: 0,
            listed: (0, false),
            header: Some(header),
            started: Duration::ZERO,
            through: 0,
        });
        self.chain.push_back(Segment {
            slot,
            epoch: header.epoch,
            sequence: header.sequence,
            begin: area as u64,
            needs: chain::needs(self.replicas.checkpoints()),
        });
        Ok(())
    }

    /// Whether the last records would be taken for a torn tail if they were damaged now, and
    /// nothing is under way that changes it.
    pub(super) fn wants_seal(&self) -> bool {
        self.failed.is_none()
            && self.sealed < self.newest_records
            && self.durable >= self.newest_records
            && self.sequence_after_last() == self.durable + 1
    }

    /// The number of the newest write, to see whether the log was idle.
    pub(super) fn newest(&self) -> u64 {
        self.sequence_after_last() - 1
    }

    /// Queues an empty group, whose header covers everything before it.
    pub(super) fn seal(&mut self) {
        if !self.wants_seal() {
            return;
        }
        // Without a buffer, whoever holds them all goes on soon, and then it is tried again.
        if self.open(0).is_ok() {
            self.close_open();
        }
    }

    /// The next write to start, if one is due and fewer than the limit are in flight. Closes the
    /// open group for it.
    pub(super) fn start(&mut self, now: Duration) -> Option<Start<F>> {
        if self.failed.is_some() {
            return None;
        }
        let waiting = |group: &Group<F>| matches!(group.stage, Stage::Queued | Stage::Open);
        let place = self.groups.iter().position(waiting)?;
        let sequence = self.first + place as u64;
        if self.in_flight >= self.options.writes_in_flight || !self.may_begin_segment(sequence) {
            self.submit_wanted = true;
            return None;
        }
        if self.groups[place].stage == Stage::Open {
            self.close_open();
        }
        let durable = self.durable;
        let group = &mut self.groups[place];
        let bytes = group.end.next_multiple_of(SECTOR);
        if let Some(header) = &mut group.header {
            header.durable_through = durable;
            header.encode_fixed(&mut group.buf);
        } else {
            let end = group.end;
            group.buf[end..bytes].fill(0);
            let header = GroupHeader {
                epoch: group.epoch,
                sequence,
                durable_through: durable,
                offset: group.offset as u32,
                body_bytes: (group.end - group.body) as u32,
                records: group.records,
                partitions: group.listed.0,
                more_partitions: group.listed.1,
            };
            header.encode(&mut group.buf);
        }
        group.stage = Stage::InFlight;
        group.started = now;
        group.through = durable;
        self.in_flight += 1;
        Some(Start {
            sequence,
            file: Rc::clone(&group.file),
            offset: group.offset,
            buf: group.buf.share(bytes),
        })
    }

    /// Whether the write of this number is no segment's header, or the header before it is durable:
    /// two are never in flight together, so that none can survive a crash without the one before.
    fn may_begin_segment(&self, sequence: u64) -> bool {
        let newest_first = self.chain.iter().rev();
        let mut before = newest_first
            .map(|segment| segment.sequence)
            .skip_while(|header| *header > sequence);
        before.next() != Some(sequence) || before.next().is_none_or(|header| header <= self.durable)
    }

    /// Takes in the end of a write.
    pub(super) fn complete(&mut self, sequence: u64, now: Duration, result: Result<(), DiskError>) {
        self.in_flight -= 1;
        if let Err(error) = result {
            // Never retried, never acknowledged: what is on disk now is unknown.
            self.failed.get_or_insert(EngineError::Disk(error));
            return;
        }
        let place = sequence.checked_sub(self.first);
        let Some(group) = place.and_then(|place| self.groups.get_mut(place as usize)) else {
            return;
        };
        group.stage = Stage::Durable;
        self.sealed = self.sealed.max(group.through);
        self.stats
            .write_times
            .record(now.saturating_sub(group.started));
        let bytes = group.end.next_multiple_of(SECTOR) as u64;
        self.stats.written_bytes += bytes;
        if group.records > 0 {
            self.stats.groups += 1;
            self.stats.group_sizes.record(bytes);
            self.newest_records = self.newest_records.max(sequence);
        } else if group.header.is_none() {
            self.stats.seals += 1;
        }
        while let Some(group) = self.groups.get((self.durable + 1 - self.first) as usize)
            && group.stage == Stage::Durable
        {
            self.durable += 1;
        }
        if planted::is(Bug::DurableOutOfOrder) {
            self.durable = self.durable.max(sequence);
        }
        self.drop_empty();
    }

    /// Drops durable writes at the front that have nothing to take.
    fn drop_empty(&mut self) {
        while let Some(front) = self.groups.front()
            && front.stage == Stage::Durable
            && front.records == 0
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) -> Option<Group<F>> {
        let mut group = self.groups.pop_front()?;
        self.first += 1;
        if group.header.is_none() && group.records == 0 {
            let buf = std::mem::replace(&mut group.buf, AlignedBuf::zeroed(0));
            self.pool.give(buf);
        }
        Some(group)
    }

    /// The next durable group with records, and its number.
    pub(super) fn take(&mut self) -> Option<(u64, Group<F>)> {
        self.drop_empty();
        let sequence = self.first;
        if sequence > self.durable {
            return None;
        }
        let group = self.pop_front()?;
        self.drop_empty();
        Some((sequence, group))
    }

    /// The group of this number, if it was not taken yet.
    pub(super) fn pending(&self, sequence: u64) -> Option<&Group<F>> {
        let place = sequence.checked_sub(self.first)?;
        self.groups.get(usize::try_from(place).ok()?)
    }

    /// How long the oldest write has been under way.
    pub(super) fn oldest_in_flight(&self, now: Duration) -> Option<Duration> {
        self.groups
            .iter()
            .find(|group| group.stage == Stage::InFlight)
            .map(|group| now.saturating_sub(group.started))
    }

    /// Whether the write of this number and all before it are durable.
    pub(super) fn is_durable(&self, sequence: u64) -> bool {
        sequence <= self.durable
    }

    /// Whether everything appended is durable.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.sequence_after_last() == self.durable + 1
    }

    /// Gives back the oldest segments that tables have made unnecessary.
    pub(super) fn recycle(&mut self, flushed: &dyn Fn(PartitionId) -> LogId) {
        self.holds.released = false;
        self.recycle_oldest(flushed);
        if !self.is_in_reserve() {
            self.reserve_max = 0;
        }
    }

    fn recycle_oldest(&mut self, flushed: &dyn Fn(PartitionId) -> LogId) {
        self.held = 0;
        while self.segments() > self.options.segments_retained + 1 {
            let Some(second) = self.chain.get(self.held + 1) else {
                return;
            };
            let durable = self.durable;
            // Not before a header on the disk says of what superseded something that it is durable: a
            // file that is written over while a scan still takes it for needed must not look torn.
            let free = second.sequence <= durable
                && second.needs.iter().all(|need| need.by <= self.sealed)
                && chain::met(&second.needs, flushed);
            if !free && !planted::is(Bug::RecycledTooEarly) {
                return;
            }
            if self.is_held(second.sequence) {
                self.held += 1;
                if self.held > HELD_SEGMENTS_MAX {
                    self.give_up_holds();
                    self.held = 0;
                }
                continue;
            }
            for need in &second.needs {
                let upto = if need.index == need.last.index {
                    need.last
                } else {
                    flushed(need.partition)
                };
                if self.replicas.get(need.partition).is_some() {
                    self.replicas.truncate(need.partition, upto);
                }
            }
            self.replicas.forget_before(second.sequence);
            if let Some(oldest) = self.chain.pop_front() {
                self.stats.segments_recycled += 1;
                self.free.push(oldest.slot);
            }
        }
    }

    /// Whether more segments are in use than the limit allows without the reserve.
    pub(super) fn is_in_reserve(&self) -> bool {
        self.segments() > self.options.segments_max
    }

    /// Whether the oldest segment waits for this partition.
    pub(super) fn pins(&self, partition: PartitionId, flushed: LogId) -> bool {
        let second = self.chain.get(self.held + 1);
        second.is_some_and(|segment| {
            let mut needs = segment.needs.iter();
            needs.any(|need| need.partition == partition && need.index > flushed.index)
        })
    }

    /// How many bytes of the newest segment are used, and of how many.
    pub(super) fn used(&self) -> Option<(u64, u64)> {
        let newest = self.chain.back()?;
        Some((self.offset, newest.slot.bytes))
    }

    /// Segments that hold entries which are not in tables, or may.
    pub(super) fn segments(&self) -> usize {
        self.chain.len() - self.held
    }

    /// The directory entry of a slot.
    pub(super) fn slot_path(dir: &std::path::Path, number: u32) -> PathBuf {
        dir.join(format!("{number:08}.seg"))
    }
}
