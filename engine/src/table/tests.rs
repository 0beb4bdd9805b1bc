use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::block::{BlockWriter, Content};
use super::*;
use crate::compress::Compression;
use crate::env::sim::{self, SimEnv, SimOptions};
use crate::env::{AlignedBuf, Disk, DiskFile, FileClass};
use crate::error::EngineError;
use crate::row::{Cell, RowMeta};

/// A block of about so many raw bytes.
pub(crate) fn test_block(len: usize) -> Block {
    let mut writer = BlockWriter::data();
    let value = vec![7; len.saturating_sub(48)];
    writer.add(b"k", Content::Put(RowMeta::default(), &value));
    match Block::parse(BlockKind::Data, writer.into_raw().into()) {
        Ok(block) => block,
        Err(what) => panic!("{what}"),
    }
}

type Key = (Vec<u8>, Reverse<u64>);
type Put = Option<(RowMeta, Vec<u8>)>;
type Model = BTreeMap<Key, Put>;

const ID: u64 = 77;

fn path() -> &'static Path {
    Path::new("t/77")
}

fn cell<'a>(key: &Key, put: &'a Put) -> Cell<'a> {
    match put {
        Some((meta, value)) => Cell::Put { meta: *meta, value },
        None => Cell::Delete { version: key.1.0 },
    }
}

fn owned(found: Option<(&[u8], Cell<'_>)>) -> Option<(Key, Put)> {
    found.map(|(key, cell)| {
        let put = match cell {
            Cell::Put { meta, value } => Some((meta, value.to_vec())),
            Cell::Delete { .. } => None,
        };
        ((key.to_vec(), Reverse(cell.version())), put)
    })
}

fn random_rows(rng: &mut StdRng, count: usize, shape: u32) -> Model {
    (0..count)
        .map(|_| {
            let key = match shape % 3 {
                0 => format!("user{:08}", rng.random_range(0..count as u32 * 2)).into_bytes(),
                // Many versions of few rows, which go on over blocks and parts.
                1 => vec![b'k', rng.random_range(0..4)],
                _ => (0..rng.random_range(0..24)).map(|_| rng.random()).collect(),
            };
            let version = rng.random_range(1..100_000);
            let len = match rng.random_range(0..40) {
                0 => rng.random_range(0..20_000),
                _ => rng.random_range(0..300),
            };
            let fill: u8 = rng.random();
            let value = (0..len).map(|n| fill.wrapping_add(n as u8 % 16)).collect();
            let meta = RowMeta {
                version,
                updated_ms: 1_700_000_000_000 + rng.random_range(0..1000),
                created_ms: rng.random_range(0..2) * 1_600_000_000_000,
                expires_ms: rng.random_range(0..2) * 1_800_000_000_000,
            };
            let put = (rng.random_range(0..5) > 0).then_some((meta, value));
            ((key, Reverse(version)), put)
        })
        .collect()
}

async fn build(
    context: &TableContext<SimEnv>,
    model: &Model,
    options: BuilderOptions,
) -> TableInfo {
    context
        .env
        .disk()
        .create_dir_all(Path::new("t"))
        .await
        .expect("a folder");
    let mut builder = Builder::create(context, path(), ID, options, Rc::new(Unthrottled))
        .await
        .expect("created");
    for (key, put) in model {
        builder.add(&key.0, &cell(key, put)).expect("in order");
        if builder.wants_write() {
            builder.write().await.expect("written");
        }
    }
    builder.finish().await.expect("finished")
}

async fn open(context: &TableContext<SimEnv>, info: &TableInfo) -> Rc<Table<SimEnv>> {
    let expected = Some((info.bytes, info.footer_checksum));
    let table = Table::open(context, path(), ID, expected).await;
    Rc::new(table.expect("it opens"))
}

fn context(env: SimEnv, cache_bytes: usize) -> TableContext<SimEnv> {
    TableContext::new(env, Rc::new(BlockCache::new(cache_bytes)))
}

#[test]
fn agrees_with_a_btreemap() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..18u32 {
        let count = [1, 30, 1500, 6000][round as usize % 4];
        let model = random_rows(&mut rng, count, round);
        let probes = random_rows(&mut rng, 150, round);
        let options = BuilderOptions {
            block_bytes: [512, 4096][round as usize % 2],
            compression: [Compression::None, Compression::Lz4, Compression::Zstd]
                [round as usize / 2 % 3],
            bits_per_key: [10, 0, 16][round as usize % 3],
            warm_cache: round % 2 == 0,
        };
        let cache_bytes = [0, 100_000, 64 << 20][round as usize % 3];
        sim::run(seed, SimOptions::default(), |env| async move {
            let context = context(env, cache_bytes);
            let info = build(&context, &model, options).await;
            let table = open(&context, &info).await;
            assert_eq!(table.info(), &info);
            check_info(&info, &model);
            table.verify().await.expect("whole");
            let modes = [ReadMode::Cached, ReadMode::Sequential(Rc::new(Unthrottled))];
            for mode in modes {
                let mut cursor = TableCursor::new(&table, mode);
                walk(&mut cursor, &model).await;
                for (key, Reverse(version)) in probes.keys().chain(model.keys().take(50)) {
                    let version = version.saturating_add(1);
                    turn(&mut cursor, &model, key, version).await;
                }
            }
            for (key, Reverse(version)) in probes.keys().chain(model.keys()) {
                for at in [*version, version - 1, u64::MAX] {
                    get(&table, &model, key, at).await;
                }
            }
            assert!(context.cache.used() <= context.cache.budget());
        });
    }
}

