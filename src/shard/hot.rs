//! Which keys and partitions the traffic goes to.
//!
//! Heavy hitters by *space saving* (Metwally, Agrawal, El Abbadi 2005) over samples: a fixed table of
//! keys with counts; a key that is not in it takes the place of the least one and inherits its count, so
//! that a count is too high by at most that, and a key with more than its share is never missing. One
//! request in so many is sampled, the fewer the more there are: some thousands a second, whatever the
//! load.
//!
//! Time is cut into windows of half a second. What is told is the last whole one, so a key is
//! named within a second of becoming hot, and forgotten as soon. Partitions are counted whole, without
//! sampling.

use std::cell::{Cell, RefCell};

use ringbolt_engine::entry::{KeyspaceId, PartitionId};

/// Keys counted at once.
const KEYS: usize = 64;
/// Bytes of a key that are kept; keys that are alike so far are counted apart all the same.
const KEY_BYTES_MAX: usize = 128;
/// Length of a window.
const WINDOW_US: u64 = 500_000;
/// Samples a window that are aimed at.
const SAMPLES: u32 = 2_000;
/// One in this many at most is sampled.
const EVERY_MAX: u32 = 1 << 12;
/// Keys told of a window.
const TOLD: usize = 16;

/// A key that is counted.
#[derive(Debug, Clone, Default)]
struct Counted {
    hash: u64,
    count: u32,
    /// How much of the count may be another key's.
    inherited: u32,
    writes: u32,
    partition: PartitionId,
    keyspace: KeyspaceId,
    key: Vec<u8>,
}

/// A key that many requests were for, in one window.
#[derive(Debug, Clone, PartialEq)]
pub struct HotKey {
    /// Its partition.
    pub partition: PartitionId,
    /// Its keyspace.
    pub keyspace: KeyspaceId,
    /// The key, or its beginning.
    pub key: Vec<u8>,
    /// Requests a second for it, by the samples.
    pub per_second: f64,
    /// Its part of the core's requests for keys, from 0 to 1. Too high by at most `error`.
    pub share: f64,
    /// See [`HotKey::share`].
    pub error: f64,
    /// The part of its samples that were writes, from 0 to 1.
    pub writes: f64,
}

/// What one core's last whole window was like.
#[derive(Debug, Clone, Default)]
pub struct HotView {
    /// Requests for keys in a second.
    pub per_second: f64,
    /// The hottest keys first.
    pub keys: Vec<HotKey>,
    /// Requests for keys of each partition since the start; only of those that had any.
    pub partitions: Vec<(PartitionId, u64)>,
}

#[derive(Debug, Default)]
struct Sketch {
    keys: Vec<Counted>,
    samples: u32,
}

/// One core's sketch.
#[derive(Debug)]
pub(super) struct Hot {
    /// Requests until the next is sampled.
    skip: Cell<u32>,
    /// One in so many is.
    every: Cell<u32>,
    partitions: Box<[Cell<u64>]>,
    /// Their sum when the window began.
    before: Cell<u64>,
    began_us: Cell<u64>,
    sketch: RefCell<Sketch>,
    last: RefCell<HotView>,
    random: Cell<u32>,
}

impl Hot {
    /// Of a node with so many partitions.
    pub(super) fn new(partitions: usize, seed: u64) -> Self {
        Self {
            skip: Cell::new(0),
            every: Cell::new(1),
            partitions: (0..partitions).map(|_| Cell::new(0)).collect(),
            before: Cell::new(0),
            began_us: Cell::new(0),
            sketch: RefCell::default(),
            last: RefCell::default(),
            random: Cell::new(seed as u32 | 1),
        }
    }

    /// A request for a key of this core. Whether it is to be sampled.
    #[inline]
    pub(super) fn touch(&self, partition: PartitionId) -> bool {
        if let Some(count) = self.partitions.get(usize::from(partition)) {
            count.set(count.get() + 1);
        }
        let skip = self.skip.get();
        if skip > 0 {
            self.skip.set(skip - 1);
            return false;
        }
        // Irregular steps, so that a client's own rhythm does not meet them.
        let every = self.every.get();
        self.skip.set(self.draw() % (2 * every - 1));
        true
    }

