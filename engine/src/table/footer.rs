//! What a table says of itself: footer and trailer.
//!
//! The trailer is the last 56 bytes of the file, all little-endian:
//!
//! ```text
//! | "RBTABLE\0" | format u32 | footer length u32 | table id u64 | tail offset u64
//! | footer offset u64 | footer checksum u64 | xxh3-64 of the 48 bytes before u64 |
//! ```
//!
//! Everything from the tail offset on (range deletes, top block, footer) is needed to open the
//! table, and is read at once.

use std::path::Path;

use rkyv::rancor;
use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::frame::BlockHandle;
use crate::error::EngineError;

/// The version of the format of tables.
pub(super) const FORMAT: u32 = 1;

pub(super) const TRAILER_BYTES: usize = 56;

const MAGIC: &[u8; 8] = b"RBTABLE\0";

/// What is known of a table without reading it.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct TableInfo {
    /// Its number.
    pub id: u64,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// Bytes of row keys and values before compression.
    pub raw_bytes: u64,
    /// Cells in it, tombstones included, range deletes not.
    pub entries: u64,
    /// Tombstones among the cells.
    pub tombstones: u64,
    /// Range deletes in it.
    pub range_deletes: u64,
    /// The lowest version in it, range deletes included.
    pub version_min: u64,
    /// The highest version in it, range deletes included.
    pub version_max: u64,
    /// Cells that are records with an expiry.
    pub expiring: u64,
    /// The earliest expiry of a record in it, in ms; 0 if none expires.
    pub expiry_min_ms: u64,
    /// The latest expiry, in ms, if every cell is a record that expires; else 0.
    pub expiry_max_ms: u64,
    /// The least row key, range deletes included.
    pub smallest: Vec<u8>,
    /// The greatest row key, range deletes included.
    pub largest: Vec<u8>,
    /// Whether `largest` itself is outside: it is the first key that a range delete leaves alone.
    pub largest_excluded: bool,
    /// The checksum of the footer, which vouches for all the rest.
    pub footer_checksum: u64,
}

/// The footer: [`TableInfo`] and where to find the rest.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Footer {
    /// The table; without the file's length and the footer's checksum, which are both 0 here.
    pub info: TableInfo,
    /// Data blocks.
    pub data_blocks: u64,
    /// Parts: index blocks, and as many filter blocks.
    pub parts: u64,
    /// Bytes of data blocks as stored.
    pub data_bytes: u64,
    /// Bytes of index blocks as stored.
    pub index_bytes: u64,
    /// Bytes of filter blocks as stored.
    pub filter_bytes: u64,
    /// Where the top block is: offset.
    pub top_offset: u64,
    /// Its stored length; 0 if the table has no cells.
    pub top_len: u32,
    /// Where the range deletes are: offset.
    pub range_deletes_offset: u64,
    /// Their stored length; 0 if there are none.
    pub range_deletes_len: u32,
}

impl Footer {
    pub(super) fn encode(&self) -> Result<Vec<u8>, EngineError> {
        match rkyv::to_bytes::<rancor::Error>(self) {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(error) => Err(EngineError::Invalid(format!("a table's footer: {error}"))),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<Self, rancor::Error>(&aligned)
            .map_err(|_| "the footer is not one of a table")
    }

    /// Where the top block is, if there is one.
    #[must_use]
    pub fn top(&self) -> Option<BlockHandle> {
        (self.top_len > 0).then_some(BlockHandle {
            offset: self.top_offset,
            len: self.top_len,
        })
    }

    /// Where the range deletes are, if there are any.
    #[must_use]
    pub fn range_deletes(&self) -> Option<BlockHandle> {
        (self.range_deletes_len > 0).then_some(BlockHandle {
            offset: self.range_deletes_offset,
            len: self.range_deletes_len,
        })
    }
}

/// The last bytes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trailer {
    pub table: u64,
    pub tail_offset: u64,
    pub footer: BlockHandle,
    pub footer_checksum: u64,
}

impl Trailer {
    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = [0; TRAILER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&self.footer.len.to_le_bytes());
        let words = [
            self.table,
            self.tail_offset,
            self.footer.offset,
            self.footer_checksum,
        ];
        for (at, word) in (16..).step_by(8).zip(words) {
            out[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let checksum = xxh3_64(&out[..48]);
        out[48..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads a trailer. `offset` is where it lies in `file`.
    pub fn decode(bytes: &[u8], file: &Path, offset: u64) -> Result<Self, EngineError> {
        let corrupt = |what: &str| EngineError::corrupt(file, offset, what);
        let Some((_, bytes)) = bytes.split_last_chunk::<TRAILER_BYTES>() else {
            return Err(corrupt("the file is shorter than a table"));
        };
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        if xxh3_64(&bytes[..48]) != word(48) {
            return Err(corrupt("the trailer's checksum is wrong"));
        }
        if &bytes[..8] != MAGIC {
            return Err(corrupt("the trailer is not one of a table"));
        }
        let format = word(8) as u32;
        if format != FORMAT {
            return Err(EngineError::WrongFormat {
                file: file.to_path_buf(),
                found: format!("table format {format}"),
                expected: format!("table format {FORMAT}"),
            });
        }
        Ok(Self {
            table: word(16),
            tail_offset: word(24),
            footer: BlockHandle {
                offset: word(32),
                len: (word(8) >> 32) as u32,
            },
            footer_checksum: word(40),
        })
    }
}