fn check_info(info: &TableInfo, model: &Model) {
    let puts = model.values().flatten();
    assert_eq!(info.entries, model.len() as u64);
    assert_eq!(info.entries - info.tombstones, puts.clone().count() as u64);
    assert_eq!(Some(&info.smallest), model.keys().next().map(|k| &k.0));
    assert_eq!(Some(&info.largest), model.keys().last().map(|k| &k.0));
    assert!(!info.largest_excluded);
    assert_eq!(Some(info.version_min), model.keys().map(|k| k.1.0).min());
    assert_eq!(Some(info.version_max), model.keys().map(|k| k.1.0).max());
    let expiring = puts.filter(|(meta, _)| meta.expires_ms > 0).count();
    assert_eq!(info.expiring, expiring as u64);
    assert_eq!(info.expiry_min_ms > 0, expiring > 0);
    assert_eq!(info.expiry_max_ms > 0, expiring == model.len());
}

async fn walk(cursor: &mut TableCursor<SimEnv>, model: &Model) {
    cursor.seek_first().await.expect("whole");
    for row in model {
        assert_eq!(owned(cursor.get()), Some((row.0.clone(), row.1.clone())));
        if !cursor.step().expect("whole") {
            cursor.next().await.expect("whole");
        }
    }
    assert!(!cursor.is_valid());
    cursor.seek_last().await.expect("whole");
    for row in model.iter().rev() {
        assert_eq!(owned(cursor.get()), Some((row.0.clone(), row.1.clone())));
        cursor.prev().await.expect("whole");
    }
    assert!(!cursor.is_valid());
}

async fn turn(cursor: &mut TableCursor<SimEnv>, model: &Model, key: &[u8], version: u64) {
    let target = (key.to_vec(), Reverse(version));
    let next = model.range(target.clone()..).next();
    let before = model.range(..target).next_back();
    let row = |row: Option<(&Key, &Put)>| row.map(|(key, put)| (key.clone(), put.clone()));
    cursor.seek(key, version).await.expect("whole");
    assert_eq!(owned(cursor.get()), row(next));
    cursor.seek_before(key, version).await.expect("whole");
    assert_eq!(owned(cursor.get()), row(before));
    if before.is_some() {
        cursor.next().await.expect("whole");
        assert_eq!(owned(cursor.get()), row(next));
    }
}

async fn get(table: &Table<SimEnv>, model: &Model, key: &[u8], at: u64) {
    let newest = model.range((key.to_vec(), Reverse(at))..).next();
    let expected = newest
        .filter(|(found, _)| found.0 == key)
        .map(|(key, put)| (key.clone(), put.clone()));
    let cached = |lookup| match lookup {
        CachedLookup::Found(found) => ControlFlow::Break(owned(Some((key, found.cell())))),
        CachedLookup::Absent => ControlFlow::Break(None),
        CachedLookup::NeedsDisk => ControlFlow::Continue(()),
    };
    if let ControlFlow::Break(found) = cached(table.get_cached(key, at)) {
        assert_eq!(found, expected);
    }
    let found = table.get(key, at).await.expect("whole");
    let found = found.as_ref().map(|found| (key, found.cell()));
    assert_eq!(owned(found), expected);
    if table.context.cache.budget() > 1 << 20 {
        // Now everything it needs is in memory.
        let ControlFlow::Break(found) = cached(table.get_cached(key, at)) else {
            panic!("the block should be cached");
        };
        assert_eq!(found, expected);
    }
}

