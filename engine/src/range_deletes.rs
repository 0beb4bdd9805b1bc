//! A set of range deletes, ready to be asked which of them covers a row.
//!
//! The deletes are kept as they came, and beside that cut into *fragments*: between two
//! neighbouring bounds of any of them the set of versions that cover a row is constant, so a row is
//! looked up by one search for its fragment and one for the version. Inserting cuts at most two
//! fragments and adds one version to each between them.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::row::RangeDelete;

/// Whatever knows range deletes.
pub(crate) trait Covering {
    /// The newest version, at most `at_version`, of a delete that covers `row_key`; 0 for none.
    fn covering(&self, row_key: &[u8], at_version: u64) -> u64;
}

impl Covering for RangeDeletes {
    #[inline]
    fn covering(&self, row_key: &[u8], at_version: u64) -> u64 {
        Self::covering(self, row_key, at_version)
    }
}

/// Range deletes of a memtable, a table, or of several of these together.
#[derive(Debug, Clone, Default)]
pub struct RangeDeletes {
    list: Vec<Owned>,
    /// From each bound up to the next one: the versions that cover it, ascending.
    fragments: BTreeMap<Vec<u8>, Vec<u64>>,
    bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    from: Vec<u8>,
    to: Vec<u8>,
    version: u64,
}

/// What a map node, two vectors and their allocations cost beside their content, in bytes.
const FRAGMENT_OVERHEAD_BYTES: usize = 96;

impl RangeDeletes {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one. An empty or inverted range covers nothing and is ignored.
    pub fn insert(&mut self, from: &[u8], to: &[u8], version: u64) {
        if from >= to {
            return;
        }
        self.cut(from);
        self.cut(to);
        let range = (Bound::Included(from), Bound::Excluded(to));
        for versions in self.fragments.range_mut::<[u8], _>(range) {
            let versions = versions.1;
            if let Err(at) = versions.binary_search(&version) {
                let before = versions.capacity();
                versions.insert(at, version);
                self.bytes += (versions.capacity() - before) * size_of::<u64>();
            }
        }
        self.bytes += from.len() + to.len() + size_of::<Owned>();
        self.list.push(Owned {
            from: from.to_vec(),
            to: to.to_vec(),
            version,
        });
    }

    /// Makes `at` a bound between fragments.
    fn cut(&mut self, at: &[u8]) {
        let below = (Bound::Unbounded, Bound::Included(at));
        let versions = match self.fragments.range::<[u8], _>(below).next_back() {
            Some((start, _)) if start == at => return,
            Some((_, versions)) => versions.clone(),
            None => Vec::new(),
        };
        self.bytes += at.len() + versions.capacity() * size_of::<u64>() + FRAGMENT_OVERHEAD_BYTES;
        self.fragments.insert(at.to_vec(), versions);
    }

    /// The newest version, at most `at_version`, of a delete that covers `row_key`; 0 for none. A
    /// cell of that row is deleted by it exactly if the cell's version is lower.
    #[inline]
    #[must_use]
    pub fn covering(&self, row_key: &[u8], at_version: u64) -> u64 {
        if self.list.is_empty() {
            return 0;
        }
        let below = (Bound::Unbounded, Bound::Included(row_key));
        match self.fragments.range::<[u8], _>(below).next_back() {
            Some((_, versions)) => newest_at(versions, at_version),
            None => 0,
        }
    }

    /// The version up to which *every* row of `from..to` is deleted at `at_version`: the lowest of
    /// [`RangeDeletes::covering`] over the range. 0 if a part of it is not covered, or it is empty.
    #[must_use]
    pub fn covering_all(&self, from: &[u8], to: &[u8], at_version: u64) -> u64 {
        if from >= to {
            return 0;
        }
        let mut lowest = self.covering(from, at_version);
        let inside = (Bound::Excluded(from), Bound::Excluded(to));
        for (_, versions) in self.fragments.range::<[u8], _>(inside) {
            if lowest == 0 {
                break;
            }
            lowest = lowest.min(newest_at(versions, at_version));
        }
        lowest
    }

    /// How many were added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = RangeDelete<'_>> {
        self.list.iter().map(|owned| RangeDelete {
            from: &owned.from,
            to: &owned.to,
            version: owned.version,
        })
    }

    /// Heap memory held, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }
}

fn newest_at(versions: &[u64], at_version: u64) -> u64 {
    let newer = versions.partition_point(|version| *version <= at_version);
    newer
        .checked_sub(1)
        .and_then(|at| versions.get(at))
        .copied()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn agrees_with_a_plain_list() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        let mut set = RangeDeletes::new();
        let mut list = Vec::new();
        for version in 1..60u64 {
            let from = vec![rng.random_range(0..40u8)];
            let to = vec![rng.random_range(0..40u8)];
            set.insert(&from, &to, version);
            if from < to {
                list.push((from, to, version));
            }
            for key in 0..41u8 {
                for at in [0, version / 2, version, u64::MAX] {
                    let expected = list
                        .iter()
                        .filter(|(from, to, v)| *v <= at && from[0] <= key && key < to[0])
                        .map(|(_, _, v)| *v)
                        .max()
                        .unwrap_or(0);
                    assert_eq!(set.covering(&[key], at), expected);
                }
            }
            let (low, high) = (rng.random_range(0..40u8), rng.random_range(0..41u8));
            let expected = (low..high)
                .map(|key| set.covering(&[key], u64::MAX))
                .min()
                .unwrap_or(0);
            assert_eq!(set.covering_all(&[low], &[high], u64::MAX), expected);
        }
        assert_eq!(set.len(), list.len());
        assert!(set.memory_bytes() > 0);
    }
}
