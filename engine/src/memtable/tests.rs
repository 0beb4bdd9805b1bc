use std::cmp::Reverse;
use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::row::{RowKeyBuf, RowMeta};

type Model = BTreeMap<(Vec<u8>, Reverse<u64>), Option<(RowMeta, Vec<u8>)>>;

fn random_key(rng: &mut StdRng, shape: u8) -> Vec<u8> {
    match shape {
        // Few short keys: many versions of each, and every prefix of another.
        0 => vec![b'a'; rng.random_range(0..12)],
        // Keys that differ far from their start.
        1 => format!(
            "{:06}-a-long-shared-prefix-{:05}",
            7,
            rng.random_range(0..3000)
        )
        .into_bytes(),
        // Arbitrary bytes of any length.
        _ => {
            let len = rng.random_range(0..20);
            (0..len).map(|_| rng.random_range(0..3u8)).collect()
        }
    }
}

fn filled(rng: &mut StdRng, count: usize, shape: u8) -> (Memtable, Model) {
    // What all keys of shape 1 have where a keyspace stands, and the longer ones of shape 0.
    let searched = [None, Some(0x3030_3037), Some(0x6161_6161)][rng.random_range(0..3)];
    let mut table = Memtable::searching(searched);
    let mut model = Model::new();
    for _ in 0..count {
        let key = random_key(rng, shape);
        let version = rng.random_range(1..200);
        if rng.random_range(0..4) == 0 {
            table.insert(&key, Cell::Delete { version });
            model.insert((key, Reverse(version)), None);
        } else {
            let len = rng.random_range(0..40);
            let value = vec![rng.random(); len];
            let meta = RowMeta {
                version,
                updated_ms: rng.random(),
                created_ms: rng.random_range(0..2) * 77,
                expires_ms: rng.random_range(0..2) * 99,
            };
            table.insert(
                &key,
                Cell::Put {
                    meta,
                    value: &value,
                },
            );
            model.insert((key, Reverse(version)), Some((meta, value)));
        }
    }
    (table, model)
}

fn same(found: Option<(&[u8], Cell<'_>)>, expected: Option<ModelRow<'_>>) {
    let found = found.map(|(key, cell)| match cell {
        Cell::Delete { version } => (key.to_vec(), version, None),
        Cell::Put { meta, value } => (key.to_vec(), meta.version, Some((meta, value.to_vec()))),
    });
    let expected =
        expected.map(|((key, Reverse(version)), cell)| (key.clone(), *version, cell.clone()));
    assert_eq!(found, expected);
}

type ModelRow<'a> = (&'a (Vec<u8>, Reverse<u64>), &'a Option<(RowMeta, Vec<u8>)>);

#[test]
fn agrees_with_a_btreemap() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for shape in 0..3 {
        for count in [0, 1, 63, 64, 65, 127, 128, 129, 500, 20_000] {
            let (table, model) = filled(&mut rng, count, shape);
            assert_eq!(table.len(), model.len());
            let mut cursor = table.cursor();
            cursor.seek_first(&table);
            for row in &model {
                same(cursor.get(&table), Some(row));
                cursor.next(&table);
            }
            assert!(!cursor.is_valid());
            cursor.seek_last(&table);
            for row in model.iter().rev() {
                same(cursor.get(&table), Some(row));
                cursor.prev(&table);
            }
            assert!(!cursor.is_valid());
            for _ in 0..300 {
                let key = random_key(&mut rng, shape);
                let version = match rng.random_range(0..4) {
                    0 => u64::MAX,
                    1 => 0,
                    _ => rng.random_range(0..210),
                };
                let target = (key.clone(), Reverse(version));
                cursor.seek(&table, &key, version);
                same(cursor.get(&table), model.range(target.clone()..).next());
                let found = table.get(&key, version).map(|cell| (&*key, cell));
                let newest = model.range(target.clone()..).next();
                same(found, newest.filter(|((k, _), _)| *k == key));
                cursor.seek_before(&table, &key, version);
                same(cursor.get(&table), model.range(..target).next_back());
            }
        }
    }
}