#[test]
fn a_cold_read_costs_one_device_read_and_a_miss_almost_none() {
    sim::run(1, SimOptions::default(), |env| async move {
        let mut model = Model::new();
        for n in 0..20_000u32 {
            let meta = RowMeta {
                version: 1,
                ..RowMeta::default()
            };
            let key = format!("key{:06}", n * 2).into_bytes();
            model.insert((key, Reverse(1)), Some((meta, vec![n as u8; 400])));
        }
        let context = context(env, 1 << 20);
        let info = build(&context, &model, BuilderOptions::default()).await;
        let table = open(&context, &info).await;
        let counters = context.counters.clone();
        let before = counters.device_reads.get();
        for n in (0..20_000u32).step_by(37) {
            let key = format!("key{:06}", n * 2);
            assert!(
                table
                    .get(key.as_bytes(), u64::MAX)
                    .await
                    .expect("whole")
                    .is_some()
            );
        }
        let reads = counters.device_reads.get() - before;
        assert!(reads <= 541, "{reads} reads for 541 rows");
        let before = counters.device_reads.get();
        for n in 0..10_000u32 {
            let key = format!("key{:06}", n * 2 + 1);
            assert!(
                table
                    .get(key.as_bytes(), u64::MAX)
                    .await
                    .expect("whole")
                    .is_none()
            );
        }
        let reads = counters.device_reads.get() - before;
        assert!(reads <= 40, "{reads} reads for 10000 misses");
        assert!(counters.filter_negatives.get() > 9_960);
        // A compaction reads it in 256 KiB.
        let mut cursor = TableCursor::new(&table, ReadMode::Sequential(Rc::new(Unthrottled)));
        cursor.seek_first().await.expect("whole");
        let before = (context.cache.stats(), counters.device_reads.get());
        let mut rows = 0;
        while cursor.is_valid() {
            rows += 1;
            cursor.next().await.expect("whole");
        }
        assert_eq!(rows, 20_000);
        assert_eq!(context.cache.stats().inserts, before.0.inserts);
        assert!(counters.sequential_reads.get() <= info.bytes / (256 << 10) + 5);
    });
}

#[test]
fn range_deletes_come_back_and_widen_the_table() {
    sim::run(1, SimOptions::default(), |env| async move {
        let context = context(env, 1 << 20);
        context
            .env
            .disk()
            .create_dir_all(Path::new("t"))
            .await
            .expect("a folder");
        let options = BuilderOptions::default();
        let mut builder = Builder::create(&context, path(), ID, options, Rc::new(Unthrottled))
            .await
            .expect("created");
        assert!(builder.is_empty());
        builder.add_range_delete(b"x", b"z", 40).expect("taken");
        builder.add_range_delete(b"b", b"d", 50).expect("taken");
        builder.add_range_delete(b"d", b"b", 60).expect("ignored");
        builder
            .add(b"c", &Cell::Delete { version: 45 })
            .expect("taken");
        let info = builder.finish().await.expect("finished");
        assert_eq!(
            (info.entries, info.tombstones, info.range_deletes),
            (1, 1, 2)
        );
        assert_eq!((&*info.smallest, &*info.largest), (&b"b"[..], &b"z"[..]));
        assert!(info.largest_excluded);
        assert_eq!((info.version_min, info.version_max), (40, 50));
        let table = open(&context, &info).await;
        assert_eq!(table.range_deletes().covering(b"c", u64::MAX), 50);
        assert_eq!(table.range_deletes().covering(b"y", u64::MAX), 40);
        assert_eq!(table.range_deletes().len(), 2);
        assert!(table.pinned_bytes() > 0);
    });
}

