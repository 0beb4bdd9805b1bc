//! Where a partition's entries stand in the log, so that a few of them can be read again.
//!
//! Entries of one partition that follow each other in log order are a *run*. An entry that
//! supersedes others ends the run they are in before its own index, and begins another: so the runs
//! that are left rise in index as in log order, and from a run's first record on every record of the
//! partition with an index of the run is the run's.
//!
//! A run has a *mark* about every 512 KiB, and one in each segment: 24 bytes that name a record. A
//! read begins at the last mark that is not too far, and passes over what it does not want.

use std::collections::VecDeque;

/// Distance between two marks, in bytes.
const STRIDE_BYTES: u64 = 512 << 10;

/// A record of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RecordAt {
    /// The group's number.
    pub(super) sequence: u64,
    /// Where it begins in the segment's file, in bytes.
    pub(super) offset: u64,
    /// Where the record is, in bytes from the start of the group.
    pub(super) record: u32,
    /// The number of the segment's header.
    pub(super) segment: u64,
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    index: u64,
    sequence: u64,
    offset: u32,
    record: u32,
}

/// One partition's entries in the log.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// Marks by index, and by place.
    marks: VecDeque<Mark>,
    /// The first index of each run but the first, ascending.
    runs: Vec<u64>,
    /// The next index of the newest run; 0 if there is none.
    next: u64,
    /// How often entries were superseded.
    cuts: u64,
}

/// Where to begin reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// The group.
    pub(super) sequence: u64,
    /// Where it begins in its segment's file, in bytes.
    pub(super) offset: u64,
    /// Where the first record to look at is in it, in bytes.
    pub(super) record: u32,
    /// The first index that is not in the same run.
    pub(super) limit: u64,
}

impl Places {
    /// Notes an entry, appended to a group.
    #[inline]
    pub(super) fn note(&mut self, index: u64, at: RecordAt) {
        let is_far = match self.marks.back() {
            Some(mark) if index == self.next => {
                mark.sequence < at.segment || at.offset - u64::from(mark.offset) >= STRIDE_BYTES
            }
            _ => {
                self.cut(index);
                if !self.marks.is_empty() {
                    self.runs.push(index);
                }
                true
            }
        };
        self.next = index + 1;
        if is_far {
            self.marks.push_back(Mark {
                index,
                sequence: at.sequence,
                offset: at.offset as u32,
                record: at.record,
            });
        }
    }

    /// Forgets the entries from `index` on.
    fn cut(&mut self, index: u64) {
        self.cuts += 1;
        while self.marks.back().is_some_and(|mark| mark.index >= index) {
            self.marks.pop_back();
        }
        while self.runs.last().is_some_and(|first| *first >= index) {
            self.runs.pop();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self {
            cuts: self.cuts + 1,
            ..Self::default()
        };
    }

    /// Changes whenever entries no longer count.
    pub(super) fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Forgets what stands before a segment, whose header has this number.
    pub(super) fn forget_before(&mut self, segment: u64) {
        while self
            .marks
            .front()
            .is_some_and(|mark| mark.sequence < segment)
        {
            self.marks.pop_front();
        }
        let first = self.marks.front().map_or(u64::MAX, |mark| mark.index);
        self.runs.retain(|run| *run > first);
    }

    /// The least index whose place is known; `None` if there is none.
    pub(super) fn first(&self) -> Option<u64> {
        self.marks.front().map(|mark| mark.index)
    }

    /// Where to begin reading for an entry.
    pub(super) fn find(&self, index: u64) -> Option<Start> {
        if index >= self.next {
            return None;
        }
        let at = self.marks.partition_point(|mark| mark.index <= index);
        let mark = self.marks.get(at.checked_sub(1)?)?;
        let run = self.runs.partition_point(|first| *first <= index);
        Some(Start {
            sequence: mark.sequence,
            offset: u64::from(mark.offset),
            record: mark.record,
            limit: self.runs.get(run).copied().unwrap_or(self.next),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64, offset: u64, segment: u64) -> RecordAt {
        RecordAt {
            sequence,
            offset,
            record: 48,
            segment,
        }
    }

    #[test]
    fn a_read_begins_at_the_last_mark_of_the_right_run() {
        let mut places = Places::default();
        for index in 5..=30 {
            places.note(index, at(index, 4096 * index, 1));
        }
        assert_eq!(places.marks.len(), 1);
        places.note(31, at(40, STRIDE_BYTES + 4096 * 5, 1));
        places.note(32, at(51, 4096, 50));
        assert_eq!(places.marks.len(), 3);
        let start = |places: &Places, index| {
            places
                .find(index)
                .map(|start| (start.sequence, start.limit))
        };
        assert_eq!(start(&places, 4), None);
        assert_eq!(start(&places, 30), Some((5, 33)));
        assert_eq!(start(&places, 31), Some((40, 33)));
        assert_eq!(start(&places, 33), None);
        // The entries from 20 on are superseded, then those from 25 on.
        places.note(20, at(60, 8192, 50));
        (21..28).for_each(|index| places.note(index, at(index + 40, 8192, 50)));
        places.note(25, at(70, 12288, 50));
        assert_eq!(start(&places, 19), Some((5, 20)));
        assert_eq!(start(&places, 24), Some((60, 25)));
        assert_eq!(start(&places, 25), Some((70, 26)));
        assert_eq!(start(&places, 26), None);
        places.forget_before(50);
        assert_eq!((places.first(), start(&places, 19)), (Some(20), None));
        assert_eq!(start(&places, 24), Some((60, 25)));
        places.clear();
        assert_eq!((places.first(), start(&places, 24)), (None, None));
    }
}