#[test]
fn a_cursor_goes_on_while_the_memtable_grows() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut table, mut model) = filled(&mut rng, 400, 2);
    let mut forward = table.cursor();
    forward.seek_first(&table);
    let mut backward = table.cursor();
    backward.seek_last(&table);
    while forward.is_valid() || backward.is_valid() {
        let up = forward.key(&table).map(|(k, v)| (k.to_vec(), Reverse(v)));
        let down = backward.key(&table).map(|(k, v)| (k.to_vec(), Reverse(v)));
        for _ in 0..rng.random_range(0..4) {
            let key = random_key(&mut rng, 2);
            let version = rng.random_range(1..200);
            table.insert(&key, Cell::Delete { version });
            model.insert((key, Reverse(version)), None);
        }
        if let Some(at) = up {
            forward.next(&table);
            use std::ops::Bound::{Excluded, Unbounded};
            same(
                forward.get(&table),
                model.range((Excluded(at), Unbounded)).next(),
            );
        }
        if let Some(at) = down {
            backward.prev(&table);
            same(backward.get(&table), model.range(..at).next_back());
        }
    }
}

#[test]
fn memory_is_counted_with_large_values_and_range_deletes() {
    let mut table = Memtable::new();
    let empty = table.memory_bytes();
    assert!(empty < 4096, "{empty}");
    assert!(table.is_empty());
    let value = vec![7; 3 << 20];
    let meta = RowMeta::default();
    table.insert(
        b"\0",
        Cell::Put {
            meta,
            value: &value,
        },
    );
    let big = table.memory_bytes() - empty;
    // With the parts of the index.
    assert!((3 << 20..(3 << 20) + 8192).contains(&big), "{big}");
    for n in 0..100_000u32 {
        let cell = Cell::Delete { version: 1 };
        table.insert(&n.to_be_bytes(), cell);
    }
    let small = table.memory_bytes() - empty - big;
    // 16 bytes of cell, 16 of its place in full leaves, ascending as they are, and 11 to 21 in the index.
    assert!((100_000 * 43..100_000 * 64).contains(&small), "{small}");
    table.delete_range(b"a", b"c", 9);
    table.delete_range(b"c", b"a", 10);
    assert_eq!(table.max_range_delete_covering(b"b", u64::MAX), 9);
    assert_eq!(table.max_range_delete_covering(b"b", 8), 0);
    assert_eq!(table.max_range_delete_covering(b"c", u64::MAX), 0);
    assert_eq!(table.range_deletes().len(), 1);
    assert_eq!(table.tombstones(), 100_000);
    assert_eq!(table.content_bytes(), (3 << 20) + 1 + 400_000);
    let found = table.get(b"\0", u64::MAX);
    assert_eq!(
        found,
        Some(Cell::Put {
            meta,
            value: &value
        })
    );
}

#[test]
fn a_warm_row_is_the_one_that_is_read() {
    let mut table = Memtable::new();
    let keys: Vec<Vec<u8>> = (0..20_000u32)
        .map(|n| format!("key:{n:08}").into_bytes())
        .collect();
    let meta = RowMeta {
        version: 1,
        ..RowMeta::default()
    };
    let mut row_key = RowKeyBuf::new();
    for (n, key) in keys.iter().enumerate() {
        let value = vec![b'v'; n % 60];
        table.insert(
            row_key.set(n as u16, 3, key),
            Cell::Put {
                meta,
                value: &value,
            },
        );
    }
    assert!(table.arena.memory_bytes() >= WARMED_FROM);
    // The others stand far behind the place that is theirs: parts are up to three quarters full.
    let guessed = keys.iter().enumerate().filter(|(n, key)| {
        let cell = table.index.guess(table.index.hash(3, key));
        let row_key = RowKeyBuf::of(*n as u16, 3, key);
        cell.is_some_and(|cell| table.arena.key(cell).0 == row_key.as_slice())
    });
    let guessed = guessed.count();
    assert!(guessed > keys.len() * 4 / 5, "{guessed}");
    // More than are warmed at once, those at the end of their chunk, and those that there are not.
    for asked in keys.chunks(2 * WARMED_MAX) {
        table.warm(asked.iter().flat_map(|key| [(3, &key[..]), (4, &key[..])]));
    }
    Memtable::new().warm(keys.iter().map(|key| (3, &key[..])));
}
