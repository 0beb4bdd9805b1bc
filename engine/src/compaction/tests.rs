//! Tests of the picker and of what a compaction keeps.

use std::rc::Rc;

use super::picker::{Reason, Shape, level_score, pick_deep, pick_expired, pick_l0, targets};
use super::retain::{Retain, Rules};
use crate::manifest::TableRecord;
use crate::range_deletes::RangeDeletes;
use crate::row::{Cell, RowMeta};
use crate::tree::version::{Change, Obsolete, TableFile, Version};

fn shape() -> Shape {
    Shape {
        table_bytes: 32_000,
        l0_runs: 4,
        l0_bytes: 4000,
        multiplier: 10,
        base_bytes: 2000,
        tombstone_percent: 40,
        tombstone_entries_min: 10,
    }
}

/// A table of keys from `from` to `to`.
fn table(id: u64, level: u8, run: u64, from: &str, to: &str, bytes: u64) -> TableRecord {
    TableRecord {
        id,
        level,
        run,
        bytes,
        entries: 100,
        version_max: 1,
        smallest: from.into(),
        largest: to.into(),
        ..TableRecord::default()
    }
}

fn version(tables: Vec<TableRecord>) -> Version<()> {
    let obsolete = Obsolete::default();
    let added = tables
        .into_iter()
        .map(|record| Rc::new(TableFile::new(record, (), &obsolete)))
        .collect();
    Version::empty().changed(&Change {
        added,
        ..Change::default()
    })
}

