//! What there is to read in a range at one moment, held for as long as it is read.

use std::rc::Rc;

use crate::entry::PartitionId;
use crate::env::Env;
use crate::planted::{self, Bug};
use crate::range_deletes::Covering;
use crate::row::partition_of;
use crate::table::ReadMode;

use super::memtables::SharedMemtable;
use super::source::Source;
use super::version::Run;
use super::{Inner, Reader};

/// The memtables and tables of a range.
pub(crate) struct View<E: Env> {
    /// All that may hold rows of the range, newest first.
    pub sources: Vec<Source<E>>,
    /// What of it has range deletes.
    pub deletes: Deletes<E>,
}

/// What has range deletes, among what is read.
pub(crate) struct Deletes<E: Env> {
    /// Each with what it hides.
    memtables: Vec<(SharedMemtable, Vec<PartitionId>)>,
    runs: Vec<Rc<Run<Reader<E>>>>,
}

impl<E: Env> Inner<E> {
    /// What there is of `from..to` now.
    pub(crate) fn view(&self, from: &[u8], to: &[u8], mode: &ReadMode) -> View<E> {
        let version = self.version();
        let mut sources = Vec::new();
        let mut deletes = Deletes {
            memtables: Vec::new(),
            runs: Vec::new(),
        };
        for (memtable, hidden) in self.memtables.borrow().all() {
            if !memtable.borrow().range_deletes().is_empty() {
                let memtable = Rc::clone(memtable);
                deletes.memtables.push((memtable, hidden.clone()));
            }
            sources.push(Source::memtable(memtable, hidden));
        }
        for run in version.runs() {
            let tables = run.tables[run.overlapping(from, to, false)].to_vec();
            if tables.iter().any(|t| t.record.range_deletes > 0) {
                deletes.runs.push(Rc::clone(run));
            }
            if !tables.is_empty() {
                sources.push(Source::run(tables, mode.clone()));
            }
        }
        View { sources, deletes }
    }
}

impl<E: Env> Covering for Deletes<E> {
    fn covering(&self, row_key: &[u8], at_version: u64) -> u64 {
        if planted::is(Bug::RangeDeleteIgnored) {
            return 0;
        }
        let partition = partition_of(row_key).unwrap_or_default();
        let in_memory = self
            .memtables
            .iter()
            .filter(|(_, hidden)| !hidden.contains(&partition))
            .map(|(m, _)| m.borrow().max_range_delete_covering(row_key, at_version));
        let in_tables = self.runs.iter().map(|run| match run.find(row_key) {
            Some(t) => t.reader.range_deletes().covering(row_key, at_version),
            None => 0,
        });
        in_memory.chain(in_tables).max().unwrap_or(0)
    }
}
