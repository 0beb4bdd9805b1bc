//! A segment's header area: who it is, what it follows, and a checkpoint of every replica.
//!
//! The area is a fixed part of 96 bytes with its own checksum, then one checkpoint record for each
//! replica, padded with zeros to whole sectors. Groups follow directly.

use super::record::{self, CheckpointView, HardState, Place, RecordView};
use super::{Fields, Put, crc32c};
use crate::entry::{LogId, PartitionId};
use crate::env::SECTOR;

/// The first eight bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"RINGBLOG";
/// The format's version. All before it are read as well: they lack some kinds of records or effects.
pub const SEGMENT_VERSION: u16 = 3;
/// Bytes of the fixed part of the header area.
pub const SEGMENT_HEADER_BYTES: usize = 96;
/// Largest header area, in bytes.
pub const HEADER_AREA_BYTES_MAX: usize = 16 << 20;

/// Why a segment was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentStart {
    /// The log was formatted.
    Format,
    /// The segment before was full.
    Full,
    /// The log was opened: what the segment before holds past `prev_end` does not count.
    Open,
}

/// The fixed part of a segment's header area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The number in the file's name.
    pub slot: u32,
    /// Drawn at random when the log was formatted: tells one shard's files from another's.
    pub log_id: u64,
    /// Higher than that of any segment begun before.
    pub epoch: u64,
    /// The number of this write, in one count with the groups.
    pub sequence: u64,
    /// Every write up to this number was durable when this one was submitted.
    pub durable_through: u64,
    /// The epoch of the segment that this one follows; 0 for none.
    pub prev_epoch: u64,
    /// Where the log ended in the segment before, in bytes.
    pub prev_end: u64,
    /// How much of the file may be used, in bytes.
    pub segment_bytes: u64,
    /// How many checkpoint records follow.
    pub replicas: u32,
    /// Length of the fixed part and the records, in bytes, without padding.
    pub used_bytes: u32,
    /// Why it was begun.
    pub start: SegmentStart,
}

/// What a checkpoint says of a replica, owned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckpointEntry {
    /// The partition.
    pub partition: PartitionId,
    /// Its last entry.
    pub last: LogId,
    /// Its hard state.
    pub hard: HardState,
    /// The last entry that was no longer in the log.
    pub truncated: LogId,
    /// The partition's time at `last`.
    pub time_ms: u64,
    /// The group's membership, as the consensus layer wrote it.
    pub membership: Vec<u8>,
}

impl CheckpointEntry {
    pub(crate) fn view(&self) -> CheckpointView<'_> {
        CheckpointView {
            partition: self.partition,
            last: self.last,
            hard: self.hard,
            truncated: self.truncated,
            time_ms: self.time_ms,
            membership: &self.membership,
        }
    }
}

/// Why a header area was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// It is no header, or not an intact one.
    Invalid,
    /// It is intact and of another version.
    Version(u16),
}

/// Length of a header area with these checkpoints, padded, in bytes.
#[must_use]
pub fn area_bytes<'a>(checkpoints: impl Iterator<Item = &'a CheckpointEntry>) -> usize {
    let records: usize = checkpoints
        .map(|entry| record::checkpoint_bytes(&entry.membership))
        .sum();
    (SEGMENT_HEADER_BYTES + records).next_multiple_of(SECTOR)
}

impl SegmentHeader {
    /// Length of the header area, padded, in bytes: where the first group begins.
    #[must_use]
    pub fn area_bytes(&self) -> usize {
        (self.used_bytes as usize).next_multiple_of(SECTOR)
    }

