//! Where the terms of a partition begin.
//!
//! Terms rise along a partition's entries, so the first index of each term says of every entry
//! (term, index) whether it stands there or was discarded. The tree notes the first entry of a term
//! when it applies it, in a row of a keyspace that [`crate::tree::TreeOptions::own_keyspace`] names: so
//! the notes are where the rows are, after a restart and in a snapshot too. The rows form a ring:
//!
//! ```text
//! key: | 0x00 't' | term mod 1024, u16 BE |   value: | term u64 LE |   version: the first index
//! ```

use std::collections::VecDeque;

use crate::entry::LogId;

/// Terms whose beginning is remembered.
pub const TERMS_KEPT: u64 = 1024;

/// What the keys of the rows begin with.
pub const KEY_PREFIX: [u8; 2] = [0, b't'];

/// The key of a term's row.
#[must_use]
pub fn key_of(term: u64) -> [u8; 4] {
    let [high, low] = ((term % TERMS_KEPT) as u16).to_be_bytes();
    [KEY_PREFIX[0], KEY_PREFIX[1], high, low]
}

/// The value of a term's row.
#[must_use]
pub fn value_of(term: u64) -> [u8; 8] {
    term.to_le_bytes()
}

/// The term of a row with this key and value; `None` if it is no such row.
#[must_use]
pub fn decode(key: &[u8], value: &[u8]) -> Option<u64> {
    let term = u64::from_le_bytes(value.try_into().ok()?);
    (key == key_of(term)).then_some(term)
}

/// The first index of each of the newest terms of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Term and first index, both ascending.
    firsts: VecDeque<LogId>,
}

impl Terms {
    /// The terms that rows tell, in any order.
    #[must_use]
    pub fn of(mut firsts: Vec<LogId>) -> Self {
        firsts.sort_unstable();
        Self {
            firsts: firsts.into(),
        }
    }

    /// Notes an entry that was applied, the next in order.
    #[inline]
    pub fn note(&mut self, id: LogId) {
        if self.firsts.back().is_some_and(|last| last.term >= id.term) {
            return;
        }
        self.firsts.push_back(id);
        if self.firsts.len() as u64 > TERMS_KEPT {
            self.firsts.pop_front();
        }
    }

    /// The term of the entry that was applied at `index`; `None` if it is older than the terms that
    /// are known. Only for what was applied.
    #[must_use]
    pub fn of_index(&self, index: u64) -> Option<u64> {
        let later = self.firsts.partition_point(|first| first.index <= index);
        let stands = self.firsts.get(later.checked_sub(1)?)?;
        Some(stands.term)
    }

    /// Whether it is certain that no entry `id` stands, or ever will, in the history that has come
    /// as far as `applied`. What is older than the terms that are known, and what may yet come, is
    /// not certain.
    #[must_use]
    pub fn is_lost(&self, id: LogId, applied: LogId) -> bool {
        if id.index == 0 {
            return false;
        }
        if id.index > applied.index {
            return id.term < applied.term;
        }
        let later = self.firsts.partition_point(|first| first.index <= id.index);
        match later.checked_sub(1).and_then(|at| self.firsts.get(at)) {
            Some(stands) => stands.term != id.term,
            // Before all that is known: at least no later term can stand there.
            None => self
                .firsts
                .front()
                .is_some_and(|first| first.term <= id.term),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, index }
    }

    #[test]
    fn tells_what_stands_from_what_was_discarded() {
        let terms = Terms::of(vec![id(5, 8), id(1, 1), id(2, 4)]);
        let applied = id(5, 9);
        for (term, index) in [(1, 1), (1, 3), (2, 4), (2, 7), (5, 8), (5, 9)] {
            assert!(!terms.is_lost(id(term, index), applied), "{term} {index}");
        }
        for (term, index) in [(1, 4), (2, 3), (2, 8), (3, 8), (5, 7), (4, 10), (1, 100)] {
            assert!(terms.is_lost(id(term, index), applied), "{term} {index}");
        }
        for (index, term) in [(1, 1), (3, 1), (4, 2), (7, 2), (8, 5), (9, 5)] {
            assert_eq!(terms.of_index(index), Some(term), "{index}");
        }
        assert_eq!(Terms::of(vec![id(5, 8)]).of_index(7), None);
        // It may come yet.
        assert!(!terms.is_lost(id(5, 10), applied));
        assert!(!terms.is_lost(id(6, 10), applied));
        // Nothing was read.
        assert!(!terms.is_lost(id(0, 0), applied));
    }

    #[test]
    fn forgets_the_oldest_and_then_cannot_tell() {
        let mut terms = Terms::default();
        for term in 1..=TERMS_KEPT + 2 {
            terms.note(id(term, 10 * term));
            terms.note(id(term, 10 * term + 1));
        }
        let applied = id(TERMS_KEPT + 2, 10 * (TERMS_KEPT + 2) + 1);
        assert_eq!(terms.firsts.len() as u64, TERMS_KEPT);
        assert!(!terms.is_lost(id(1, 21), applied), "not known any more");
        assert!(
            terms.is_lost(id(3, 21), applied),
            "later than what stood there"
        );
        assert!(terms.is_lost(id(2, 30), applied));
        assert!(!terms.is_lost(id(3, 30), applied));
    }

    #[test]
    fn rows_round_trip() {
        for term in [1, TERMS_KEPT, TERMS_KEPT + 1, u64::MAX] {
            assert_eq!(decode(&key_of(term), &value_of(term)), Some(term));
            assert_eq!(decode(&key_of(term ^ 1), &value_of(term)), None);
        }
        assert_eq!(decode(b"\0next", &value_of(1)), None);
        assert_eq!(decode(&key_of(1), b"short"), None);
    }
}