#[test]
fn a_table_of_nothing_but_range_deletes_opens() {
    sim::run(1, SimOptions::default(), |env| async move {
        let context = context(env, 1 << 20);
        context
            .env
            .disk()
            .create_dir_all(Path::new("t"))
            .await
            .expect("a folder");
        let options = BuilderOptions::default();
        let mut builder = Builder::create(&context, path(), ID, options, Rc::new(Unthrottled))
            .await
            .expect("created");
        builder.add_range_delete(b"b", b"d", 50).expect("taken");
        let info = builder.finish().await.expect("finished");
        let table = open(&context, &info).await;
        assert!(matches!(
            table.get_cached(b"c", u64::MAX),
            CachedLookup::Absent
        ));
        let mut cursor = TableCursor::new(&table, ReadMode::Cached);
        cursor.seek_first().await.expect("whole");
        cursor.seek(b"c", 7).await.expect("whole");
        cursor.seek_before(b"c", 7).await.expect("whole");
        assert!(!cursor.is_valid());
        table.verify().await.expect("whole");
    });
}

#[test]
fn the_largest_rows_fit() {
    sim::run(1, SimOptions::default(), |env| async move {
        let mut model = Model::new();
        for n in 0..3u8 {
            let mut key = vec![b'k'; crate::row::ROW_KEY_BYTES_MAX];
            key[60_000] = n;
            let meta = RowMeta {
                version: 9,
                ..RowMeta::default()
            };
            let value: Vec<u8> = (0..crate::entry::VALUE_BYTES_MAX)
                .map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3])
                .collect();
            model.insert((key, Reverse(9)), Some((meta, value)));
        }
        let context = context(env, 1 << 20);
        let info = build(&context, &model, BuilderOptions::default()).await;
        let table = open(&context, &info).await;
        for (key, put) in &model {
            let found = table.get(&key.0, u64::MAX).await.expect("whole");
            assert!(found.is_some_and(|found| found.cell() == cell(key, put)));
        }
        let mut builder = Builder::create(
            &context,
            Path::new("t/78"),
            78,
            BuilderOptions::default(),
            Rc::new(Unthrottled),
        )
        .await
        .expect("created");
        let long = vec![0; crate::row::ROW_KEY_BYTES_MAX + 1];
        let refused = builder.add(&long, &Cell::Delete { version: 1 });
        assert!(matches!(refused, Err(EngineError::Invalid(_))));
        builder
            .add(b"b", &Cell::Delete { version: 1 })
            .expect("taken");
        let refused = builder.add(b"b", &Cell::Delete { version: 1 });
        assert!(matches!(refused, Err(EngineError::Corrupt { .. })));
    });
}

/// Opens a table and reads all of it; whether everything was as written.
async fn is_whole(
    context: &TableContext<SimEnv>,
    info: &TableInfo,
    model: &Model,
) -> Result<bool, EngineError> {
    let expected = Some((info.bytes, info.footer_checksum));
    let table = Rc::new(Table::open(context, path(), ID, expected).await?);
    table.verify().await?;
    let mut cursor = TableCursor::new(&table, ReadMode::Cached);
    cursor.seek_first().await?;
    for row in model {
        if owned(cursor.get()) != Some((row.0.clone(), row.1.clone())) {
            return Ok(false);
        }
        cursor.next().await?;
    }
    Ok(!cursor.is_valid())
}

#[test]
fn damage_to_any_byte_is_found() {
    let mut rng = StdRng::seed_from_u64(5);
    let model = random_rows(&mut rng, 150, 0);
    sim::run(5, SimOptions::default(), |env| async move {
        let store = env.store().clone();
        let context = context(env, 0);
        let options = BuilderOptions {
            block_bytes: 512,
            ..BuilderOptions::default()
        };
        let info = build(&context, &model, options).await;
        assert_eq!(is_whole(&context, &info, &model).await.ok(), Some(true));
        let content = store.content(path()).expect("the file");
        let footer = open(&context, &info).await.footer().clone();
        let mut harmless = 0;
        for at in 0..content.len() {
            let bit = (at % 8) as u32;
            assert!(store.flip_bit(path(), at as u64, bit));
            match is_whole(&context, &info, &model).await {
                Err(EngineError::Corrupt { file, .. }) => assert_eq!(file, path()),
                Err(EngineError::WrongFormat { .. }) => panic!("byte {at}: a damaged trailer"),
                Err(error) => panic!("byte {at}: {error}"),
                Ok(whole) => {
                    assert!(whole, "byte {at} changed what is read");
                    harmless += 1;
                }
            }
            assert!(store.flip_bit(path(), at as u64, bit));
        }
        // Only the zeros between footer and trailer may be anything.
        let used = footer.data_bytes + footer.index_bytes + footer.filter_bytes;
        assert!(
            harmless < 4096 && content.len() as u64 - harmless > used,
            "{harmless}"
        );
    });
}

