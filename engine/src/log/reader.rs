//! Reads a segment front to back in large pieces.

use std::rc::Rc;

use super::chain::Slot;
use super::format::group::GroupHeader;
use super::format::record::Place;
use super::format::segment::SegmentHeader;
use crate::env::{DiskError, DiskFile, Env, SECTOR};
use crate::planted::{self, Bug};

/// Bytes read at once.
const READ_BYTES: u64 = 1 << 20;

/// A window onto a file that moves forward.
pub(super) struct Reader<F> {
    file: Rc<F>,
    bytes: u64,
    window: Vec<u8>,
    /// Where the window begins, in bytes.
    start: u64,
}

/// A group found intact.
pub(super) struct Intact<'a> {
    pub(super) header: GroupHeader,
    pub(super) bytes: &'a [u8],
}

impl<F: DiskFile> Reader<F> {
    pub(super) fn new(slot: &Slot<F>) -> Self {
        Self {
            file: Rc::clone(&slot.file),
            bytes: slot.bytes,
            window: Vec::new(),
            start: 0,
        }
    }

    /// The bytes at `offset` (whole sectors), fewer at the end of the file.
    pub(super) async fn at(&mut self, offset: u64, len: usize) -> Result<&[u8], DiskError> {
        let end = self.start + self.window.len() as u64;
        if offset < self.start || offset >= end {
            self.window.clear();
            self.start = offset;
        } else if offset + len as u64 > end {
            self.window.drain(..(offset - self.start) as usize);
            self.start = offset;
        }
        let wanted = offset + len as u64;
        loop {
            let end = self.start + self.window.len() as u64;
            if end >= wanted || end >= self.bytes {
                break;
            }
            let piece = READ_BYTES.min(self.bytes - end) as usize;
            let read = self.file.read_at(end, piece).await?;
            self.window.extend_from_slice(&read);
            if read.len() < piece {
                break;
            }
        }
        let from = (offset - self.start) as usize;
        let to = (from + len).min(self.window.len());
        Ok(self.window.get(from..to).unwrap_or_default())
    }

    /// The group of this epoch and number at `offset`, if it is there and intact.
    pub(super) async fn group(
        &mut self,
        place: Place,
        sequence: u64,
    ) -> Result<Option<Intact<'_>>, DiskError> {
        let offset = u64::from(place.offset);
        let sector = self.at(offset, SECTOR).await?;
        let stale = planted::is(Bug::EpochIgnored);
        let header = match GroupHeader::decode_anywhere(sector) {
            Some(header) if header.offset == place.offset => header,
            _ => return Ok(None),
        };
        if (header.epoch != place.epoch || header.sequence != sequence) && !stale {
            return Ok(None);
        }
        let bytes = self.at(offset, header.group_bytes()).await?;
        Ok(header
            .records_intact(bytes)
            .then_some(Intact { header, bytes }))
    }

    /// The group header at `offset`, if an intact one of this or a later epoch is there.
    pub(super) async fn header_at(
        &mut self,
        offset: u64,
        epoch_min: u64,
    ) -> Result<Option<GroupHeader>, DiskError> {
        let sector = self.at(offset, SECTOR).await?;
        Ok(GroupHeader::decode_anywhere(sector)
            .filter(|header| u64::from(header.offset) == offset && header.epoch >= epoch_min))
    }
}

/// Where a walk over a segment's groups has got to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Where the next group should be, in bytes.
    pub(super) offset: u64,
    /// Its number.
    pub(super) sequence: u64,
}

impl Cursor {
    /// Before a segment's first group.
    pub(super) fn first(header: &SegmentHeader) -> Self {
        Self {
            offset: header.area_bytes() as u64,
            sequence: header.sequence + 1,
        }
    }
}

/// Walks over intact groups of a segment until `end` (a number that is not visited) or the first
/// that is not intact, and says where that was.
pub(super) async fn walk<E: Env, F: DiskFile>(
    env: &E,
    reader: &mut Reader<F>,
    header: &SegmentHeader,
    end: Option<u64>,
    mut visit: impl FnMut(&GroupHeader, &[u8]),
) -> Result<Cursor, DiskError> {
    let mut cursor = Cursor::first(header);
    while end != Some(cursor.sequence) {
        let place = Place {
            epoch: header.epoch,
            offset: cursor.offset as u32,
        };
        let Some(group) = reader.group(place, cursor.sequence).await? else {
            break;
        };
        visit(&group.header, group.bytes);
        cursor.offset += group.header.group_bytes() as u64;
        cursor.sequence += 1;
        env.yield_if_needed().await;
    }
    Ok(cursor)
}
