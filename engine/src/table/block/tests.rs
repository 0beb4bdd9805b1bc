use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::row::{Cell, RowMeta};
use crate::table::BlockKind;

type Key = (Vec<u8>, Reverse<u64>);
type Put = Option<(RowMeta, Vec<u8>)>;
type Model = BTreeMap<Key, Put>;

fn rows() -> impl Strategy<Value = Model> {
    let key = prop_oneof![
        proptest::collection::vec(0..3u8, 0..6),
        (0..500u32).prop_map(|n| format!("a-long-prefix-that-all-share-{n:06}").into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    let meta = (any::<u64>(), 0..3u64, 0..3u64);
    let put = (meta, proptest::collection::vec(any::<u8>(), 0..30)).prop_map(
        |((updated_ms, created_ms, expires_ms), value)| {
            let meta = RowMeta {
                version: 0,
                updated_ms,
                created_ms: created_ms * (u64::MAX / 3),
                expires_ms: expires_ms * 1_700_000_000_000,
            };
            (meta, value)
        },
    );
    let row = (
        key,
        prop_oneof![0..4u64, any::<u64>()],
        prop::option::of(put),
    );
    proptest::collection::vec(row, 1..120).prop_map(|rows| {
        let with_version = |(key, version, put): (_, _, Option<(RowMeta, Vec<u8>)>)| {
            let put = put.map(|(meta, value)| (RowMeta { version, ..meta }, value));
            ((key, Reverse(version)), put)
        };
        rows.into_iter().map(with_version).collect()
    })
}

fn write(model: &Model) -> Vec<u8> {
    let mut writer = match model.len() % 2 {
        0 => BlockWriter::data(),
        _ => BlockWriter::index(),
    };
    for ((key, Reverse(version)), put) in model {
        let (content, len) = match put {
            Some((meta, value)) => (Content::Put(*meta, value), value.len()),
            None => (Content::Delete(*version), 0),
        };
        let bound = writer.raw_bytes_with(key, len);
        writer.add(key, content);
        assert!(writer.raw_bytes() <= bound);
    }
    let bytes = writer.raw_bytes();
    let raw = writer.into_raw();
    assert_eq!(raw.len(), bytes);
    raw
}

fn same(cursor: &BlockCursor, expected: Option<(&Key, &Put)>) {
    let found = cursor.entry().map(|(entry, bytes)| {
        let cell = match entry.cell(bytes) {
            Cell::Put { meta, value } => Some((meta, value.to_vec())),
            Cell::Delete { .. } => None,
        };
        ((cursor.key().to_vec(), Reverse(entry.meta.version)), cell)
    });
    assert_eq!(
        found,
        expected.map(|(key, cell)| (key.clone(), cell.clone()))
    );
}

proptest! {
    #[test]
    fn agrees_with_a_btreemap(model in rows(), probes in rows()) {
        let raw = write(&model);
        let block = Rc::new(Block::parse(BlockKind::Data, raw.into()).expect("a block"));
        let mut cursor = BlockCursor::default();
        cursor.enter(block.clone());
        cursor.seek_first().expect("whole");
        for row in &model {
            same(&cursor, Some(row));
            cursor.next().expect("whole");
        }
        same(&cursor, None);
        cursor.seek_last().expect("whole");
        for row in model.iter().rev() {
            same(&cursor, Some(row));
            cursor.prev().expect("whole");
        }
        same(&cursor, None);
        for (key, Reverse(version)) in probes.keys().chain(model.keys()) {
            for version in [*version, version.saturating_sub(1), version.saturating_add(1), 0, u64::MAX] {
                let target = (key.clone(), Reverse(version));
                let expected = model.range(target.clone()..).next();
                cursor.seek(key, version).expect("whole");
                same(&cursor, expected);
                let (rows, bytes) = block.rows().expect("rows");
                let found = rows.lower_bound(bytes, key, version).expect("whole");
                let is_same = matches!(found, rows::Bound::At { same_key: true, .. });
                prop_assert_eq!(is_same, expected.is_some_and(|((k, _), _)| k == key));
                // Turning round in the middle.
                if cursor.entry().is_some() {
                    cursor.prev().expect("whole");
                    same(&cursor, model.range(..target.clone()).next_back());
                    if cursor.entry().is_some() {
                        cursor.next().expect("whole");
                        same(&cursor, expected);
                        cursor.prev().expect("whole");
                        cursor.prev().expect("whole");
                        same(&cursor, model.range(..target).rev().nth(1));
                    }
                }
            }
        }
    }

    #[test]
    fn damage_is_an_error_or_other_rows_but_no_panic(
        model in rows(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        probe in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut raw = write(&model);
        for (at, byte) in damage {
            let at = at.index(raw.len());
            raw[at] = byte;
        }
        for kind in [BlockKind::Data, BlockKind::Filter] {
            let Ok(block) = Block::parse(kind, raw.clone().into()) else {
                continue;
            };
            block.may_contain(7);
            let mut cursor = BlockCursor::default();
            cursor.enter(Rc::new(block));
            let _ = cursor.seek(&probe, 7);
            let mut steps = 0;
            let mut more = cursor.seek_first();
            while more == Ok(true) && steps < 2 * raw.len() {
                let _ = cursor.entry().map(|(entry, bytes)| entry.cell(bytes));
                more = cursor.next();
                steps += 1;
            }
            let mut more = cursor.seek_last();
            while more == Ok(true) && steps < 4 * raw.len() {
                more = cursor.prev();
                steps += 1;
            }
        }
    }
}

#[test]
fn memory_is_counted_as_allocators_round() {
    assert_eq!(allocated(4096), 4096);
    assert_eq!(allocated(4097), 5120);
    assert_eq!(allocated(9000), 10240);
    assert_eq!(allocated(1), 16);
}
