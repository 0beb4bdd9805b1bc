//! What the tree costs: point reads from memory, applies, flush and compaction, write and space
//! amplification of random overwrites, seeks over tombstones.
//!
//! `cargo bench -p ringbolt-benches --bench tree -- [RECORDS] [VALUE_BYTES] [MEMORY_MIB] [ROUNDS]`
//!
//! Files go to a temporary folder through the page cache, so that CPU is what is measured.

mod env;

use std::time::{Duration, Instant};

use env::StdEnv;
use rand::{RngExt, SeedableRng};
use ringbolt_engine::entry::{Effect, EntryHead, LogId};
use ringbolt_engine::env::Env;
use ringbolt_engine::row::{ReadAt, RowKeyBuf, partition_range};
use ringbolt_engine::tree::{Lookup, Tree, TreeOptions};

const PARTITIONS: u64 = 128;
const SEED: u64 = 42;

struct Load {
    env: StdEnv,
    tree: Tree<StdEnv>,
    indexes: Vec<u64>,
    value: Vec<u8>,
    rng: rand::rngs::StdRng,
}

fn key_of(n: u64) -> (u16, [u8; 16]) {
    let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut key = *b"user000000000000";
    let digits = format!("{n:012}");
    key[4..].copy_from_slice(digits.as_bytes());
    ((hash >> 32) as u16 % PARTITIONS as u16, key)
}

impl Load {
    /// Applies one effect, and holds back as the tree asks.
    async fn write(&mut self, partition: u16, key: &[u8], delete: bool) {
        let index = &mut self.indexes[usize::from(partition)];
        *index += 1;
        let id = LogId {
            term: 1,
            index: *index,
        };
        let head = EntryHead {
            partition,
            id,
            time_ms: 1,
            ..EntryHead::default()
        };
        let effect = match delete {
            true => Effect::Delete { keyspace: 1, key },
            false => {
                // Half random, half the same: it compresses to about a half.
                let half = self.value.len() / 2;
                self.rng.fill(&mut self.value[..half]);
                Effect::Put {
                    keyspace: 1,
                    key,
                    value: &self.value,
                    expires_ms: 0,
                    created_ms: 0,
                }
            }
        };
        self.tree.apply(&head, std::iter::once(effect));
    }

    /// Writes many, each KiB delayed by what the tree asks; the longest time without a write.
    async fn write_many(
        &mut self,
        count: u64,
        keys: impl Fn(&mut rand::rngs::StdRng, u64) -> u64,
    ) -> Duration {
        let mut owed = Duration::ZERO;
        let mut last = Instant::now();
        let mut gap = Duration::ZERO;
        let bytes = self.value.len() as u64 + 40;
        for n in 0..count {
            let (partition, key) = key_of(keys(&mut self.rng, n));
            self.write(partition, &key, false).await;
            gap = gap.max(last.elapsed());
            last = Instant::now();
            if n % 16 == 0 {
                loop {
                    let pressure = self.tree.pressure();
                    owed += pressure.delay_per_kib * (16 * bytes / 1024) as u32;
                    if pressure.stop {
                        self.env.sleep(Duration::from_millis(1)).await;
                        continue;
                    }
                    break;
                }
                if owed > Duration::from_micros(500) {
                    self.env.sleep(owed).await;
                    owed = Duration::ZERO;
                }
                self.env.yield_if_needed().await;
            }
        }
        gap
    }

    /// Reads random rows, from the disk if need be: the cache fills.
    async fn warm(&mut self, records: u64) {
        let mut row_key = RowKeyBuf::new();
        for _ in 0..2 * records {
            let (partition, key) = key_of(self.rng.random_range(0..records));
            row_key.set(partition, 1, &key);
            let row = self.tree.get(&row_key, ReadAt::newest(1)).await;
            assert!(matches!(row, Ok(Some(_))));
        }
    }

    async fn settle(&self) {
        let mut last = 0;
        loop {
            self.env.sleep(Duration::from_millis(300)).await;
            let stats = self.tree.stats();
            if stats
                .by_name()
                .iter()
                .any(|(n, v)| *n == "bytes_written" && *v == last)
            {
                return;
            }
            last = stats.flush_bytes_written + stats.compaction_bytes_written;
        }
    }

    fn levels(&self) -> String {
        let levels = self.tree.levels();
        let shown = levels.iter().filter(|l| l.tables > 0).map(|l| {
            let mib = l.bytes >> 20;
            format!(
                "L{} {} runs {} tables {mib} MiB (target {})",
                l.level,
                l.runs,
                l.tables,
                l.target_bytes >> 20
            )
        });
        shown.collect::<Vec<_>>().join("; ")
    }

    /// Nanoseconds for each read of random keys, cached, and how many memory could answer.
    fn get_now(&mut self, records: u64) -> (f64, f64) {
        let mut row_key = RowKeyBuf::new();
        let count = 300_000;
        let mut found = 0;
        let start = Instant::now();
        for _ in 0..count {
            let (partition, key) = key_of(self.rng.random_range(0..records));
            row_key.set(partition, 1, &key);
            if let Lookup::Found(()) = self.tree.get_now(&row_key, ReadAt::newest(1), |_, _| ()) {
                found += 1;
            }
        }
        let ns = start.elapsed().as_nanos() as f64 / f64::from(count);
        (ns, f64::from(found) / f64::from(count))
    }

