//! The bytes of a chunk: rows in order, and where they belong.
//!
//! Everything is little-endian; *varint* and *delta* are those of tables (`table/varint.rs`).
//!
//! | bytes | content |
//! |---|---|
//! | 0..4 | `RBSN` |
//! | 4..6 | version, 1 |
//! | 6..8 | flags: 1 nothing follows this chunk |
//! | 8..16 | xxh3-64 of bytes 0..8 and of byte 16 to the end |
//! | 16..18 | partition |
//! | 18..20 | zero |
//! | 20..24 | number of rows |
//! | 24..48 | the snapshot's term, index and time in ms |
//! | 48..52 | length of `after` |
//! | 52.. | `after`: the row key behind which the rows follow without a gap; empty for the start |
//! | … | the rows |
//!
//! A row: how many bytes its row key shares with the one before (the first: with `after`), how many
//! differ, those; length of the value, version, `updated_ms` (delta to the snapshot's time),
//! `created_ms` (delta to `updated_ms`), `expires_ms`, the value.

use xxhash_rust::xxh3::Xxh3;

use super::SnapshotId;
use crate::entry::{LogId, VALUE_BYTES_MAX};
use crate::row::{ROW_KEY_BYTES_MAX, ROW_PREFIX_BYTES, RowMeta};
use crate::table::varint;

const MAGIC: [u8; 4] = *b"RBSN";
const VERSION: u16 = 1;
const FLAG_LAST: u16 = 1;
const HEADER_BYTES: usize = 52;

/// A chunk being written.
pub(super) struct Writer {
    bytes: Vec<u8>,
    rows: u32,
    rows_from: usize,
    time_ms: u64,
    last_key: Vec<u8>,
}

/// A chunk whose checksum is right, taken apart.
pub(super) struct Reader<'a> {
    pub of: SnapshotId,
    pub is_last: bool,
    pub after: &'a [u8],
    /// The last row key, or else `after`.
    pub last_key: Vec<u8>,
    rows: u32,
    body: &'a [u8],
}

/// Walks over a chunk's rows.
pub(super) struct Rows<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u32,
    of: SnapshotId,
    row_key: Vec<u8>,
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&bytes[..8]);
    hash.update(&bytes[16..]);
    hash.digest()
}

