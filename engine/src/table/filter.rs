//! Filters: is a row surely absent from a part of a table?
//!
//! A *ribbon filter* (Dillinger and Walzer, 2021): each key stands for one linear equation over
//! bits: 64 neighbouring rows of a solution matrix, chosen and combined by the key's hash, must add
//! up to the key's fingerprint. Solving the equations gives the matrix. A key that was put in always
//! fits; another one fits with probability 2^-r for r columns. It costs about 1.07 r bits a key, where a
//! Bloom filter needs 1.44 r: at 10 bits a key one probe in 512 is a false alarm instead of one in
//! 120. The matrix is stored by 64-row segments, column by column, so that a probe reads a few
//! neighbouring cache lines and gives up at the first column that does not fit, half of the time the
//! first. `benches/benches/filter.rs` measures it beside a cache-line-blocked Bloom filter.
//!
//! ```text
//! | segment 0: column 0 u64, column 1 u64, ... | segment 1 ... | seed u32 | columns u32 | segments u32 |
//! ```
//!
//! A filter without columns lets everything pass.

/// Rows that one key's equation spans.
const WIDTH: usize = 64;
const TRAILER_BYTES: usize = 12;
/// Most columns: fingerprints beyond that buy nothing.
const COLUMNS_MAX: usize = 24;
/// Seeds to try before the filter is left out; each try fails rarely.
const TRIES_MAX: u32 = 40;

/// The hash of a row key that filters work on.
#[inline]
#[must_use]
pub fn hash(row_key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(row_key)
}

/// One key's equation.
struct Equation {
    start: usize,
    coefficients: u64,
    fingerprint: u32,
}

impl Equation {
    #[inline]
    fn of(hash: u64, seed: u32, rows: usize) -> Self {
        let mixed = (hash ^ u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mixed = mixed ^ (mixed >> 32);
        let starts = (rows - WIDTH + 1) as u128;
        let start = ((u128::from(mixed) * starts) >> 64) as usize;
        let second = mixed.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        let coefficients = (second ^ (second >> 29)) | 1;
        let third = mixed.wrapping_mul(0x1656_67b1_9e37_79f9);
        Self {
            start,
            coefficients,
            fingerprint: (third >> 40) as u32,
        }
    }
}

/// Builds a filter over the hashes of row keys, of about `bits_per_key` bits a key.
#[must_use]
pub fn build(hashes: &[u64], bits_per_key: u32) -> Vec<u8> {
    let mut rows_wanted = hashes.len() + hashes.len() / 24 + WIDTH / 2;
    for seed in 0..TRIES_MAX {
        let segments = rows_wanted.div_ceil(WIDTH).max(1);
        let bits = hashes.len() * bits_per_key as usize;
        let columns = (bits / rows_wanted.max(1)).min(COLUMNS_MAX);
        if columns == 0 {
            break;
        }
        if let Some(bands) = band(hashes, seed, segments * WIDTH) {
            return solve(&bands, seed, columns, segments);
        }
        rows_wanted += hashes.len() / 64 + 1;
    }
    trailer(Vec::new(), 0, 0, 0)
}

/// The equations in echelon form: at most one begins in each row. `None` if they contradict.
fn band(hashes: &[u64], seed: u32, rows: usize) -> Option<Vec<(u64, u32)>> {
    let mut bands = vec![(0u64, 0u32); rows];
    for hash in hashes {
        let equation = Equation::of(*hash, seed, rows);
        let mut at = equation.start;
        let mut coefficients = equation.coefficients;
        let mut fingerprint = equation.fingerprint;
        loop {
            let (there, result) = bands[at];
            if there == 0 {
                bands[at] = (coefficients, fingerprint);
                break;
            }
            coefficients ^= there;
            fingerprint ^= result;
            if coefficients == 0 {
                if fingerprint == 0 {
                    break;
                }
                return None;
            }
            let skip = coefficients.trailing_zeros();
            coefficients >>= skip;
            at += skip as usize;
        }
    }
    Some(bands)
}

/// Back substitution from the last row up.
fn solve(bands: &[(u64, u32)], seed: u32, columns: usize, segments: usize) -> Vec<u8> {
    let mut out = vec![0; segments * columns * 8];
    let mut window = [0u64; COLUMNS_MAX];
    for (row, (coefficients, fingerprint)) in bands.iter().enumerate().rev() {
        for (column, bits) in window.iter_mut().take(columns).enumerate() {
            *bits <<= 1;
            let parity = (*bits & coefficients).count_ones() ^ (fingerprint >> column);
            *bits |= u64::from(parity & 1);
        }
        if row.is_multiple_of(WIDTH) {
            let at = row / WIDTH * columns * 8;
            let words = out[at..at + columns * 8].chunks_exact_mut(8);
            for (word, bits) in words.zip(window) {
                word.copy_from_slice(&bits.to_le_bytes());
            }
        }
    }
    trailer(out, seed, columns, segments)
}

fn trailer(mut out: Vec<u8>, seed: u32, columns: usize, segments: usize) -> Vec<u8> {
    out.extend_from_slice(&seed.to_le_bytes());
    out.extend_from_slice(&(columns as u32).to_le_bytes());
    out.extend_from_slice(&(segments as u32).to_le_bytes());
    out
}

/// The shape of a stored filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    seed: u32,
    columns: usize,
    segments: usize,
}

