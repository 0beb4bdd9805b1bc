//! The way into a table's parsers past the checksums that guard them: for fuzzing.
//!
//! A block is parsed only if its checksum is right, so bytes that a fuzzer made up would never get
//! there. Even so the parsers believe nothing: a checksum does not tell a bug of the writer.

use std::rc::Rc;

use super::block::{Block, BlockCursor, Damaged};
use super::filter;
use super::footer::Footer;
use super::frame::{BlockKind, RAW_BYTES_MAX};
use super::reader::{parse_link, parse_part, parse_range_deletes};
use crate::compress::{Compression, decompress};
use crate::range_deletes::RangeDeletes;

const DAMAGED: &str = "a block contradicts itself";

/// Takes `payload` for what a block of this kind holds under its codec, and does with it all that
/// reading a table does: looks for (`row_key`, `version`), and walks it to the end and back. Returns
/// how many entries it has; a filter has none.
///
/// # Errors
/// What is wrong with it. It never panics, and allocates no more than 32 MiB and what the entries
/// take.
pub fn walk(
    kind: BlockKind,
    codec: Compression,
    payload: &[u8],
    row_key: &[u8],
    version: u64,
) -> Result<usize, &'static str> {
    let raw = decompress(codec, payload, RAW_BYTES_MAX)?;
    match kind {
        BlockKind::Footer => Footer::decode(&raw).map(|_| 1),
        BlockKind::RangeDeletes => {
            let mut deletes = RangeDeletes::new();
            parse_range_deletes(&raw, &mut deletes).ok_or("the range deletes are cut short")?;
            Ok(deletes.iter().count())
        }
        BlockKind::Filter => {
            let filter = Block::parse(kind, raw)?;
            for row_key in [row_key, b"", payload] {
                filter.may_contain(filter::hash(row_key));
            }
            Ok(0)
        }
        BlockKind::Data | BlockKind::Index | BlockKind::Top => {
            let block = Rc::new(Block::parse(kind, raw)?);
            let (seen, back) = walk_rows(kind, &block, row_key, version).map_err(|_| DAMAGED)?;
            match seen == back {
                true => Ok(seen),
                false => Err(DAMAGED),
            }
        }
    }
}

/// Entries met on the way to the end, and on the way back.
fn walk_rows(
    kind: BlockKind,
    block: &Rc<Block>,
    row_key: &[u8],
    version: u64,
) -> Result<(usize, usize), Damaged> {
    let mut cursor = BlockCursor::default();
    cursor.enter(Rc::clone(block));
    cursor.seek(row_key, version)?;
    let (mut seen, mut back) = (0, 0);
    let mut more = cursor.seek_first()?;
    while more {
        if let Some((entry, bytes)) = cursor.entry() {
            let told = match kind {
                BlockKind::Index => parse_link(entry.value(bytes)).is_some(),
                BlockKind::Top => parse_part(entry.value(bytes)).is_some(),
                _ => entry.cell(bytes).version() == entry.meta.version,
            };
            if !told {
                return Err(Damaged);
            }
        }
        seen += 1;
        more = cursor.next()?;
    }
    let mut more = cursor.seek_last()?;
    while more {
        back += 1;
        more = cursor.prev()?;
    }
    Ok((seen, back))
}

#[cfg(test)]
mod tests {
    use super::super::block::{BlockWriter, Content};
    use super::*;
    use crate::row::RowMeta;

    #[test]
    fn a_block_that_was_written_is_walked_and_any_flipped_bit_is_survived() {
        let mut writer = BlockWriter::data();
        for i in 0..100_u64 {
            let meta = RowMeta {
                version: i + 1,
                updated_ms: 1000 + i,
                ..RowMeta::default()
            };
            writer.add(&i.to_be_bytes(), Content::Put(meta, b"v"));
        }
        let raw = writer.finish().to_vec();
        let walk = |bytes: &[u8]| {
            let key = 50_u64.to_be_bytes();
            walk(BlockKind::Data, Compression::None, bytes, &key, u64::MAX)
        };
        assert_eq!(walk(&raw), Ok(100));
        let mut damaged = raw;
        let mut refused = 0;
        for bit in 0..damaged.len() * 8 {
            damaged[bit / 8] ^= 1 << (bit % 8);
            refused += usize::from(walk(&damaged).is_err());
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(refused > 0);
        assert_eq!(walk(&damaged), Ok(100));
    }
}
