//! Records numbered in order, each written once: the preload, and the inserts of YCSB D and E.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{Next, Op, OpKind, Outcome, Routing, Source};
use crate::Options;
use crate::keys::Keys;
use crate::value::draw_size;

/// Most record numbers set aside for connections to other places. Past it a record goes out on
/// whatever connection asks.
const ASIDE_MAX: usize = 1 << 16;
/// How many record numbers a thread takes at a time.
const CHUNK: u64 = 64;

/// Hands out record numbers, each once over all threads, to connections that lead to where the
/// record's key lives.
#[derive(Debug)]
pub struct Numbers {
    shared: Arc<AtomicU64>,
    end: u64,
    chunk: std::ops::Range<u64>,
    aside: Vec<VecDeque<u64>>,
    aside_count: usize,
    routing: Routing,
    keys: Keys,
}

impl Numbers {
    /// Numbers from `shared`'s up to below `end`.
    pub fn new(shared: Arc<AtomicU64>, end: u64, routing: Routing, keys: Keys) -> Self {
        Self {
            shared,
            end,
            chunk: 0..0,
            aside: Vec::new(),
            aside_count: 0,
            routing,
            keys,
        }
    }

    /// The next number for a connection to `place`; `None` when there are no more for it.
    pub fn next(&mut self, place: Option<u16>) -> Option<u64> {
        let Some(place) = place.filter(|_| !self.routing.is_anywhere()) else {
            return self.draw();
        };
        if let Some(index) = self
            .aside
            .get_mut(usize::from(place))
            .and_then(VecDeque::pop_front)
        {
            self.aside_count -= 1;
            return Some(index);
        }
        while let Some(index) = self.draw() {
            match self.routing.owner(self.keys.key(index)) {
                Some(owner) if owner != place && self.aside_count < ASIDE_MAX => {
                    let owner = usize::from(owner);
                    if self.aside.len() <= owner {
                        self.aside.resize_with(owner + 1, VecDeque::new);
                    }
                    self.aside[owner].push_back(index);
                    self.aside_count += 1;
                }
                _ => return Some(index),
            }
        }
        None
    }

    fn draw(&mut self) -> Option<u64> {
        if self.chunk.is_empty() {
            let start = self.shared.fetch_add(CHUNK, Ordering::Relaxed);
            self.chunk = start.min(self.end)..start.saturating_add(CHUNK).min(self.end);
        }
        self.chunk.next()
    }
}

/// Writes every record once.
#[derive(Debug)]
pub struct Load {
    numbers: Numbers,
    options: Arc<Options>,
    rng: SmallRng,
    /// Records that could not be written.
    pub failed: u64,
}

impl Load {
    /// One thread's share: `numbers` are handed out to all threads.
    pub fn new(options: Arc<Options>, numbers: Numbers, seed: u64) -> Self {
        Self {
            numbers,
            options,
            rng: SmallRng::seed_from_u64(seed),
            failed: 0,
        }
    }
}

impl Source for Load {
    fn next(&mut self, _conn: usize, place: Option<u16>, _now_ns: u64) -> Next {
        match self.numbers.next(place) {
            Some(index) => Next::Op(Op {
                kind: OpKind::Insert,
                index,
                sequence: index,
                size: draw_size(&mut self.rng, &self.options.value_bytes),
                place: 0,
            }),
            None => Next::Done,
        }
    }

    fn done(&mut self, _conn: usize, _op: &Op, _key: &[u8], outcome: Outcome<'_>, _now_ns: u64) {
        if outcome != Outcome::Written {
            self.failed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_handed_out_once_and_to_its_place() {
        let routing = Routing::new(Arc::new([0, 0, 1, 1]), [Some(0), Some(1)]);
        let mut keys = Keys::new("");
        let shared = Arc::new(AtomicU64::new(0));
        let mut numbers = Numbers::new(shared, 1000, routing.clone(), keys.clone());
        let mut all = Vec::new();
        for place in [0, 1, 0] {
            while let Some(index) = numbers.next(Some(place)) {
                assert_eq!(routing.owner(keys.key(index)), Some(place));
                all.push(index);
            }
        }
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
    }
}
