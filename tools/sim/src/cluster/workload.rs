//! What clients do: few keys, so that they meet; contents that tell who wrote them.

use ringbolt_engine::env::sim::Rng;
use ringbolt_wire::message::{PartitionId, ReadLevel};
use ringbolt_wire::partition_of;

use super::history::{Change, Guard, KeyId};

/// Digits at the beginning of a value that tell which put wrote it.
const DIGITS: usize = 16;

/// What a key is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Puts, deletes and conditional writes.
    Register,
    /// Increments.
    Counter,
    /// Written in batches with the other keys of its tag.
    Group(u16),
}

/// The keys of a run.
#[derive(Debug, Clone)]
pub struct Keys {
    names: Vec<(Vec<u8>, Use)>,
}

impl Keys {
    /// As many of each kind.
    #[must_use]
    pub fn new(registers: u16, counters: u16, groups: u16) -> Self {
        let mut names = Vec::new();
        for n in 0..registers {
            names.push((format!("key-{n}").into_bytes(), Use::Register));
        }
        for n in 0..counters {
            names.push((format!("count-{n}").into_bytes(), Use::Counter));
        }
        for n in 0..groups {
            for part in ["a", "b", "c"] {
                names.push((format!("{{group-{n}}}{part}").into_bytes(), Use::Group(n)));
            }
        }
        Self { names }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// A key's name.
    #[must_use]
    pub fn name(&self, key: KeyId) -> &[u8] {
        &self.names[usize::from(key)].0
    }

    /// What a key is used for.
    #[must_use]
    pub fn use_of(&self, key: KeyId) -> Use {
        self.names[usize::from(key)].1
    }

    /// The group a key belongs to, if it does.
    #[must_use]
    pub fn group(&self, key: KeyId) -> Option<u16> {
        match self.use_of(key) {
            Use::Group(group) => Some(group),
            Use::Register | Use::Counter => None,
        }
    }

    /// The key of this name.
    #[must_use]
    pub fn of_name(&self, name: &[u8]) -> Option<KeyId> {
        let at = self.names.iter().position(|(found, _)| found == name)?;
        Some(at as KeyId)
    }

    /// Every key whose name begins with `prefix`, in the order of names.
    #[must_use]
    pub fn with_prefix(&self, prefix: &[u8]) -> Vec<KeyId> {
        let mut keys: Vec<KeyId> = (0..self.names.len() as KeyId)
            .filter(|&key| self.name(key).starts_with(prefix))
            .collect();
        keys.sort_by_key(|&key| self.name(key));
        keys
    }

    /// Each key's partition.
    #[must_use]
    pub fn partitions(&self, partitions: u16) -> Vec<PartitionId> {
        self.names
            .iter()
            .map(|(name, _)| partition_of(name, partitions))
            .collect()
    }

    /// The bytes of a value: its number, then a filler that follows from it.
    #[must_use]
    pub fn encode(number: i64) -> Vec<u8> {
        let mut value = format!("{number:0DIGITS$x}").into_bytes();
        let mut rng = Rng::new(number as u64);
        let filler = match rng.below(16) {
            0 => rng.between(1 << 10, 8 << 10),
            1..4 => rng.between(100, 1000),
            _ => rng.below(64),
        };
        value.extend((0..filler).map(|_| b' ' + rng.below(90) as u8));
        value
    }

    /// The number in a value. `None` if the value is not one that was ever written.
    #[must_use]
    pub fn decode(&self, key: KeyId, value: &[u8]) -> Option<i64> {
        if self.use_of(key) == Use::Counter {
            return std::str::from_utf8(value).ok()?.parse().ok();
        }
        let digits = std::str::from_utf8(value.get(..DIGITS)?).ok()?;
        let number = i64::from_str_radix(digits, 16).ok()?;
        (Self::encode(number) == value).then_some(number)
    }
}

/// What a client is about to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// A write, or a batch of them.
    Write(Vec<(KeyId, Guard, Change)>),
    /// Reads of some keys, by a get or a multi-get.
    Get(Vec<KeyId>),
    /// Of all keys with a prefix, by a scan.
    Scan(Vec<u8>),
}

/// Draws the next operation. `fresh` is a number that no put used yet; `known` says what the client
/// last saw of a key.
pub fn draw(
    rng: &mut Rng,
    keys: &Keys,
    fresh: i64,
    known: impl Fn(KeyId) -> Option<(i64, u64)>,
) -> Plan {
    let key = rng.index(keys.len()) as KeyId;
    let reads = rng.below(100);
    if reads < 40 {
        return Plan::Get(vec![key]);
    }
    if reads < 45 {
        let count = rng.between(2, 4);
        let mut several: Vec<KeyId> = (0..count).map(|_| rng.index(keys.len()) as KeyId).collect();
        several.sort_unstable();
        several.dedup();
        return Plan::Get(several);
    }
    match keys.use_of(key) {
        Use::Register => {
            if reads < 48 {
                return Plan::Scan(b"key-".to_vec());
            }
            let guard = match (rng.below(8), known(key)) {
                (0, _) => Guard::Absent,
                (1, _) => Guard::Present,
                (2 | 3, Some((value, version))) => Guard::Is { value, version },
                _ => Guard::None,
            };
            let change = match rng.below(5) {
                0 if guard != Guard::Absent => Change::Delete,
                _ => Change::Put(fresh),
            };
            Plan::Write(vec![(key, guard, change)])
        }
        Use::Group(group) if reads < 65 => Plan::Scan(format!("{{group-{group}}}").into_bytes()),
        Use::Counter | Use::Group(_) => write_of(rng, keys, key, fresh),
    }
}

/// A write of one key, or of its group.
#[must_use]
pub fn write_of(rng: &mut Rng, keys: &Keys, key: KeyId, fresh: i64) -> Plan {
    match keys.use_of(key) {
        Use::Register => Plan::Write(vec![(key, Guard::None, Change::Put(fresh))]),
        // So large that no two sets of them have the same sum.
        Use::Counter => {
            let by = rng.between(1, 1 << 40) as i64;
            Plan::Write(vec![(key, Guard::None, Change::Add(by))])
        }
        Use::Group(group) => {
            let all = keys.with_prefix(format!("{{group-{group}}}").as_bytes());
            let put = |key| (key, Guard::None, Change::Put(fresh));
            Plan::Write(all.into_iter().map(put).collect())
        }
    }
}

/// Draws how fresh a read is to be.
pub fn draw_level(rng: &mut Rng) -> ReadLevel {
    match rng.below(10) {
        0..6 => ReadLevel::Linearizable,
        6 => ReadLevel::Strict,
        7 | 8 => ReadLevel::Session,
        _ => ReadLevel::Stale {
            max_age_ms: [200, 1000, 5000][rng.index(3)],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_tell_who_wrote_them() {
        let keys = Keys::new(1, 1, 1);
        for number in [1, 77, 1 << 40] {
            let mut value = Keys::encode(number);
            assert_eq!(keys.decode(0, &value), Some(number));
            let last = value.len() - 1;
            value[last] ^= 1;
            assert_eq!(keys.decode(0, &value), None, "a flipped bit is seen");
        }
        assert_eq!(keys.decode(1, b"-12"), Some(-12));
        assert_eq!(keys.with_prefix(b"{group-0}"), [2, 3, 4]);
    }
}