    /// The time of a cursor's first row from the start of a partition.
    async fn seek(&self, partition: u16) -> Duration {
        let (from, to) = partition_range(partition);
        let start = Instant::now();
        let mut cursor = self.tree.cursor(&from, &to, false, ReadAt::newest(1));
        let row = cursor.next().await;
        assert!(row.is_ok());
        start.elapsed()
    }
}

/// CPU time of this process, in seconds.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn main() {
    let args: Vec<u64> = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let arg = |at: usize, default| args.get(at).copied().unwrap_or(default);
    let (records, value_bytes) = (arg(0, 300_000), arg(1, 1000));
    let (memory_mib, rounds) = (arg(2, 64), arg(3, 4));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let env = StdEnv::new();
    let options = TreeOptions {
        memory_bytes: memory_mib << 20,
        table_bytes: (memory_mib << 20) / 16,
        background_bytes_per_s: 256 << 20,
        ballast_bytes: 0,
        ..TreeOptions::default()
    };
    println!("{records} records of {value_bytes} B, {memory_mib} MiB, seed {SEED}");
    let run = async {
        let tree = Tree::open(env.clone(), dir.path(), options.clone()).await;
        let mut load = Load {
            tree: tree.expect("opens"),
            env: env.clone(),
            indexes: vec![0; PARTITIONS as usize],
            value: vec![b'v'; value_bytes as usize],
            rng: rand::rngs::StdRng::seed_from_u64(SEED),
        };
        let row_bytes = value_bytes + 22;
        let start = Instant::now();
        let gap = load.write_many(records, |_, n| n).await;
        let rate = records as f64 / start.elapsed().as_secs_f64();
        println!("fill: {rate:.0}/s, longest gap {gap:?}; {}", load.levels());
        load.settle().await;
        let live = load.tree.stats().table_bytes;
        println!("settled: {} MiB; {}", live >> 20, load.levels());
        let mut peak = 0;
        for round in 0..rounds {
            let (before, written) = (load.tree.stats(), env.written());
            let start = Instant::now();
            let cpu = cpu_s();
            let gap = load
                .write_many(records, |rng, _| rng.random_range(0..records))
                .await;
            let seconds = start.elapsed().as_secs_f64();
            let cpu = cpu_s() - cpu;
            let after = load.tree.stats();
            peak = peak.max(after.table_bytes);
            // What a log adds: each row once.
            let raw = records * row_bytes;
            let tables = (env.written() - written) as f64 / raw as f64;
            // In terms of what reaches the tables compressed, and of raw bytes.
            let flushed = after.flush_bytes_written - before.flush_bytes_written;
            let compacted = after.compaction_bytes_written - before.compaction_bytes_written;
            let l0 = after.l0_bytes_written - before.l0_bytes_written;
            println!(
                "round {round}: {:.0}/s, {:.0} MB/s, CPU {:.2} us each, gap {gap:?}, table bytes/raw {tables:.2}, compaction/flush {:.2} (L0 {:.2}, intra {:.2}), space {:.2}",
                records as f64 / seconds,
                raw as f64 / seconds / 1e6,
                cpu * 1e6 / records as f64,
                compacted as f64 / flushed.max(1) as f64,
                l0 as f64 / flushed.max(1) as f64,
                (after.intra_l0_bytes_written - before.intra_l0_bytes_written) as f64
                    / flushed.max(1) as f64,
                after.table_bytes as f64 / live as f64,
            );
            println!(
                "  {}; throttled {} ms",
                load.levels(),
                after.throttled_us / 1000
            );
        }
        load.settle().await;
        println!(
            "settled: space {:.2}, peak {:.2}",
            load.tree.stats().table_bytes as f64 / live as f64,
            peak as f64 / live as f64
        );
        load.warm(records).await;
        for _ in 0..3 {
            let (ns, found) = load.get_now(records);
            println!(
                "get_now: {ns:.0} ns, {:.0} % found in memory",
                100.0 * found
            );
        }
        let fresh = (0..200).map(|_| ()).map(|()| load.seek(5));
        let mut times = Vec::new();
        for seek in fresh {
            times.push(seek.await);
        }
        times.sort();
        let fresh = times[times.len() / 2];
        let mut deleted = 0;
        for n in 0..records {
            let (partition, key) = key_of(n);
            if partition == 5 || deleted >= 100_000 {
                continue;
            }
            load.write(partition, &key, true).await;
            deleted += 1;
        }
        for seek in 0..300u64 {
            times.push(load.seek((seek % PARTITIONS) as u16).await);
            load.env.sleep(Duration::from_millis(5)).await;
        }
        load.settle().await;
        let mut times = Vec::new();
        for seek in 0..300u64 {
            times.push(load.seek((seek % PARTITIONS) as u16).await);
        }
        times.sort();
        println!(
            "seek: fresh {fresh:?}, after {deleted} deletes {:?}, worst {:?}",
            times[times.len() / 2],
            times[times.len() - 1]
        );
        load.tree.close().await.expect("closes");
    };
    env.block_on(run);
}
