//! How a block lies in a table file: payload, tag, checksum.
//!
//! ```text
//! | payload ... | tag u8: kind << 4 | codec | checksum u64 LE |
//! ```
//!
//! The checksum is xxh3-64 over payload and tag, seeded with xxh3-64 over (table id u64 LE, file
//! offset u64 LE): a block that was written elsewhere, or another table's, is not believed here.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::compress::{Compression, Compressor, decompress};
use crate::planted::{self, Bug};

/// Bytes after the payload.
pub const FRAME_TAIL_BYTES: usize = 9;

/// Most bytes in a block once decompressed: one row of the largest key and value, with room.
pub(crate) const RAW_BYTES_MAX: usize = 32 << 20;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BlockKind {
    /// Rows.
    Data = 1,
    /// Where data blocks are.
    Index = 2,
    /// Which rows are surely absent.
    Filter = 3,
    /// Where index and filter blocks are.
    Top = 4,
    /// Range deletes.
    RangeDeletes = 5,
    /// What the table says of itself.
    Footer = 6,
}

/// Where a block lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BlockHandle {
    /// Offset of the first payload byte.
    pub offset: u64,
    /// Length with tag and checksum, in bytes.
    pub len: u32,
}

impl BlockHandle {
    /// The first byte behind the block.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }
}

fn seed(table: u64, offset: u64) -> u64 {
    if planted::is(Bug::BlockPositionIgnored) {
        return 0;
    }
    let mut position = [0; 16];
    position[..8].copy_from_slice(&table.to_le_bytes());
    position[8..].copy_from_slice(&offset.to_le_bytes());
    xxh3_64(&position)
}

/// Appends a block, compressed if that pays. Returns its stored length and checksum.
pub(super) fn seal(
    kind: BlockKind,
    raw: &[u8],
    compressor: &mut Compressor,
    table: u64,
    offset: u64,
    out: &mut Vec<u8>,
) -> (u32, u64) {
    let (codec, payload) = compressor.compress(raw);
    let start = out.len();
    out.reserve(payload.len() + FRAME_TAIL_BYTES);
    out.extend_from_slice(payload);
    out.push((kind as u8) << 4 | codec.code());
    let checksum = xxh3_64_with_seed(&out[start..], seed(table, offset));
    out.extend_from_slice(&checksum.to_le_bytes());
    ((out.len() - start) as u32, checksum)
}

/// Checks a stored block and gives back its raw bytes and checksum.
pub(super) fn open(
    kind: BlockKind,
    stored: &[u8],
    table: u64,
    offset: u64,
) -> Result<(Box<[u8]>, u64), &'static str> {
    let Some((content, checksum)) = stored.split_last_chunk::<8>() else {
        return Err("a block is cut short");
    };
    let checksum = u64::from_le_bytes(*checksum);
    let believed = planted::is(Bug::BlockChecksumIgnored)
        || xxh3_64_with_seed(content, seed(table, offset)) == checksum;
    if !believed {
        return Err("a block's checksum is wrong");
    }
    let Some((tag, payload)) = content.split_last() else {
        return Err("a block is cut short");
    };
    if tag >> 4 != kind as u8 {
        return Err("a block is of another kind than it should be");
    }
    let Some(codec) = Compression::from_code(tag & 0x0f) else {
        return Err("a block's codec is unknown");
    };
    Ok((decompress(codec, payload, RAW_BYTES_MAX)?, checksum))
}