    /// Counts a sampled key; `hash` tells it from others.
    pub(super) fn sample(
        &self,
        partition: PartitionId,
        keyspace: KeyspaceId,
        key: &[u8],
        hash: u64,
        is_write: bool,
    ) {
        let mut sketch = self.sketch.borrow_mut();
        sketch.samples += 1;
        let keys = &mut sketch.keys;
        let at = match keys.iter().position(|counted| counted.hash == hash) {
            Some(at) => at,
            None if keys.len() < KEYS => {
                keys.push(Counted::default());
                keys.len() - 1
            }
            None => {
                let counts = keys.iter().enumerate();
                let least = counts.min_by_key(|(_, counted)| counted.count);
                least.map_or(0, |(at, _)| at)
            }
        };
        let counted = &mut keys[at];
        if counted.hash != hash || counted.count == 0 {
            counted.hash = hash;
            counted.inherited = counted.count;
            counted.writes = 0;
            counted.partition = partition;
            counted.keyspace = keyspace;
            counted.key.clear();
            let kept = key.len().min(KEY_BYTES_MAX);
            counted.key.extend_from_slice(&key[..kept]);
        }
        counted.count += 1;
        counted.writes += u32::from(is_write);
    }

    /// Looks whether the window is over.
    #[inline]
    pub(super) fn turn(&self, now_us: u64) {
        if now_us.wrapping_sub(self.began_us.get()) >= WINDOW_US {
            self.next_window(now_us);
        }
    }

    #[cold]
    fn next_window(&self, now_us: u64) {
        let seconds = now_us.saturating_sub(self.began_us.replace(now_us)) as f64 * 1e-6;
        let sum: u64 = self.partitions.iter().map(Cell::get).sum();
        let seen = (sum - self.before.replace(sum)) as f64;
        let mut sketch = self.sketch.borrow_mut();
        let Sketch { keys, samples } = &mut *sketch;
        let all = f64::from((*samples).max(1));
        let per_second = seen / seconds.max(1e-6);
        keys.sort_unstable_by_key(|counted| std::cmp::Reverse(counted.count));
        let hottest = keys.iter().take(TOLD).map(|counted| HotKey {
            partition: counted.partition,
            keyspace: counted.keyspace,
            key: counted.key.clone(),
            per_second: per_second * f64::from(counted.count) / all,
            share: f64::from(counted.count) / all,
            error: f64::from(counted.inherited) / all,
            writes: f64::from(counted.writes)
                / f64::from((counted.count - counted.inherited).max(1)),
        });
        let view = HotView {
            per_second,
            keys: hottest.collect(),
            partitions: Vec::new(),
        };
        self.last.replace(view);
        keys.clear();
        *samples = 0;
        let in_window = per_second * (WINDOW_US as f64 * 1e-6);
        let every = in_window as u32 / SAMPLES;
        self.every.set(every.clamp(1, EVERY_MAX));
        self.skip.set(0);
    }

    /// The last whole window's keys, and the partitions' counts.
    pub(super) fn view(&self) -> HotView {
        let partitions = self.partitions.iter().zip(0..);
        HotView {
            partitions: partitions
                .filter(|(count, _)| count.get() > 0)
                .map(|(count, partition)| (partition, count.get()))
                .collect(),
            ..self.last.borrow().clone()
        }
    }

    /// Xorshift: enough to break a rhythm.
    fn draw(&self) -> u32 {
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        self.random.set(state);
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests over windows, of which one in `hot_every` is for key 0 and the rest for many others.
    fn run(per_window: u64, hot_every: u64, windows: u64) -> HotView {
        let hot = Hot::new(16, 7);
        hot.turn(WINDOW_US);
        let mut other = 0;
        for window in 1..=windows {
            for request in 0..per_window {
                let key: u64 = if request % hot_every == 0 {
                    0
                } else {
                    other += 1;
                    1 + other % 100_000
                };
                let partition = (key % 16) as u16;
                if hot.touch(partition) {
                    hot.sample(partition, 0, &key.to_be_bytes(), key + 99, key == 0);
                }
            }
            hot.turn((window + 1) * WINDOW_US);
        }
        hot.view()
    }

    #[test]
    fn a_key_with_a_tenth_of_the_traffic_is_named_by_the_first_whole_window() {
        for per_window in [500, 5_000, 200_000] {
            for windows in [1, 2, 3] {
                let view = run(per_window, 10, windows);
                let first = &view.keys[0];
                assert_eq!(first.key, 0_u64.to_be_bytes(), "{per_window} {windows}");
                let sure = first.share - first.error;
                assert!(
                    (0.05..0.2).contains(&sure),
                    "{per_window} {windows}: {first:?}"
                );
                assert_eq!(first.writes, 1.0);
            }
        }
    }

    #[test]
    fn even_traffic_names_nobody_for_sure() {
        let view = run(50_000, 50_000, 2);
        for key in &view.keys {
            assert!(key.share - key.error < 0.02, "{key:?}");
        }
        let counted: u64 = view.partitions.iter().map(|(_, count)| count).sum();
        assert_eq!(counted, 100_000, "partitions are counted whole");
    }
}
