//! Compression of blocks, with a hard cap on what comes out again.
//!
//! A compressed payload is the raw length (u32 LE) and the compressed bytes. A block that does not
//! shrink by at least an eighth is stored raw: decompressing it would cost more than it saves.

use std::cell::RefCell;

/// How a table's blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    None,
    /// lz4: cheap both ways.
    #[default]
    Lz4,
    /// zstd, level 3: smaller, several times the CPU. For the deepest levels.
    Zstd,
}

/// Bytes of the raw length before the compressed bytes.
const RAW_LEN_BYTES: usize = 4;

const ZSTD_LEVEL: i32 = 3;

impl Compression {
    /// The codec's number in a block's tag.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    /// The codec of a number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Compresses blocks one after the other, reusing its buffers.
pub struct Compressor {
    wanted: Compression,
    buffer: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Compressor {
    /// A compressor. If zstd has no memory to start with, blocks are stored raw.
    #[must_use]
    pub fn new(wanted: Compression) -> Self {
        let zstd = match wanted {
            Compression::Zstd => zstd::bulk::Compressor::new(ZSTD_LEVEL).ok(),
            _ => None,
        };
        Self {
            wanted,
            buffer: Vec::new(),
            zstd,
        }
    }

    /// The payload to store for `raw`, and the codec it is in.
    pub fn compress<'a>(&'a mut self, raw: &'a [u8]) -> (Compression, &'a [u8]) {
        match self.shrink(raw) {
            Some(len) => (self.wanted, &self.buffer[..len]),
            None => (Compression::None, raw),
        }
    }

    fn shrink(&mut self, raw: &[u8]) -> Option<usize> {
        // What must not be exceeded for it to be worth it.
        let limit = raw.len() - raw.len() / 8;
        let room = match self.wanted {
            Compression::None => return None,
            Compression::Lz4 => lz4_flex::block::get_maximum_output_size(raw.len()),
            Compression::Zstd => zstd::zstd_safe::compress_bound(raw.len()),
        };
        if self.buffer.len() < RAW_LEN_BYTES + room {
            self.buffer.resize(RAW_LEN_BYTES + room, 0);
        }
        let (head, out) = self.buffer.split_at_mut(RAW_LEN_BYTES);
        let len = match self.wanted {
            Compression::None => None,
            Compression::Lz4 => lz4_flex::block::compress_into(raw, out).ok(),
            Compression::Zstd => self.zstd.as_mut()?.compress_to_buffer(raw, out).ok(),
        }?;
        head.copy_from_slice(&u32::try_from(raw.len()).ok()?.to_le_bytes());
        (RAW_LEN_BYTES + len <= limit).then_some(RAW_LEN_BYTES + len)
    }
}

/// Undoes [`Compressor::compress`]. Allocates at most `raw_len_max` bytes.
///
/// # Errors
/// Says what is wrong with the payload.
pub fn decompress(
    codec: Compression,
    payload: &[u8],
    raw_len_max: usize,
) -> Result<Box<[u8]>, &'static str> {
    if codec == Compression::None {
        if payload.len() > raw_len_max {
            return Err("the block is larger than any block");
        }
        return Ok(payload.into());
    }
    let Some((raw_len, compressed)) = payload.split_first_chunk::<RAW_LEN_BYTES>() else {
        return Err("a compressed block is cut short");
    };
    let raw_len = u32::from_le_bytes(*raw_len) as usize;
    if raw_len > raw_len_max {
        return Err("the block would be larger than any block");
    }
    let mut raw = vec![0; raw_len].into_boxed_slice();
    let len = match codec {
        Compression::Lz4 => lz4_flex::block::decompress_into(compressed, &mut raw).ok(),
        _ => zstd_decompress(compressed, &mut raw),
    };
    match len {
        Some(len) if len == raw_len => Ok(raw),
        _ => Err("a compressed block does not decompress"),
    }
}

fn zstd_decompress(compressed: &[u8], raw: &mut [u8]) -> Option<usize> {
    thread_local! {
        static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
            const { RefCell::new(None) };
    }
    ZSTD.with_borrow_mut(|zstd| {
        if zstd.is_none() {
            *zstd = zstd::bulk::Decompressor::new().ok();
        }
        zstd.as_mut()?.decompress_to_buffer(compressed, raw).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn comes_back_as_it_was(raw in proptest::collection::vec(0..4u8, 0..9000), code in 0..3u8) {
            let codec = Compression::from_code(code).expect("a codec");
            let mut compressor = Compressor::new(codec);
            for _ in 0..2 {
                let (used, payload) = compressor.compress(&raw);
                prop_assert!(payload.len() <= raw.len());
                let back = decompress(used, payload, 9000).expect("it decompresses");
                prop_assert_eq!(&*back, &raw[..]);
                if used != Compression::None {
                    prop_assert!(decompress(used, payload, raw.len() - 1).is_err());
                }
            }
        }

        #[test]
        fn garbage_is_an_error_or_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            code in 0..3u8,
        ) {
            let codec = Compression::from_code(code).expect("a codec");
            if let Ok(raw) = decompress(codec, &bytes, 1 << 16) {
                prop_assert!(raw.len() <= 1 << 16);
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_stored_raw() {
        let hash = |n: u32| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()) as u8;
        let raw: Vec<u8> = (0..4096).map(hash).collect();
        for codec in [Compression::Lz4, Compression::Zstd] {
            assert_eq!(Compressor::new(codec).compress(&raw).0, Compression::None);
        }
        assert_eq!(Compression::from_code(3), None);
    }
}
