//! Any bytes where a block of a table is read from, behind its checksum: each kind of block, as it is
//! stored raw and compressed, is refused or walked from end to end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringbolt_engine::compress::Compression;
use ringbolt_engine::table::BlockKind;
use ringbolt_engine::table::untrusted::walk;

const KINDS: [BlockKind; 6] = [
    BlockKind::Data,
    BlockKind::Index,
    BlockKind::Filter,
    BlockKind::Top,
    BlockKind::RangeDeletes,
    BlockKind::Footer,
];
const CODECS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

fuzz_target!(|bytes: &[u8]| {
    let [choice, key_len, rest @ ..] = bytes else {
        return;
    };
    let (row_key, payload) = rest.split_at(usize::from(*key_len).min(rest.len()));
    let codec = CODECS[usize::from(choice / 6) % CODECS.len()];
    let kind = KINDS[usize::from(choice % 6)];
    // A count or an error; anything else is a fault.
    let _ = walk(kind, codec, payload, row_key, u64::MAX);
});