impl Filter {
    /// Reads the shape; `None` if the bytes are no filter.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (words, trailer) = bytes.split_last_chunk::<TRAILER_BYTES>()?;
        let number = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&trailer[at..at + 4]);
            u32::from_le_bytes(word)
        };
        let filter = Self {
            seed: number(0),
            columns: number(4) as usize,
            segments: number(8) as usize,
        };
        let fits = filter.columns <= COLUMNS_MAX
            && filter.segments.checked_mul(filter.columns * 8) == Some(words.len())
            && (filter.columns == 0 || filter.segments > 0);
        fits.then_some(filter)
    }

    /// Whether a key of this hash may have been put in. `bytes` are those it was parsed from.
    #[inline]
    #[must_use]
    pub fn may_contain(&self, bytes: &[u8], hash: u64) -> bool {
        if self.columns == 0 {
            return true;
        }
        let equation = Equation::of(hash, self.seed, self.segments * WIDTH);
        let shift = (equation.start % WIDTH) as u32;
        let at = equation.start / WIDTH * self.columns * 8;
        let words = &bytes[at..];
        let wrong = |column: usize, bits: u64| {
            let parity = (bits & equation.coefficients).count_ones();
            (parity ^ (equation.fingerprint >> column)) & 1 != 0
        };
        for column in 0..self.columns {
            let mut bits = word(words, column) >> shift;
            if shift > 0 {
                bits |= word(words, self.columns + column) << (64 - shift);
            }
            if wrong(column, bits) {
                return false;
            }
        }
        true
    }
}

#[inline]
fn word(bytes: &[u8], index: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(count: u64, salt: u64) -> Vec<u64> {
        (0..count)
            .map(|n| hash(&[n.to_le_bytes(), salt.to_le_bytes()].concat()))
            .collect()
    }

    #[test]
    fn finds_all_that_was_put_in_and_little_else() {
        for (count, bits, rate_max) in [
            (1, 10, 1.0),
            (10, 10, 1.0),
            (760, 10, 0.006),
            (4096, 10, 0.004),
            (4096, 16, 0.0002),
            (4096, 1, 1.0),
        ] {
            let put_in = keys(count, 1);
            let bytes = build(&put_in, bits);
            let filter = Filter::parse(&bytes).expect("a filter");
            assert!(put_in.iter().all(|h| filter.may_contain(&bytes, *h)));
            let others = keys(200_000, 2);
            let alarms = others
                .iter()
                .filter(|h| filter.may_contain(&bytes, **h))
                .count();
            let rate = alarms as f64 / others.len() as f64;
            let cost = bytes.len() as f64 * 8.0 / count as f64;
            println!("{count} keys, {bits} bits asked, {cost:.2} used: {rate:.5}");
            assert!(rate <= rate_max, "{count} keys, {bits} bits: {rate}");
            assert!(bytes.len() * 8 <= count as usize * bits as usize * 12 / 10 + 2000);
        }
    }

    #[test]
    fn the_same_key_twice_is_no_contradiction() {
        let mut put_in = keys(100, 1);
        put_in.extend(keys(100, 1));
        let bytes = build(&put_in, 12);
        let filter = Filter::parse(&bytes).expect("a filter");
        assert!(filter.columns > 0);
        assert!(put_in.iter().all(|h| filter.may_contain(&bytes, *h)));
        let none = build(&[], 12);
        assert!(Filter::parse(&none).is_some());
    }

    proptest! {
        #[test]
        fn garbage_is_a_filter_or_none(
            words in proptest::collection::vec(any::<u8>(), 0..100),
            columns in 0..30u32,
            segments in 0..4u32,
            hash: u64,
        ) {
            let mut bytes = words;
            bytes.truncate(bytes.len() / 8 * 8);
            for number in [7, columns, segments] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            if let Some(filter) = Filter::parse(&bytes) {
                let _ = filter.may_contain(&bytes, hash);
            }
        }
    }
}
