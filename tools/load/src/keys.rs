//! Keys and how they are drawn.
//!
//! Record `i` has the key `prefix` + 16 hexadecimal digits of a bijective scrambling of `i`: keys
//! of one length, no two alike, and records numbered one after the other lie scattered, so that a
//! preload inserts in random order and a zipfian's hot records are not neighbours.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::RngExt;
use rand::distr::Distribution as _;
use rand::rngs::SmallRng;
use rand_distr::Zipf;

use crate::clock::nanos;
use crate::options::Distribution;

/// YCSB's exponent. (It calls it the zipfian constant.)
const ZIPF_EXPONENT: f64 = 0.99;

/// A bijection of u64 (the finalizer of splitmix64).
pub fn scramble(index: u64) -> u64 {
    let mut x = index.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A number that no other run has, nor any other `part` of this one.
pub fn unique(part: u64) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    scramble(nanos(now) ^ scramble(part) ^ u64::from(std::process::id()).rotate_left(32))
}

/// Writes keys.
#[derive(Debug, Clone)]
pub struct Keys {
    key: Vec<u8>,
    prefix_bytes: usize,
}

impl Keys {
    /// Keys that begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        let mut key = prefix.as_bytes().to_vec();
        key.resize(prefix.len() + 16, b'0');
        Self {
            key,
            prefix_bytes: prefix.len(),
        }
    }

    /// The key of record `index`, until the next call.
    pub fn key(&mut self, index: u64) -> &[u8] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut bits = scramble(index);
        for digit in self.key[self.prefix_bytes..].iter_mut().rev() {
            *digit = DIGITS[(bits & 15) as usize];
            bits >>= 4;
        }
        &self.key
    }
}

/// Draws record numbers.
#[derive(Debug, Clone)]
pub enum Chooser {
    /// Each alike.
    Uniform,
    /// Rank by Zipf's law, rank scrambled to a record.
    Zipfian(Zipf<f64>),
    /// Rank by Zipf's law, counted back from the newest record.
    Latest(Zipf<f64>),
}

impl Chooser {
    /// For `records` records, at least 1.
    pub fn new(distribution: Distribution, records: u64) -> Self {
        let zipf = || {
            Zipf::new(records.max(1) as f64, ZIPF_EXPONENT)
                .expect("a Zipf over at least one element with a positive exponent exists")
        };
        match distribution {
            Distribution::Uniform => Self::Uniform,
            Distribution::Zipfian => Self::Zipfian(zipf()),
            Distribution::Latest => Self::Latest(zipf()),
        }
    }

    /// A record below `records`, at least 1. `records` may have grown since the beginning: ranks
    /// stay within the number that it was made for.
    pub fn draw(&self, rng: &mut SmallRng, records: u64) -> u64 {
        match self {
            Self::Uniform => rng.random_range(0..records),
            Self::Zipfian(zipf) => scramble(zipf.sample(rng) as u64) % records,
            Self::Latest(zipf) => {
                let rank = (zipf.sample(rng) as u64).clamp(1, records);
                records - rank
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn keys_are_of_one_length_and_differ() {
        let mut keys = Keys::new("bench:");
        let all: HashSet<Vec<u8>> = (0..10_000).map(|i| keys.key(i).to_vec()).collect();
        assert_eq!(all.len(), 10_000);
        assert!(
            all.iter()
                .all(|key| key.len() == 22 && key.starts_with(b"bench:"))
        );
        assert_eq!(Keys::new("").key(7), Keys::new("").key(7));
    }

    fn frequencies(distribution: Distribution, records: u64) -> Vec<(u64, usize)> {
        let chooser = Chooser::new(distribution, records);
        let mut rng = SmallRng::seed_from_u64(3);
        let mut seen: HashMap<u64, usize> = HashMap::new();
        for _ in 0..100_000 {
            *seen.entry(chooser.draw(&mut rng, records)).or_default() += 1;
        }
        assert!(seen.keys().all(|&record| record < records));
        let mut seen: Vec<_> = seen.into_iter().collect();
        seen.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        seen
    }

    #[test]
    fn uniform_reaches_every_record_about_alike() {
        let seen = frequencies(Distribution::Uniform, 100);
        assert_eq!(seen.len(), 100);
        assert!(seen[0].1 < 1_300 && seen[99].1 > 700, "{seen:?}");
    }

    #[test]
    fn zipfian_has_scattered_hot_records() {
        // With exponent 0.99 over 1000 records the first rank has 1/H = 13 % of the draws.
        let seen = frequencies(Distribution::Zipfian, 1000);
        assert!((11_000..16_000).contains(&seen[0].1), "{:?}", &seen[..5]);
        assert!(seen[0].0.abs_diff(seen[1].0) > 1, "{:?}", &seen[..5]);
    }

    #[test]
    fn latest_prefers_the_newest_record() {
        let seen = frequencies(Distribution::Latest, 1000);
        assert_eq!((seen[0].0, seen[1].0), (999, 998));
        assert!((11_000..16_000).contains(&seen[0].1), "{:?}", &seen[..5]);
    }
}
