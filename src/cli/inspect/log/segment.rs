//! One segment's file, read front to back.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ringbolt_engine::env::SECTOR;
use ringbolt_engine::log::RecordView;
use ringbolt_engine::log::format::record::{Place, RECORD_BYTES_MAX};
use ringbolt_engine::log::format::segment::{
    HEADER_AREA_BYTES_MAX, HeaderError, SEGMENT_HEADER_BYTES,
};
use ringbolt_engine::log::format::{GroupHeader, SegmentHeader, record};

use crate::cli::failure::Failure;

/// Largest group that is read: records end where a group is over this.
const GROUP_BYTES_MAX: usize = 4 * RECORD_BYTES_MAX;

/// An open segment with an intact header.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    /// Length of the file, in bytes.
    pub(super) bytes: u64,
    file: File,
}

/// Why a file is no segment.
pub(super) enum Unreadable {
    /// It begins with zeros: made ahead of need.
    Empty,
    /// It is damaged, of another version, or the system refused.
    Failed(String),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a walk comes by.
pub(super) enum Visit<'a> {
    /// A replica's state where the segment begins.
    Checkpoint(RecordView<'a>),
    /// A group; its records follow.
    Group(&'a GroupHeader),
    /// A record, with its group and its offset in it.
    Record(&'a GroupHeader, u32, RecordView<'a>),
}

impl Segment {
    pub(super) fn open(path: &Path) -> Result<Self, Unreadable> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let start = read(&file, 0, SECTOR, bytes)?;
        if start.iter().all(|byte| *byte == 0) {
            return Err(Unreadable::Empty);
        }
        let header = SegmentHeader::decode(&start).map_err(|error| {
            Unreadable::Failed(match error {
                HeaderError::Invalid => "its header is not intact".to_string(),
                HeaderError::Version(version) => {
                    format!("it has format version {version}, which this ringbolt does not read")
                }
            })
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            header,
            bytes,
            file,
        })
    }

    /// Walks over checkpoints, groups and records up to the first that is not intact, and returns
    /// where that was.
    pub(super) fn walk(&self, mut visit: impl FnMut(Visit<'_>)) -> Result<u64, Failure> {
        let failed = |error: io::Error| Failure::usage(format!("{}: {error}", self.path.display()));
        let area = self.header.area_bytes().min(HEADER_AREA_BYTES_MAX);
        let area = read(&self.file, 0, area, self.bytes).map_err(failed)?;
        self.checkpoints(&area, &mut visit);
        let mut offset = self.header.area_bytes() as u64;
        let mut sequence = self.header.sequence + 1;
        loop {
            let place = Place {
                epoch: self.header.epoch,
                offset: u32::try_from(offset).unwrap_or(u32::MAX),
            };
            let sector = read(&self.file, offset, SECTOR, self.bytes).map_err(failed)?;
            let Some(header) = GroupHeader::decode(&sector, place) else {
                return Ok(offset);
            };
            if header.sequence != sequence || header.group_bytes() > GROUP_BYTES_MAX {
                return Ok(offset);
            }
            let group = read(&self.file, offset, header.group_bytes(), self.bytes);
            let group = group.map_err(failed)?;
            if !header.records_intact(&group) {
                return Ok(offset);
            }
            visit(Visit::Group(&header));
            for (at, record) in header.records(&group) {
                visit(Visit::Record(&header, at, record));
            }
            offset += header.group_bytes() as u64;
            sequence += 1;
        }
    }

    fn checkpoints(&self, area: &[u8], visit: &mut impl FnMut(Visit<'_>)) {
        let mut at = SEGMENT_HEADER_BYTES;
        for _ in 0..self.header.replicas {
            let place = Place {
                epoch: self.header.epoch,
                offset: u32::try_from(at).unwrap_or(u32::MAX),
            };
            let Some((record, len)) = area.get(at..).and_then(|rest| record::decode(rest, place))
            else {
                return;
            };
            visit(Visit::Checkpoint(record));
            at += len;
        }
    }
}

/// `len` bytes at `offset`, fewer at the end of the file.
fn read(file: &File, offset: u64, len: usize, file_bytes: u64) -> io::Result<Vec<u8>> {
    let rest = usize::try_from(file_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len.min(rest)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