    /// Encodes the header and its checkpoints over `out`, zeroed and as long as [`area_bytes`]
    /// said. Fills in `replicas` and `used_bytes`.
    pub fn encode<'a>(
        &mut self,
        out: &mut [u8],
        checkpoints: impl Iterator<Item = &'a CheckpointEntry>,
    ) {
        let mut at = SEGMENT_HEADER_BYTES;
        self.replicas = 0;
        for entry in checkpoints {
            let len = record::checkpoint_bytes(&entry.membership);
            let place = Place {
                epoch: self.epoch,
                offset: at as u32,
            };
            record::encode_checkpoint(&mut out[at..at + len], place, &entry.view());
            at += len;
            self.replicas += 1;
        }
        self.used_bytes = at as u32;
        self.encode_fixed(out);
    }

    /// Writes the fixed part again, with what has changed in it since [`SegmentHeader::encode`].
    pub fn encode_fixed(&self, out: &mut [u8]) {
        let start = match self.start {
            SegmentStart::Format => 1,
            SegmentStart::Full => 2,
            SegmentStart::Open => 3,
        };
        Put::new(out)
            .bytes(&SEGMENT_MAGIC)
            .u32(0)
            .u16(SEGMENT_VERSION)
            .u16(start)
            .u32(self.slot)
            .u32(self.used_bytes)
            .u64(self.log_id)
            .u64(self.epoch)
            .u64(self.sequence)
            .u64(self.durable_through)
            .u64(self.prev_epoch)
            .u64(self.prev_end)
            .u64(self.segment_bytes)
            .u32(self.replicas)
            .u32(0)
            .u64(0);
        let crc = crc32c(&out[12..SEGMENT_HEADER_BYTES]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
    }

    /// The fixed part at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] if it is not intact, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let fixed = bytes
            .get(..SEGMENT_HEADER_BYTES)
            .ok_or(HeaderError::Invalid)?;
        if fixed[..8] != SEGMENT_MAGIC || fixed[8..12] != crc32c(&fixed[12..]).to_le_bytes() {
            return Err(HeaderError::Invalid);
        }
        let mut fields = Fields(&fixed[12..]);
        let version = fields.u16().ok_or(HeaderError::Invalid)?;
        if !(1..=SEGMENT_VERSION).contains(&version) {
            return Err(HeaderError::Version(version));
        }
        Self::fields(fields).ok_or(HeaderError::Invalid)
    }

    fn fields(mut fields: Fields<'_>) -> Option<Self> {
        let start = match fields.u16()? {
            1 => SegmentStart::Format,
            2 => SegmentStart::Full,
            3 => SegmentStart::Open,
            _ => return None,
        };
        let slot = fields.u32()?;
        let used_bytes = fields.u32()?;
        let header = Self {
            slot,
            used_bytes,
            log_id: fields.u64()?,
            epoch: fields.u64()?,
            sequence: fields.u64()?,
            durable_through: fields.u64()?,
            prev_epoch: fields.u64()?,
            prev_end: fields.u64()?,
            segment_bytes: fields.u64()?,
            replicas: fields.u32()?,
            start,
        };
        let used = header.used_bytes as usize;
        let fits = (SEGMENT_HEADER_BYTES..=HEADER_AREA_BYTES_MAX).contains(&used)
            && header.area_bytes() as u64 <= header.segment_bytes
            && header.segment_bytes <= u64::from(u32::MAX)
            && header.segment_bytes.is_multiple_of(SECTOR as u64)
            && header.epoch > header.prev_epoch;
        fits.then_some(header)
    }

    /// The checkpoints of a whole header area; `None` if one is damaged or their number is wrong.
    #[must_use]
    pub fn checkpoints(&self, area: &[u8]) -> Option<Vec<CheckpointEntry>> {
        let used = area.get(..self.used_bytes as usize)?;
        let mut at = SEGMENT_HEADER_BYTES;
        let mut entries: Vec<CheckpointEntry> = Vec::new();
        while at < used.len() {
            let place = Place {
                epoch: self.epoch,
                offset: at as u32,
            };
            let (RecordView::Checkpoint(view), len) = record::decode(&used[at..], place)? else {
                return None;
            };
            entries.push(CheckpointEntry {
                partition: view.partition,
                last: view.last,
                hard: view.hard,
                truncated: view.truncated,
                time_ms: view.time_ms,
                membership: view.membership.to_vec(),
            });
            at += len;
        }
        (entries.len() == self.replicas as usize).then_some(entries)
    }
}
