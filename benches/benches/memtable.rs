//! Why the memtable is a B+ tree of key heads: it beside an arena skip list and `BTreeMap`, filled
//! with a million random rows of 16-byte keys and 100-byte values, then read at random.
//!
//! `cargo bench -p ringbolt-benches --bench memtable`

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringbolt_engine::memtable::Memtable;
use ringbolt_engine::row::{Cell, RowKeyBuf, RowMeta};

const ROWS: u64 = 1_000_000;
const VALUE: [u8; 100] = [7; 100];

/// What is compared.
trait Candidate {
    fn new() -> Self;
    fn insert(&mut self, row_key: &[u8], version: u64, value: &[u8]);
    fn get(&self, row_key: &[u8], at_version: u64) -> Option<usize>;
}

impl Candidate for Memtable {
    fn new() -> Self {
        Self::new()
    }

    fn insert(&mut self, row_key: &[u8], version: u64, value: &[u8]) {
        let meta = RowMeta {
            version,
            updated_ms: version,
            ..RowMeta::default()
        };
        Self::insert(self, row_key, Cell::Put { meta, value });
    }

    fn get(&self, row_key: &[u8], at_version: u64) -> Option<usize> {
        match Self::get(self, row_key, at_version)? {
            Cell::Put { value, .. } => Some(value.len()),
            Cell::Delete { .. } => None,
        }
    }
}

struct Standard(BTreeMap<(Vec<u8>, Reverse<u64>), Vec<u8>>);

impl Candidate for Standard {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn insert(&mut self, row_key: &[u8], version: u64, value: &[u8]) {
        let key = (row_key.to_vec(), Reverse(version));
        self.0.insert(key, value.to_vec());
    }

    fn get(&self, row_key: &[u8], at_version: u64) -> Option<usize> {
        let from = (row_key.to_vec(), Reverse(at_version));
        let ((key, _), value) = self.0.range(from..).next()?;
        (key == row_key).then_some(value.len())
    }
}

/// A skip list over one growing arena, of branching 4 as in LevelDB.
struct SkipList {
    bytes: Vec<u8>,
    nodes: Vec<Node>,
    links: Vec<u32>,
    height: usize,
    random: u64,
}

#[derive(Clone, Copy)]
struct Node {
    key: usize,
    key_len: u32,
    value_len: u32,
    version: u64,
    links: u32,
}

const HEIGHT_MAX: usize = 12;
const END: u32 = u32::MAX;

impl SkipList {
    fn key(&self, node: u32) -> (&[u8], Reverse<u64>) {
        let node = self.nodes[node as usize];
        let key = &self.bytes[node.key..node.key + node.key_len as usize];
        (key, Reverse(node.version))
    }

    fn link(&self, node: u32, level: usize) -> usize {
        match node {
            END => level,
            node => self.nodes[node as usize].links as usize + level,
        }
    }

    /// The nodes before the target by level, and the one at or behind it.
    fn seek(&self, target: (&[u8], Reverse<u64>)) -> ([u32; HEIGHT_MAX], u32) {
        let mut before = [END; HEIGHT_MAX];
        let mut at = END;
        let mut next = END;
        for level in (0..self.height).rev() {
            loop {
                next = self.links[self.link(at, level)];
                if next == END || self.key(next) >= target {
                    break;
                }
                at = next;
            }
            before[level] = at;
        }
        (before, next)
    }
}

impl Candidate for SkipList {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            nodes: Vec::new(),
            links: vec![END; HEIGHT_MAX],
            height: 1,
            random: 1,
        }
    }

    fn insert(&mut self, row_key: &[u8], version: u64, value: &[u8]) {
        let (before, _) = self.seek((row_key, Reverse(version)));
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let height = 1 + (self.random.trailing_zeros() as usize / 2).min(HEIGHT_MAX - 1);
        self.height = self.height.max(height);
        let index = self.nodes.len() as u32;
        self.nodes.push(Node {
            key: self.bytes.len(),
            key_len: row_key.len() as u32,
            value_len: value.len() as u32,
            version,
            links: self.links.len() as u32,
        });
        self.bytes.extend_from_slice(row_key);
        self.bytes.extend_from_slice(value);
        for (level, node) in before.iter().enumerate().take(height) {
            let link = self.link(*node, level);
            self.links.push(self.links[link]);
            self.links[link] = index;
        }
    }

    fn get(&self, row_key: &[u8], at_version: u64) -> Option<usize> {
        let (_, found) = self.seek((row_key, Reverse(at_version)));
        let same = found != END && self.key(found).0 == row_key;
        same.then(|| self.nodes[found as usize].value_len as usize)
    }
}

/// The n-th row key, in no order.
fn key(buf: &mut RowKeyBuf, n: u64) -> &[u8] {
    let mixed = (n ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = mixed ^ (mixed >> 29);
    let mut text = [0; 16];
    for (at, digit) in text.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(mixed >> (60 - 4 * at)) as usize & 15];
    }
    buf.set(3, 1, &text)
}

fn fill<C: Candidate>() -> C {
    let mut table = C::new();
    let mut buf = RowKeyBuf::new();
    for n in 0..ROWS {
        table.insert(key(&mut buf, n), n + 1, &VALUE);
    }
    table
}

fn bench<C: Candidate>(criterion: &mut Criterion, name: &str) {
    let mut group = criterion.benchmark_group(format!("memtable of {ROWS}: {name}"));
    group.sample_size(10);
    group.measurement_time(Duration::from_secs(5));
    group.bench_function("insert", |bencher| {
        bencher.iter_custom(|iterations| {
            // The time of one insertion while a table is filled from empty to full.
            let start = Instant::now();
            let table = fill::<C>();
            let spent = start.elapsed();
            black_box(&table);
            spent.mul_f64(iterations as f64 / ROWS as f64)
        });
    });
    let table = fill::<C>();
    let mut buf = RowKeyBuf::new();
    let mut n = 0u64;
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            n = (n + 7_919_777) % ROWS;
            table.get(key(&mut buf, n), u64::MAX)
        });
    });
    group.finish();
}

fn all(criterion: &mut Criterion) {
    bench::<Memtable>(criterion, "B+ tree of heads");
    bench::<SkipList>(criterion, "arena skip list");
    bench::<Standard>(criterion, "BTreeMap");
}

criterion_group!(benches, all);
criterion_main!(benches);
