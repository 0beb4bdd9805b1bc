//! The columns of level 0: ranges of row keys at whose edges every flush cuts its tables.
//!
//! A compaction of level 0 must take all tables that overlap, directly or through others. If each
//! flush cut where it liked, that would be all of level 0, and all of the level below with it. So the
//! edges are kept from flush to flush. They must be kept themselves: the first row of a table lies
//! somewhat behind the edge it was cut at, and edges taken from there would wander into their
//! neighbours.
//!
//! The first edges are those of some tables of the level below. Where rows come that no edge is made
//! for, tables are closed by size, and where nothing overlaps them those make new edges. Once there
//! are far too many, or level 0 is empty, the edges are chosen anew.

use std::cell::RefCell;

use crate::env::Env;

use super::Inner;
use super::version::Version;

/// Columns that are aimed at.
pub const COLUMNS: u64 = 16;
/// Edges at which they are chosen anew.
const EDGES_MAX: usize = 4 * COLUMNS as usize;

/// The edges, ascending.
#[derive(Default)]
pub(crate) struct Columns(RefCell<Vec<Vec<u8>>>);

impl Columns {
    /// The edges at which a version's level 0, and what is compacted out of it, is cut.
    fn edges<T>(&self, version: &Version<T>) -> Vec<Vec<u8>> {
        let mut known = self.0.borrow_mut();
        if known.is_empty() || version.l0.is_empty() || known.len() > EDGES_MAX {
            *known = chosen(version);
        }
        for (from, gap_from) in spans(version) {
            // An edge in the gap before what hangs together keeps it apart from what comes before.
            let at = known.partition_point(|edge| *edge <= from);
            let has_edge = at
                .checked_sub(1)
                .and_then(|before| known.get(before))
                .is_some_and(|edge| gap_from.as_ref().is_none_or(|gap| edge > gap));
            if !has_edge {
                known.insert(at, from);
            }
        }
        known.clone()
    }
}

/// Where some tables of the first level that has any begin.
fn chosen<T>(version: &Version<T>) -> Vec<Vec<u8>> {
    let run = version.levels.iter().find(|run| !run.tables.is_empty());
    let tables = run.map_or(&[][..], |run| &run.tables);
    let each = tables.len().div_ceil(COLUMNS as usize).max(1);
    let some = tables.iter().step_by(each);
    some.map(|table| table.record.smallest.clone()).collect()
}

/// What hangs together in level 0 by overlaps: where it begins, and where what lies before it ends.
fn spans<T>(version: &Version<T>) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let tables = version.l0.iter().flat_map(|run| &run.tables);
    let mut ranges: Vec<_> = tables
        .map(|table| (&table.record.smallest, &table.record.largest))
        .collect();
    ranges.sort();
    let mut spans = Vec::new();
    let mut end: Option<&Vec<u8>> = None;
    for (from, to) in ranges {
        if end.is_none_or(|end| from > end) {
            spans.push((from.clone(), end.cloned()));
        }
        end = end.max(Some(to));
    }
    spans
}

impl<E: Env> Inner<E> {
    /// Where the columns of level 0 begin, as row keys, ascending.
    pub(crate) fn columns(&self) -> Vec<Vec<u8>> {
        self.columns.edges(&self.version())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::manifest::TableRecord;
    use crate::tree::version::{Change, Obsolete, TableFile};

    fn version(tables: &[(u8, u64, &str, &str)]) -> Version<()> {
        let obsolete = Obsolete::default();
        let table = |(id, (level, run, from, to)): (usize, &(u8, u64, &str, &str))| {
            let record = TableRecord {
                id: id as u64,
                level: *level,
                run: *run,
                smallest: (*from).into(),
                largest: (*to).into(),
                ..TableRecord::default()
            };
            Rc::new(TableFile::new(record, (), &obsolete))
        };
        Version::empty().changed(&Change {
            added: tables.iter().enumerate().map(table).collect(),
            removed: Vec::new(),
            moved: Vec::new(),
            hidden: Vec::new(),
        })
    }

    fn edges(columns: &Columns, tables: &[(u8, u64, &str, &str)]) -> String {
        let edges = columns.edges(&version(tables));
        let edges = edges.iter().map(|edge| String::from_utf8_lossy(edge));
        edges.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn edges_stay_while_the_tables_cut_at_them_begin_behind_them() {
        let columns = Columns::default();
        let below = [(6, 0, "b", "f"), (6, 0, "g", "k")];
        assert_eq!(edges(&columns, &below), "b g");
        let mut tables = below.to_vec();
        tables.extend([(0, 1, "c", "e"), (0, 1, "h", "j")]);
        assert_eq!(edges(&columns, &tables), "b g");
        // Rows behind all edges, and before the first one.
        tables.extend([(0, 2, "m", "n"), (0, 2, "a", "a")]);
        assert_eq!(edges(&columns, &tables), "a b g m");
        // A table across two columns: they go together, but the edge is not forgotten.
        tables.push((0, 3, "d", "i"));
        assert_eq!(edges(&columns, &tables), "a b g m");
        assert_eq!(edges(&columns, &below), "b g", "chosen anew");
    }

    #[test]
    fn too_many_edges_are_chosen_anew() {
        let columns = Columns::default();
        let names: Vec<_> = (0..=EDGES_MAX).map(|n| format!("{n:03}")).collect();
        let mut tables: Vec<_> = names
            .iter()
            .map(|n| (0, 1, n.as_str(), n.as_str()))
            .collect();
        tables.push((6, 0, "0", "9"));
        assert_eq!(columns.edges(&version(&tables)).len(), EDGES_MAX + 1);
        let fewer = [(0, 2, "5", "6"), (6, 0, "0", "9")];
        assert_eq!(edges(&columns, &fewer), "0");
    }
}