impl Writer {
    pub(super) fn new(of: &SnapshotId, after: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..18].copy_from_slice(&of.partition.to_le_bytes());
        bytes[24..32].copy_from_slice(&of.id.term.to_le_bytes());
        bytes[32..40].copy_from_slice(&of.id.index.to_le_bytes());
        bytes[40..48].copy_from_slice(&of.time_ms.to_le_bytes());
        bytes[48..52].copy_from_slice(&(after.len() as u32).to_le_bytes());
        bytes.extend_from_slice(after);
        Self {
            rows: 0,
            rows_from: bytes.len(),
            bytes,
            time_ms: of.time_ms,
            last_key: after.to_vec(),
        }
    }

    pub(super) fn add(&mut self, row_key: &[u8], meta: &RowMeta, value: &[u8]) {
        let pairs = self.last_key.iter().zip(row_key);
        let shared = pairs.take_while(|(a, b)| a == b).count();
        let out = &mut self.bytes;
        varint::put(shared as u64, out);
        varint::put((row_key.len() - shared) as u64, out);
        out.extend_from_slice(&row_key[shared..]);
        varint::put(value.len() as u64, out);
        varint::put(meta.version, out);
        varint::put_delta(meta.updated_ms, self.time_ms, out);
        varint::put_delta(meta.created_ms, meta.updated_ms, out);
        varint::put(meta.expires_ms, out);
        out.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&row_key[shared..]);
        self.rows += 1;
    }

    /// Bytes of rows so far.
    pub(super) fn row_bytes(&self) -> usize {
        self.bytes.len() - self.rows_from
    }

    /// The whole chunk, and the row key that the next one comes after.
    pub(super) fn finish(mut self, is_last: bool) -> (Vec<u8>, Vec<u8>) {
        let flags = if is_last { FLAG_LAST } else { 0 };
        self.bytes[6..8].copy_from_slice(&flags.to_le_bytes());
        self.bytes[20..24].copy_from_slice(&self.rows.to_le_bytes());
        let checksum = checksum(&self.bytes);
        self.bytes[8..16].copy_from_slice(&checksum.to_le_bytes());
        (self.bytes, self.last_key)
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl<'a> Reader<'a> {
    /// Takes a chunk apart. `Err` says what is wrong with it.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.len() < HEADER_BYTES || bytes[..4] != MAGIC {
            return Err("it is no chunk of a snapshot".into());
        }
        let damaged = || "it is damaged".to_owned();
        if array(bytes, 8).map(u64::from_le_bytes) != Some(checksum(bytes)) {
            return Err(damaged());
        }
        let u16_at = |at| array(bytes, at).map_or(0, u16::from_le_bytes);
        let u32_at = |at| array(bytes, at).map_or(0, u32::from_le_bytes);
        let u64_at = |at| array(bytes, at).map_or(0, u64::from_le_bytes);
        let version = u16_at(4);
        if version != VERSION {
            return Err(format!(
                "its version is {version}, this one reads {VERSION}"
            ));
        }
        let body_from = HEADER_BYTES + u32_at(48) as usize;
        let (Some(after), Some(body)) =
            (bytes.get(HEADER_BYTES..body_from), bytes.get(body_from..))
        else {
            return Err(damaged());
        };
        let mut reader = Self {
            of: SnapshotId {
                partition: u16_at(16),
                id: LogId {
                    term: u64_at(24),
                    index: u64_at(32),
                },
                time_ms: u64_at(40),
            },
            is_last: u16_at(6) & FLAG_LAST != 0,
            after,
            last_key: after.to_vec(),
            rows: u32_at(20),
            body,
        };
        let (mut rows, version_max) = (reader.rows(), reader.of.id.index);
        let before = &mut reader.last_key;
        while rows.left > 0 {
            let Some((row_key, meta, _)) = rows.next() else {
                return Err(damaged());
            };
            if row_key <= before.as_slice() || meta.version > version_max {
                return Err("a row is out of order or too new".into());
            }
            before.clear();
            before.extend_from_slice(row_key);
        }
        if rows.at != body.len() {
            return Err(damaged());
        }
        Ok(reader)
    }

    pub(super) fn rows(&self) -> Rows<'a> {
        Rows {
            bytes: self.body,
            at: 0,
            left: self.rows,
            of: self.of,
            row_key: self.after.to_vec(),
        }
    }
}

impl Rows<'_> {
    /// The next row; `None` after the last, or where the bytes are not a row of the partition.
    pub(super) fn next(&mut self) -> Option<(&[u8], RowMeta, &[u8])> {
        self.left = self.left.checked_sub(1)?;
        let (bytes, at) = (self.bytes, &mut self.at);
        let shared = varint::get_len(bytes, at)?;
        let differ = varint::get_len(bytes, at)?;
        if shared > self.row_key.len() || differ > ROW_KEY_BYTES_MAX - shared {
            return None;
        }
        self.row_key.truncate(shared);
        self.row_key
            .extend_from_slice(bytes.get(*at..*at + differ)?);
        *at += differ;
        let value_len = varint::get_len(bytes, at)?;
        let version = varint::get(bytes, at)?;
        let updated_ms = varint::get_delta(bytes, at, self.of.time_ms)?;
        let meta = RowMeta {
            version,
            updated_ms,
            created_ms: varint::get_delta(bytes, at, updated_ms)?,
            expires_ms: varint::get(bytes, at)?,
        };
        if value_len > VALUE_BYTES_MAX {
            return None;
        }
        let value = bytes.get(*at..*at + value_len)?;
        *at += value_len;
        let in_partition = self.row_key.starts_with(&self.of.partition.to_be_bytes());
        (in_partition && self.row_key.len() >= ROW_PREFIX_BYTES).then_some((
            self.row_key.as_slice(),
            meta,
            value,
        ))
    }
}
