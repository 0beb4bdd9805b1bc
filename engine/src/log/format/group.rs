//! A group: the records of one write, behind a header, padded with zeros to whole sectors.

use super::record::{self, Place, RecordView};
use super::{Fields, Put, crc32c};
use crate::entry::PartitionId;
use crate::env::SECTOR;

/// The first four bytes of a group.
pub const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"RBGP");
/// Bytes of a group header before the list of partitions.
pub const GROUP_HEADER_BYTES: usize = 48;
/// Partitions that a group header lists at most; if there were more, a flag says so.
pub const GROUP_PARTITIONS_MAX: usize = 1024;

/// The group before touched more partitions than are listed.
const FLAG_MORE_PARTITIONS: u16 = 1;

/// A group's header, but for the list of partitions that the group before touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupHeader {
    /// The segment's epoch.
    pub epoch: u64,
    /// The group's number. Every write of the log has one, segment headers too; no holes.
    pub sequence: u64,
    /// Every write up to this number was durable when this one was submitted.
    pub durable_through: u64,
    /// Byte offset in the segment's file.
    pub offset: u32,
    /// Length of the records, in bytes.
    pub body_bytes: u32,
    /// How many records.
    pub records: u32,
    /// How many partitions are listed.
    pub partitions: u16,
    /// Whether the group before touched others as well.
    pub more_partitions: bool,
}

/// Bytes that a header with this many listed partitions takes: where the records begin.
#[inline]
#[must_use]
pub fn header_bytes(partitions: usize) -> usize {
    GROUP_HEADER_BYTES + 2 * partitions
}

impl GroupHeader {
    /// Where the records begin, from the start of the group.
    #[must_use]
    pub fn body_offset(&self) -> usize {
        header_bytes(usize::from(self.partitions))
    }

    /// Length of the whole group with its padding, in bytes.
    #[must_use]
    pub fn group_bytes(&self) -> usize {
        (self.body_offset() + self.body_bytes as usize).next_multiple_of(SECTOR)
    }

    /// Writes the header over the first [`header_bytes`] of `out`; the list of partitions is there
    /// already (see [`write_partitions`]).
    pub fn encode(&self, out: &mut [u8]) {
        let flags = if self.more_partitions {
            FLAG_MORE_PARTITIONS
        } else {
            0
        };
        Put::new(out)
            .u32(GROUP_MAGIC)
            .u32(0)
            .u64(self.epoch)
            .u64(self.sequence)
            .u64(self.durable_through)
            .u32(self.offset)
            .u32(self.body_bytes)
            .u32(self.records)
            .u16(self.partitions)
            .u16(flags);
        let crc = crc32c(&out[8..self.body_offset()]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// The header at the start of `bytes`, checked: magic, checksum and place. `None` if anything
    /// is wrong. `bytes` should be at least one sector.
    #[must_use]
    pub fn decode(bytes: &[u8], place: Place) -> Option<Self> {
        let header = Self::decode_anywhere(bytes)?;
        (header.epoch == place.epoch && header.offset == place.offset).then_some(header)
    }

    /// As [`GroupHeader::decode`], for a group that may belong anywhere.
    #[must_use]
    pub fn decode_anywhere(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u32()? != GROUP_MAGIC {
            return None;
        }
        let crc = fields.u32()?;
        let epoch = fields.u64()?;
        let sequence = fields.u64()?;
        let durable_through = fields.u64()?;
        let offset = fields.u32()?;
        let body_bytes = fields.u32()?;
        let records = fields.u32()?;
        let partitions = fields.u16()?;
        let flags = fields.u16()?;
        let header = Self {
            epoch,
            sequence,
            durable_through,
            offset,
            body_bytes,
            records,
            partitions,
            more_partitions: flags & FLAG_MORE_PARTITIONS != 0,
        };
        let covered = bytes.get(8..header.body_offset())?;
        (usize::from(partitions) <= GROUP_PARTITIONS_MAX && crc32c(covered) == crc)
            .then_some(header)
    }

    /// The partitions listed, from the bytes of the group.
    pub fn listed<'a>(&self, group: &'a [u8]) -> impl Iterator<Item = PartitionId> + use<'a> {
        let list = group
            .get(GROUP_HEADER_BYTES..self.body_offset())
            .unwrap_or_default();
        list.chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
    }

    /// Whether every record of the group is intact and they fill the body to the byte.
    #[must_use]
    pub fn records_intact(&self, group: &[u8]) -> bool {
        let end = self.body_offset() + self.body_bytes as usize;
        let Some(group) = group.get(..end) else {
            return false;
        };
        let mut at = self.body_offset();
        for _ in 0..self.records {
            let place = Place {
                epoch: self.epoch,
                offset: self.offset.wrapping_add(at as u32),
            };
            match record::decode(&group[at..], place) {
                Some((_, len)) => at += len,
                None => return false,
            }
        }
        at == end
    }

    /// The records of a group that was found intact.
    #[must_use]
    pub fn records<'a>(&self, group: &'a [u8]) -> Records<'a> {
        let end = self.body_offset() + self.body_bytes as usize;
        Records::new(group.get(..end).unwrap_or_default(), self.body_offset())
    }
}

/// Writes the list of partitions that the group before touched.
pub fn write_partitions(out: &mut [u8], partitions: &[PartitionId]) {
    let mut put = Put::new(&mut out[GROUP_HEADER_BYTES..]);
    for partition in partitions.iter().take(GROUP_PARTITIONS_MAX) {
        put.u16(*partition);
    }
}

/// Iterates over the records of an intact group: the offset from the group's start, and the record.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    group: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// The records of `group[at..]`.
    pub(crate) fn new(group: &'a [u8], at: usize) -> Self {
        Self { group, at }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (u32, RecordView<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (view, len) = record::decode_trusted(self.group.get(self.at..)?)?;
        let at = self.at as u32;
        self.at += len;
        Some((at, view))
    }
}
