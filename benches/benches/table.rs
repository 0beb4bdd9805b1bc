//! A table whose blocks are all cached: what one read costs, found and absent, and one step of a
//! scan; and the filter beside a cache-line-blocked Bloom filter of as many bits.
//!
//! `cargo bench -p ringbolt-benches --bench table`

use std::hint::black_box;
use std::path::Path;
use std::rc::Rc;

use criterion::{Criterion, criterion_group, criterion_main};
use ringbolt_engine::cache::BlockCache;
use ringbolt_engine::env::sim::{self, SimOptions};
use ringbolt_engine::env::{Disk, Env};
use ringbolt_engine::row::{Cell, RowKeyBuf, RowMeta};
use ringbolt_engine::table::filter::{self, Filter};
use ringbolt_engine::table::{
    Builder, BuilderOptions, CachedLookup, ReadMode, Table, TableContext, TableCursor, Unthrottled,
};

const ROWS: u64 = 200_000;

fn key(buf: &mut RowKeyBuf, n: u64) -> &[u8] {
    let mut text = *b"user000000000000";
    let mut rest = n;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    buf.set(3, 1, &text)
}

async fn table<E: Env>(env: E) -> Rc<Table<E>> {
    let context = TableContext::new(env, Rc::new(BlockCache::new(256 << 20)));
    let path = Path::new("1");
    let options = BuilderOptions::default();
    let built = async {
        let mut builder = Builder::create(&context, path, 1, options, Rc::new(Unthrottled)).await?;
        let mut buf = RowKeyBuf::new();
        for n in 0..ROWS {
            let meta = RowMeta {
                version: n + 1,
                updated_ms: 1_700_000_000_000 + n,
                ..RowMeta::default()
            };
            let value = [n as u8; 100];
            builder.add(
                key(&mut buf, 2 * n),
                &Cell::Put {
                    meta,
                    value: &value,
                },
            )?;
            builder.mark_hot();
            if builder.wants_write() {
                builder.write().await?;
            }
        }
        builder.finish().await?;
        context.env.disk().sync_dir(Path::new("")).await?;
        Table::open(&context, path, 1, None).await
    };
    match built.await {
        Ok(table) => Rc::new(table),
        Err(error) => panic!("the table: {error}"),
    }
}

fn reads(criterion: &mut Criterion) {
    sim::run(1, SimOptions::default(), |env| async move {
        let table = table(env).await;
        let mut group = criterion.benchmark_group("table, all cached");
        let mut buf = RowKeyBuf::new();
        let mut n = 0u64;
        group.bench_function("get found", |bencher| {
            bencher.iter(|| {
                n = (n + 79_193) % ROWS;
                match table.get_cached(key(&mut buf, 2 * n), u64::MAX) {
                    CachedLookup::Found(found) => black_box(found.cell().version()),
                    _ => panic!("row {n} is not there"),
                }
            });
        });
        group.bench_function("get absent", |bencher| {
            bencher.iter(|| {
                n = (n + 79_193) % ROWS;
                let found = table.get_cached(key(&mut buf, 2 * n + 1), u64::MAX);
                black_box(matches!(found, CachedLookup::Absent))
            });
        });
        let mut cursor = TableCursor::new(&table, ReadMode::Cached);
        if let Err(error) = cursor.seek_first().await {
            panic!("seek: {error}");
        }
        // Blocks change once in some thirty rows; the steps between need no executor.
        group.bench_function("step", |bencher| {
            bencher.iter(|| match cursor.step() {
                Ok(true) => {}
                _ => {
                    let mut next = std::pin::pin!(async {
                        if cursor.next().await.is_err() || !cursor.is_valid() {
                            let _ = cursor.seek_first().await;
                        }
                    });
                    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
                    let _ = next.as_mut().poll(&mut task);
                }
            });
        });
        group.finish();
    });
}

/// A Bloom filter whose bits for one key lie in one cache line.
struct BlockedBloom {
    lines: Vec<[u64; 8]>,
    probes: u32,
}

impl BlockedBloom {
    fn build(hashes: &[u64], bits_per_key: usize) -> Self {
        let lines = (hashes.len() * bits_per_key).div_ceil(512).max(1);
        let mut bloom = Self {
            lines: vec![[0; 8]; lines],
            probes: (bits_per_key as f64 * 0.62) as u32,
        };
        for hash in hashes {
            let line = bloom.line(*hash);
            for bit in bloom.bits(*hash) {
                bloom.lines[line][bit / 64] |= 1 << (bit % 64);
            }
        }
        bloom
    }

    fn line(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.lines.len() as u128) >> 64) as usize
    }

    fn bits(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mut state = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..self.probes).map(move |_| {
            state = state.wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(17);
            (state >> 55) as usize
        })
    }

    fn may_contain(&self, hash: u64) -> bool {
        let line = &self.lines[self.line(hash)];
        let mut bits = self.bits(hash);
        bits.all(|bit| line[bit / 64] >> (bit % 64) & 1 == 1)
    }
}

fn filters(criterion: &mut Criterion) {
    let hashes = |salt: u64| -> Vec<u64> {
        (0..4096u64)
            .map(|n| filter::hash(&[n.to_le_bytes(), salt.to_le_bytes()].concat()))
            .collect()
    };
    let (put_in, others) = (hashes(1), hashes(2));
    for bits in [10, 16] {
        let ribbon = filter::build(&put_in, bits);
        let Some(shape) = Filter::parse(&ribbon) else {
            panic!("no filter");
        };
        let bloom = BlockedBloom::build(&put_in, bits as usize);
        let alarms = |may: &dyn Fn(u64) -> bool| {
            let all = (2..102).flat_map(&hashes);
            all.filter(|hash| may(*hash)).count() as f64 / 409_600.0
        };
        println!(
            "{bits} bits a key: false alarms {:.5} ribbon ({:.2} bits used), {:.5} blocked Bloom",
            alarms(&|hash| shape.may_contain(&ribbon, hash)),
            ribbon.len() as f64 * 8.0 / put_in.len() as f64,
            alarms(&|hash| bloom.may_contain(hash)),
        );
        let mut group = criterion.benchmark_group(format!("filter, {bits} bits"));
        let mut n = 0;
        let mut next = |from: &[u64]| {
            n = (n + 1) % from.len();
            from[n]
        };
        group.bench_function("ribbon, absent", |bencher| {
            bencher.iter(|| shape.may_contain(&ribbon, next(&others)));
        });
        group.bench_function("ribbon, present", |bencher| {
            bencher.iter(|| shape.may_contain(&ribbon, next(&put_in)));
        });
        group.bench_function("blocked Bloom, absent", |bencher| {
            bencher.iter(|| bloom.may_contain(next(&others)));
        });
        group.bench_function("blocked Bloom, present", |bencher| {
            bencher.iter(|| bloom.may_contain(next(&put_in)));
        });
        group.bench_function("ribbon, build 4096", |bencher| {
            bencher.iter(|| filter::build(&put_in, bits));
        });
        group.bench_function("blocked Bloom, build 4096", |bencher| {
            bencher.iter(|| BlockedBloom::build(&put_in, bits as usize));
        });
        group.finish();
    }
}

criterion_group!(benches, reads, filters);
criterion_main!(benches);
