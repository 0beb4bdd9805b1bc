//! The bytes of a memtable: cells are encoded once, one behind the other, and never move.
//!
//! ```text
//! put     | key length u24, flags u8 | version u64 | key | value length u32 | updated u64
//!         | created u64, if flagged | expires u64, if flagged | value |
//! delete  | key length u24, flags u8 | version u64 | key |
//! ```

use crate::row::{Cell, RowMeta};

const FLAG_DELETE: u8 = 1;
const FLAG_CREATED: u8 = 2;
const FLAG_EXPIRES: u8 = 4;

const HEAD_BYTES: usize = 12;

/// Chunks grow from this size ...
const CHUNK_BYTES_MIN: usize = 16 << 10;
/// ... to this one. A cell of over a quarter of a chunk gets a chunk of its own.
const CHUNK_BYTES_MAX: usize = 1 << 20;

const CACHE_LINE_BYTES: usize = 64;
/// Cache lines of a cell that [`Arena::touch`] reads: the CPU itself fetches those behind them.
const LINES_TOUCHED: usize = 3;

/// Where a cell is: chunk in the high half, offset in the low one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct CellRef(u64);

/// Bits of a packed [`CellRef`]: 24 of the chunk, 20 of the offset, which is below the largest chunk's size.
pub(super) const PACKED_BITS: u32 = 44;
const OFFSET_BITS: u32 = CHUNK_BYTES_MAX.ilog2();

impl CellRef {
    /// It in [`PACKED_BITS`] bits, unless there are too many chunks for that.
    #[inline]
    pub fn pack(self) -> Option<u64> {
        let packed = (self.0 >> 32) << OFFSET_BITS | self.0 & u64::from(u32::MAX);
        (packed >> PACKED_BITS == 0).then_some(packed)
    }

    /// What was packed.
    #[inline]
    pub fn unpack(packed: u64) -> Self {
        let offset = packed & ((1 << OFFSET_BITS) - 1);
        Self((packed >> OFFSET_BITS) << 32 | offset)
    }
}

/// An append-only store of cells.
#[derive(Default)]
pub(super) struct Arena {
    chunks: Vec<Vec<u8>>,
    current: usize,
    bytes: usize,
}

impl Arena {
    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Stores a cell.
    pub fn push(&mut self, row_key: &[u8], cell: &Cell<'_>) -> CellRef {
        let len = encoded_len(row_key, cell);
        let chunk = self.chunk_with_room(len);
        let bytes = &mut self.chunks[chunk];
        let at = CellRef((chunk as u64) << 32 | bytes.len() as u64);
        encode(row_key, cell, bytes);
        at
    }

    fn chunk_with_room(&mut self, len: usize) -> usize {
        if let Some(chunk) = self.chunks.get(self.current)
            && chunk.capacity() - chunk.len() >= len
        {
            return self.current;
        }
        let grown = (self.bytes / 2).next_power_of_two();
        let usual = grown.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let (size, own) = if len > usual / 4 {
            (len, true)
        } else {
            (usual, false)
        };
        let chunk = Vec::with_capacity(size);
        self.bytes += chunk.capacity() + size_of::<Vec<u8>>();
        self.chunks.push(chunk);
        let index = self.chunks.len() - 1;
        if !own {
            self.current = index;
        }
        index
    }

    #[inline]
    fn at(&self, cell: CellRef) -> &[u8] {
        &self.chunks[(cell.0 >> 32) as usize][cell.0 as u32 as usize..]
    }

    /// Reads a byte of each cache line that a cell of a small row is in, and tells their sum.
    #[inline]
    pub fn touch(&self, cell: CellRef) -> u8 {
        let lines = self.at(cell).chunks(CACHE_LINE_BYTES).take(LINES_TOUCHED);
        lines.fold(0, |sum, line| sum.wrapping_add(line[0]))
    }

    /// The row key and version of a cell.
    #[inline]
    pub fn key(&self, cell: CellRef) -> (&[u8], u64) {
        let bytes = self.at(cell);
        let (key_len, _) = head(bytes);
        (&bytes[HEAD_BYTES..HEAD_BYTES + key_len], u64_at(bytes, 4))
    }

    /// The row key and the cell.
    #[inline]
    pub fn cell(&self, cell: CellRef) -> (&[u8], Cell<'_>) {
        let bytes = self.at(cell);
        let (key_len, flags) = head(bytes);
        let version = u64_at(bytes, 4);
        let (key, rest) = bytes[HEAD_BYTES..].split_at(key_len);
        if flags & FLAG_DELETE != 0 {
            return (key, Cell::Delete { version });
        }
        let value_len = u32_at(rest, 0) as usize;
        let mut meta = RowMeta {
            version,
            updated_ms: u64_at(rest, 4),
            created_ms: 0,
            expires_ms: 0,
        };
        let mut next = 12;
        if flags & FLAG_CREATED != 0 {
            meta.created_ms = u64_at(rest, next);
            next += 8;
        }
        if flags & FLAG_EXPIRES != 0 {
            meta.expires_ms = u64_at(rest, next);
            next += 8;
        }
        let value = &rest[next..next + value_len];
        (key, Cell::Put { meta, value })
    }
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[inline]
fn head(bytes: &[u8]) -> (usize, u8) {
    let word = u32_at(bytes, 0);
    ((word & 0x00ff_ffff) as usize, (word >> 24) as u8)
}

fn flags(cell: &Cell<'_>) -> u8 {
    match cell {
        Cell::Delete { .. } => FLAG_DELETE,
        Cell::Put { meta, .. } => {
            let created = if meta.created_ms == 0 {
                0
            } else {
                FLAG_CREATED
            };
            let expires = if meta.expires_ms == 0 {
                0
            } else {
                FLAG_EXPIRES
            };
            created | expires
        }
    }
}

fn encoded_len(row_key: &[u8], cell: &Cell<'_>) -> usize {
    HEAD_BYTES
        + row_key.len()
        + match cell {
            Cell::Delete { .. } => 0,
            Cell::Put { meta, value } => {
                let times = usize::from(meta.created_ms != 0) + usize::from(meta.expires_ms != 0);
                12 + 8 * times + value.len()
            }
        }
}

fn encode(row_key: &[u8], cell: &Cell<'_>, out: &mut Vec<u8>) {
    let head = row_key.len() as u32 | u32::from(flags(cell)) << 24;
    out.extend_from_slice(&head.to_le_bytes());
    out.extend_from_slice(&cell.version().to_le_bytes());
    out.extend_from_slice(row_key);
    if let Cell::Put { meta, value } = cell {
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(&meta.updated_ms.to_le_bytes());
        for time in [meta.created_ms, meta.expires_ms] {
            if time != 0 {
                out.extend_from_slice(&time.to_le_bytes());
            }
        }
        out.extend_from_slice(value);
    }
}