fn ids(job: &super::picker::Job<()>) -> Vec<u64> {
    let mut ids: Vec<_> = job.tables().map(|t| t.record.id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn the_base_level_rises_as_the_tree_grows() {
    let of = |bytes| targets(&version(vec![table(1, 6, 0, "a", "z", bytes)]), &shape());
    assert_eq!(of(1000).base, 6);
    assert_eq!(of(19_000).base, 6);
    assert_eq!(of(20_000).base, 5);
    assert_eq!(of(20_000).bytes[5], 2000);
    assert_eq!(of(300_000).base, 4);
    // What is left above the base level is emptied first.
    let left = version(vec![
        table(1, 6, 0, "a", "z", 1000),
        table(2, 4, 0, "a", "c", 10),
    ]);
    let targets = targets(&left, &shape());
    assert_eq!(targets.base, 4);
    assert!(level_score(&left, &targets, 4) > 1.0);
}

#[test]
fn level_0_is_compacted_by_columns_when_due() {
    let mut tables = Vec::new();
    for run in 1..=3 {
        tables.push(table(10 * run, 0, run, "a", "f", 100));
        tables.push(table(10 * run + 1, 0, run, "g", "m", 100));
    }
    tables.push(table(90, 6, 0, "a", "e", 1000));
    tables.push(table(91, 6, 0, "g", "h", 500));
    assert!(
        pick_l0(&version(tables.clone()), &shape()).is_none(),
        "not due"
    );
    for run in 4..=5 {
        tables.push(table(10 * run, 0, run, "a", "f", 100));
        tables.push(table(10 * run + 1, 0, run, "g", "m", 100));
    }
    let version = version(tables);
    let job = pick_l0(&version, &shape()).expect("due");
    assert_eq!(job.reason, Reason::L0);
    assert_eq!(job.output_level, 6);
    assert_eq!(ids(&job), [11, 21, 31, 41, 51, 91], "the cheaper column");
    let other = pick_l0(&version, &shape()).expect("due");
    assert_eq!(ids(&other), [10, 20, 30, 40, 50, 90]);
    drop(job);
    let again = pick_l0(&version, &shape()).expect("free again");
    assert_eq!(ids(&again), [11, 21, 31, 41, 51, 91]);
}

#[test]
fn many_small_runs_are_merged_among_themselves() {
    let mut tables: Vec<_> = (1..=6)
        .map(|run| table(run, 0, run, "a", "f", 10))
        .collect();
    tables.push(table(90, 6, 0, "a", "e", 100_000));
    tables.push(table(91, 5, 0, "a", "e", 5000));
    let version = version(tables);
    let job = pick_l0(&version, &shape()).expect("due");
    assert_eq!((job.reason, job.output_level), (Reason::IntraL0, 0));
    assert!(ids(&job).len() >= 3);
    let newest = job.tables().map(|t| t.record.run).max();
    assert_eq!(Some(job.output_run), newest);
}

#[test]
fn the_table_with_the_least_overlap_goes_down_and_moves_if_it_has_none() {
    let mut tables = vec![
        table(1, 5, 0, "a", "c", 2000),
        table(2, 5, 0, "d", "f", 2000),
        table(3, 6, 0, "a", "c", 20_000),
        table(4, 6, 0, "d", "e", 1000),
    ];
    let deep = version(tables.clone());
    let job = pick_deep(&deep, &shape()).expect("due");
    assert_eq!((ids(&job), job.is_move), (vec![2, 4], false));
    drop(job);
    tables[3].smallest = b"x".to_vec();
    tables[3].largest = b"y".to_vec();
    let deep = version(tables.clone());
    let job = pick_deep(&deep, &shape()).expect("due");
    assert_eq!((ids(&job), job.is_move), (vec![2], true));
    drop(job);
    // Tombstones do not move to the deepest level: there they would stay.
    tables[1].tombstones = 1;
    let deep = version(tables);
    let job = pick_deep(&deep, &shape()).expect("due");
    assert_eq!((ids(&job), job.is_move), (vec![2], false));
}

#[test]
fn tombstones_are_compacted_at_any_size() {
    let mut dense = table(1, 5, 0, "a", "c", 10);
    dense.tombstones = 40;
    let deep = version(vec![dense.clone(), table(2, 6, 0, "a", "c", 20_000)]);
    let job = pick_deep(&deep, &shape()).expect("due");
    assert_eq!((job.reason, ids(&job)), (Reason::Tombstones, vec![1, 2]));
    drop(job);
    dense.level = 0;
    dense.run = 7;
    let l0 = version(vec![
        dense,
        table(3, 0, 3, "f", "g", 10),
        table(4, 0, 8, "b", "d", 10),
    ]);
    let job = pick_l0(&l0, &shape()).expect("due");
    assert_eq!(ids(&job), [1, 4], "what lies over it goes along");
}

#[test]
fn a_table_of_the_deepest_level_is_rewritten_once_half_of_it_has_expired() {
    let mut expiring = table(1, 6, 0, "a", "c", 1000);
    (expiring.expiry_min_ms, expiring.expiry_max_ms) = (1000, 2000);
    let deep = version(vec![expiring, table(2, 6, 0, "d", "e", 1000)]);
    assert!(pick_expired(&deep, |_| Some(1499)).is_none());
    assert!(pick_expired(&deep, |_| None).is_none());
    let job = pick_expired(&deep, |_| Some(1500)).expect("due");
    assert_eq!(
        (job.reason, job.output_level, ids(&job)),
        (Reason::Expired, 6, vec![1])
    );
    assert!(pick_expired(&deep, |_| Some(1500)).is_none(), "busy");
}

fn put(version: u64, created_ms: u64, expires_ms: u64) -> Cell<'static> {
    Cell::Put {
        meta: RowMeta {
            version,
            updated_ms: 10 * version,
            created_ms,
            expires_ms,
        },
        value: b"v",
    }
}

/// What is written of a row's cells, as (version, creation) and 0 for a tombstone's creation.
fn kept(cells: &[Cell<'_>], rules: &Rules<'_, RangeDeletes>) -> Vec<(u64, u64)> {
    let mut retain = Retain::default();
    let mut out = Vec::new();
    let note = |written: Option<(&[u8], Cell<'_>)>, out: &mut Vec<_>| match written {
        Some((_, Cell::Put { meta, .. })) => out.push((meta.version, meta.created_ms)),
        Some((_, Cell::Delete { version })) => out.push((version, 0)),
        None => {}
    };
    retain.begin(b"k");
    for cell in cells {
        while retain.offer(cell, rules, false) {
            note(retain.take(rules, false), &mut out);
        }
    }
    note(retain.take(rules, true), &mut out);
    out
}

#[test]
fn only_what_a_view_sees_is_kept() {
    let none = RangeDeletes::new();
    let mut deletes = RangeDeletes::new();
    deletes.insert(b"a", b"z", 5);
    let rules = |views, range_deletes, is_bottom| Rules {
        views,
        range_deletes,
        time_ms: 1000,
        is_bottom,
    };
    let newest: &[u64] = &[u64::MAX];
    let cells = [put(9, 1, 0), put(6, 1, 0), put(3, 1, 0)];
    assert_eq!(kept(&cells, &rules(newest, &none, false)), [(9, 1)]);
    let views: &[u64] = &[u64::MAX, 7, 4];
    assert_eq!(
        kept(&cells, &rules(views, &none, false)),
        [(9, 1), (6, 1), (3, 1)]
    );
    let views: &[u64] = &[u64::MAX, 5];
    assert_eq!(kept(&cells, &rules(views, &deletes, false)), [(9, 1)]);
    let views: &[u64] = &[u64::MAX, 4];
    assert_eq!(
        kept(&cells, &rules(views, &deletes, false)),
        [(9, 1), (3, 1)]
    );
    let old = [put(4, 1, 0)];
    assert_eq!(kept(&old, &rules(newest, &deletes, false)), []);
    let same = [put(5, 1, 0)];
    assert_eq!(kept(&same, &rules(newest, &deletes, false)), [(5, 1)]);
    let deleted = [Cell::Delete { version: 9 }, put(6, 1, 0)];
    assert_eq!(kept(&deleted, &rules(newest, &none, false)), [(9, 0)]);
    assert_eq!(kept(&deleted, &rules(newest, &none, true)), []);
    let views: &[u64] = &[u64::MAX, 7];
    assert_eq!(kept(&deleted, &rules(views, &none, true)), [(9, 0), (6, 1)]);
    let expired = [put(9, 1, 500), put(6, 1, 0)];
    assert_eq!(kept(&expired, &rules(newest, &none, false)), [(9, 0)]);
    assert_eq!(kept(&expired, &rules(newest, &none, true)), []);
}

#[test]
fn creation_is_taken_over_from_what_was_replaced() {
    let none = RangeDeletes::new();
    let rules = |is_bottom| Rules {
        views: &[u64::MAX],
        range_deletes: &none,
        time_ms: 1000,
        is_bottom,
    };
    let known = [put(9, 0, 0), put(6, 0, 0), put(3, 7, 0)];
    assert_eq!(kept(&known, &rules(false)), [(9, 7)]);
    // Unknown all the way: not before the oldest was written, if nothing lies below.
    let unknown = [put(9, 0, 0), put(6, 0, 0)];
    assert_eq!(kept(&unknown, &rules(true)), [(9, 60)]);
    assert_eq!(
        kept(&unknown, &rules(false)),
        [(9, super::retain::OPEN | 60)]
    );
    let deleted = [put(9, 0, 0), Cell::Delete { version: 6 }, put(3, 7, 0)];
    assert_eq!(kept(&deleted, &rules(false)), [(9, 90)]);
    // It had expired by the time it was replaced.
    let expired = [put(9, 0, 0), put(6, 7, 80)];
    assert_eq!(kept(&expired, &rules(false)), [(9, 90)]);
    let alive = [put(9, 0, 0), put(6, 7, 95)];
    assert_eq!(kept(&alive, &rules(false)), [(9, 7)]);
}
