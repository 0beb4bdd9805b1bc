//! Values: filler of a chosen compressibility, and, in verified runs, a stamp that lets a value
//! check itself.
//!
//! ```text
//!  0          8       16         24          32
//!  +----------+-------+----------+-----------+-------
//!  | checksum | run   | sequence | key hash  | filler
//!  | u64      | u64   | u64      | u64       |
//!  +----------+-------+----------+-----------+-------
//! ```
//!
//! All little-endian. The checksum is xxh3-64 over everything behind it, so that a value which was
//! cut, padded, flipped or mixed with another is known; the hash is xxh3-64 of the key, so that
//! another record's value is known; the run tells values of other runs apart.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use xxhash_rust::xxh3::xxh3_64;

/// Length of the stamp, in bytes: the least a verified value can have.
pub const STAMP_BYTES: usize = 32;

const POOL_BYTES: usize = 1 << 20;
/// Random and repeated stretches alternate within pieces of this length, as in db_bench.
const PIECE_BYTES: usize = 100;

/// What a stamp says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which run wrote the value.
    pub run: u64,
    /// The write's number among its key's.
    pub sequence: u64,
}

/// Why a value cannot be what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Shorter than a stamp.
    #[error("it has {0} bytes, less than its stamp")]
    Short(usize),
    /// Checksum and content differ.
    #[error("its checksum does not match its content")]
    Checksum,
    /// It was written under another key.
    #[error("it was written under another key")]
    OtherKey,
}

/// Makes values.
#[derive(Debug)]
pub struct Values {
    pool: Vec<u8>,
    scratch: Vec<u8>,
}

impl Values {
    /// Values of up to `bytes_max` bytes of which a good compressor leaves about `ratio`.
    pub fn new(bytes_max: u32, ratio: f64, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let len = POOL_BYTES + bytes_max as usize;
        let random_bytes = ((PIECE_BYTES as f64 * ratio) as usize).clamp(1, PIECE_BYTES);
        let mut pool = Vec::with_capacity(len + PIECE_BYTES);
        let mut piece = [0; PIECE_BYTES];
        while pool.len() < len {
            rng.fill_bytes(&mut piece[..random_bytes]);
            for at in random_bytes..PIECE_BYTES {
                piece[at] = piece[at - random_bytes];
            }
            pool.extend_from_slice(&piece);
        }
        Self {
            pool,
            scratch: Vec::new(),
        }
    }

    /// An unstamped value of `bytes` bytes, the same for the same `tag`.
    pub fn plain(&self, tag: u64, bytes: u32) -> &[u8] {
        let at = crate::keys::scramble(tag) as usize % POOL_BYTES;
        &self.pool[at..][..bytes as usize]
    }

    /// A stamped value of `bytes` bytes (at least [`STAMP_BYTES`]), until the next call.
    pub fn stamped(&mut self, stamp: Stamp, key: &[u8], bytes: u32) -> &[u8] {
        let filler = (bytes as usize).saturating_sub(STAMP_BYTES);
        let at = crate::keys::scramble(stamp.sequence ^ stamp.run) as usize % POOL_BYTES;
        let value = &mut self.scratch;
        value.clear();
        value.extend_from_slice(&[0; 8]);
        value.extend_from_slice(&stamp.run.to_le_bytes());
        value.extend_from_slice(&stamp.sequence.to_le_bytes());
        value.extend_from_slice(&xxh3_64(key).to_le_bytes());
        value.extend_from_slice(&self.pool[at..][..filler]);
        let checksum = xxh3_64(&value[8..]);
        value[..8].copy_from_slice(&checksum.to_le_bytes());
        value
    }
}

/// Reads a stamped value's stamp.
///
/// # Errors
/// [`Damage`] says why the value can never have been written under this key.
pub fn check(value: &[u8], key: &[u8]) -> Result<Stamp, Damage> {
    let word = |at: usize| {
        value
            .get(at..)
            .and_then(|rest| rest.first_chunk::<8>())
            .map(|bytes| u64::from_le_bytes(*bytes))
            .ok_or(Damage::Short(value.len()))
    };
    let (checksum, run, sequence, hash) = (word(0)?, word(8)?, word(16)?, word(24)?);
    if xxh3_64(&value[8..]) != checksum {
        return Err(Damage::Checksum);
    }
    if xxh3_64(key) != hash {
        return Err(Damage::OtherKey);
    }
    Ok(Stamp { run, sequence })
}

/// A value size from the range, drawn.
pub fn draw_size(rng: &mut SmallRng, range: &std::ops::RangeInclusive<u32>) -> u32 {
    if range.start() == range.end() {
        *range.start()
    } else {
        rng.random_range(range.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_value_reads_back() {
        let mut values = Values::new(1000, 0.5, 1);
        let stamp = Stamp {
            run: 9,
            sequence: 77,
        };
        for bytes in [32, 33, 100, 1000] {
            let value = values.stamped(stamp, b"k", bytes).to_vec();
            assert_eq!(value.len(), bytes as usize);
            assert_eq!(check(&value, b"k"), Ok(stamp));
            assert_eq!(check(&value, b"j"), Err(Damage::OtherKey));
            for at in 0..value.len() {
                let mut flipped = value.clone();
                flipped[at] ^= 1;
                assert_eq!(check(&flipped, b"k"), Err(Damage::Checksum), "byte {at}");
            }
            let cut = &value[..value.len() - 1];
            assert!(check(cut, b"k").is_err());
        }
        assert_eq!(check(b"short", b"k"), Err(Damage::Short(5)));
    }

    #[test]
    fn the_ratio_decides_how_much_repeats() {
        let values = Values::new(100, 0.25, 1);
        assert_eq!(values.pool[0..25], values.pool[25..50]);
        assert_eq!(values.pool[0..25], values.pool[75..100]);
        assert_eq!(values.plain(5, 64), values.plain(5, 64));
    }
}