#[test]
fn another_tables_bytes_are_not_believed() {
    let mut rng = StdRng::seed_from_u64(6);
    let model = random_rows(&mut rng, 500, 0);
    sim::run(6, SimOptions::default(), |env| async move {
        let context = context(env, 0);
        let info = build(&context, &model, BuilderOptions::default()).await;
        let expected = Some((info.bytes, info.footer_checksum));
        let other = Table::open(&context, path(), ID + 1, expected).await;
        assert!(matches!(other, Err(EngineError::Corrupt { .. })));
        let other = Table::open(&context, path(), ID, Some((info.bytes, 1))).await;
        assert!(matches!(other, Err(EngineError::Corrupt { .. })));
        let other = Table::open(&context, path(), ID, Some((info.bytes + 4096, 1))).await;
        assert!(matches!(other, Err(EngineError::Corrupt { .. })));
        // A sector of the file written over another one.
        let file = context
            .env
            .disk()
            .open(path(), FileClass::Manifest)
            .await
            .expect("opens");
        let sector = file.read_at(4096, 4096).await.expect("read");
        let mut buffer = AlignedBuf::zeroed(4096);
        buffer.copy_from_slice(&sector);
        file.write_at(8192, buffer).await.0.expect("written");
        let whole = is_whole(&context, &info, &model).await;
        assert!(matches!(whole, Err(EngineError::Corrupt { .. })));
    });
}

#[test]
fn arbitrary_files_are_refused() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let model = random_rows(&mut rng, 200, 0);
    sim::run(seed, SimOptions::default(), |env| async move {
        let context = context(env, 0);
        let info = build(&context, &model, BuilderOptions::default()).await;
        let disk = context.env.disk();
        for round in 0..300u64 {
            let path = format!("t/x{round}");
            let path = Path::new(&path);
            let file = disk
                .create(path, FileClass::Manifest)
                .await
                .expect("created");
            let len = rng.random_range(0..4usize) * 4096;
            if len > 0 {
                let mut buffer = AlignedBuf::zeroed(len);
                rng.fill(&mut buffer[..]);
                if round % 2 == 0 {
                    // A right trailer that points at garbage.
                    let trailer = footer::Trailer {
                        table: ID,
                        tail_offset: rng.random_range(0..len as u64),
                        footer: BlockHandle {
                            offset: rng.random_range(0..len as u64),
                            len: rng.random_range(0..9000),
                        },
                        footer_checksum: rng.random(),
                    };
                    buffer[len - footer::TRAILER_BYTES..].copy_from_slice(&trailer.encode());
                }
                file.write_at(0, buffer).await.0.expect("written");
            }
            let refused = Table::open(&context, path, ID, None).await;
            assert!(matches!(refused, Err(EngineError::Corrupt { .. })));
        }
        assert!(info.bytes > 0);
    });
}

#[test]
fn what_an_abandoned_builder_cached_is_given_up() {
    sim::run(1, SimOptions::default(), |env| async move {
        let context = context(env, 8 << 20);
        context
            .env
            .disk()
            .create_dir_all(Path::new("t"))
            .await
            .expect("a folder");
        let options = BuilderOptions::default();
        let mut builder = Builder::create(&context, path(), ID, options, Rc::new(Unthrottled))
            .await
            .expect("created");
        let value = [1; 400];
        for n in 0..20_000u32 {
            let meta = RowMeta {
                version: 1,
                ..RowMeta::default()
            };
            let put = Cell::Put {
                meta,
                value: &value,
            };
            builder.add(&n.to_be_bytes(), &put).expect("taken");
            builder.mark_hot();
        }
        assert!(context.cache.stats().blocks > 100);
        drop(builder);
        for offset in 0..2000 {
            context.cache.insert(
                1,
                offset,
                Rc::new(test_block(100)),
                crate::cache::Priority::Data,
            );
        }
        assert_eq!(context.cache.stats().blocks, 2000);
    });
}
