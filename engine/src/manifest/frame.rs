//! The framing of manifest edits.
//!
//! A frame starts at a multiple of the sector size and is padded with zeros to one:
//!
//! | bytes | content |
//! |---|---|
//! | 0..4 | `RBMF` |
//! | 4..6 | format version, 2; 1 is read as well |
//! | 6..8 | kind: 1 edit, 2 seal |
//! | 8..12 | length of the payload |
//! | 12..16 | CRC32C of bytes 0..12, of bytes 16..32 with the payload, and of the frame's offset (u64) |
//! | 16..24 | number of the manifest |
//! | 24..32 | sequence of the frame, from 0; a seal has that of the edit which will replace it |
//! | 32.. | the edit of that version, as rkyv archives it |
//!
//! All integers are little-endian.

use crate::env::{AlignedBuf, SECTOR};

use super::edit::{ArchivedEdit, ArchivedEditV1, Edit, EditV1};

pub(super) const MAGIC: [u8; 4] = *b"RBMF";
/// The version of the format that this build writes. It reads all before it as well.
pub const VERSION: u16 = 2;
/// The first version: edits without partitions that are exchanged.
const VERSION_FIRST: u16 = 1;
const HEADER_BYTES: usize = 32;
/// Largest payload believed, in bytes.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Edit,
    Seal,
}

/// An intact frame.
pub(super) struct Frame<'a> {
    pub kind: Kind,
    pub sequence: u64,
    version: u16,
    payload: &'a [u8],
    /// Length with its padding, in bytes.
    pub len: usize,
}

/// Why bytes are not a frame of this manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotAFrame {
    /// Bad magic, length, checksum, kind, or number.
    Damaged,
    /// Intact, but of another format version.
    Version(u16),
}

fn crc(header: &[u8], rest: &[u8], offset: u64) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(header);
    digest.update(rest);
    digest.update(&offset.to_le_bytes());
    digest.finalize() as u32
}

/// Encodes a frame for `offset` of manifest `number`. `None` is a seal.
pub(super) fn encode(
    edit: Option<&Edit>,
    number: u64,
    sequence: u64,
    offset: u64,
) -> Result<AlignedBuf, String> {
    let payload = match edit {
        Some(edit) => rkyv::to_bytes::<rkyv::rancor::Error>(edit).map_err(|e| e.to_string())?,
        None => rkyv::util::AlignedVec::new(),
    };
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(format!("an edit of {} bytes", payload.len()));
    }
    let end = HEADER_BYTES + payload.len();
    let mut buf = AlignedBuf::zeroed(end);
    let kind: u16 = if edit.is_some() { 1 } else { 2 };
    buf[0..4].copy_from_slice(&MAGIC);
    buf[4..6].copy_from_slice(&VERSION.to_le_bytes());
    buf[6..8].copy_from_slice(&kind.to_le_bytes());
    buf[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    buf[16..24].copy_from_slice(&number.to_le_bytes());
    buf[24..32].copy_from_slice(&sequence.to_le_bytes());
    buf[HEADER_BYTES..end].copy_from_slice(&payload);
    let crc = crc(&buf[..12], &buf[16..end], offset);
    buf[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(buf)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The frame at the start of `bytes`, which lie at `offset` of manifest `number`.
pub(super) fn decode(bytes: &[u8], number: u64, offset: u64) -> Result<Frame<'_>, NotAFrame> {
    decode_checked(bytes, number, offset).unwrap_or(Err(NotAFrame::Damaged))
}

fn decode_checked(bytes: &[u8], number: u64, offset: u64) -> Option<Result<Frame<'_>, NotAFrame>> {
    if array::<4>(bytes, 0)? != MAGIC {
        return None;
    }
    let payload_len = u32::from_le_bytes(array(bytes, 8)?) as usize;
    if payload_len > PAYLOAD_BYTES_MAX {
        return None;
    }
    let end = HEADER_BYTES + payload_len;
    let rest = bytes.get(16..end)?;
    if crc(&bytes[..12], rest, offset) != u32::from_le_bytes(array(bytes, 12)?) {
        return None;
    }
    let version = u16::from_le_bytes(array(bytes, 4)?);
    if !(VERSION_FIRST..=VERSION).contains(&version) {
        return Some(Err(NotAFrame::Version(version)));
    }
    if u64::from_le_bytes(array(bytes, 16)?) != number {
        return None;
    }
    let kind = match u16::from_le_bytes(array(bytes, 6)?) {
        1 => Kind::Edit,
        2 => Kind::Seal,
        _ => return None,
    };
    Some(Ok(Frame {
        kind,
        sequence: u64::from_le_bytes(array(bytes, 24)?),
        version,
        payload: bytes.get(HEADER_BYTES..end)?,
        len: end.next_multiple_of(SECTOR),
    }))
}

impl Frame<'_> {
    /// The edit in it, validated.
    pub(super) fn edit(&self) -> Result<Edit, String> {
        use rkyv::rancor::Error;
        // The archive is validated at the alignment it was written with.
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(self.payload.len());
        aligned.extend_from_slice(self.payload);
        let edit = match self.version {
            VERSION_FIRST => rkyv::access::<ArchivedEditV1, Error>(&aligned)
                .and_then(rkyv::deserialize::<EditV1, Error>)
                .map(Edit::from),
            _ => rkyv::access::<ArchivedEdit, Error>(&aligned)
                .and_then(rkyv::deserialize::<Edit, Error>),
        };
        edit.map_err(|e| e.to_string())
    }
}
