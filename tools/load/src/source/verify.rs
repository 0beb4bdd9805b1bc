//! Runs that check what they read.
//!
//! Every record belongs to one connection, and has at most one request under way, so that what a
//! read may return is always known:
//! - the last *settled* write: acknowledged, or seen by an earlier read; or
//! - a write *in doubt*: its connection died before the answer came. While its deadline has not
//!   passed the server may still do it, so the record is only read, not written. The first read
//!   that returns it settles it; a read after the deadline that returns the older one settles that.
//!
//! Anything else is a violation: lost (absent, or another run's), stale (an older write of this
//! run), wrong (damaged, another key's, or never sent).

use std::fmt;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Next, Op, OpKind, Outcome, Routing, Source};
use crate::keys::{Chooser, Keys};
use crate::ledger::{Entry, Ledger, Mark};
use crate::value::{self, draw_size};
use crate::{LoadError, Options};

/// Violations kept with their details; all are counted.
const DETAILS_MAX: usize = 20;
/// Draws before looking for the next free record in order.
const DRAWS_MAX: u32 = 8;

/// What is known of one record.
#[derive(Debug, Clone, Copy)]
struct Record {
    index: u64,
    /// The last write known to be there; 0 if this run knows none.
    settled: u64,
    /// A write that may be there; 0 for none.
    doubt: u64,
    /// Until when the server may still do the write in doubt.
    doubt_until_ns: u64,
    /// The last write tried.
    last: u64,
    /// A request is under way.
    busy: bool,
}

/// What kind of wrong a violation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// An acknowledged write is gone.
    Lost,
    /// An older write came back, or a deleted record.
    Stale,
    /// The value was never written under this key.
    Wrong,
}

impl fmt::Display for ViolationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Stale => "stale",
            Self::Wrong => "wrong",
        })
    }
}

/// One read that returned what it must not.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Violation {
    /// In a word.
    pub kind: ViolationKind,
    /// The key.
    pub key: String,
    /// In words: what was expected, what was found.
    pub what: String,
}

/// What checking came to.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Checks {
    /// Reads checked.
    pub reads: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Writes that were in doubt at some time.
    pub in_doubt: u64,
    /// Records read back at the end.
    pub read_back: u64,
    /// Records that could not be read back.
    pub unread: u64,
    /// Reads that returned what they must not.
    pub violations: u64,
    /// The first of them.
    pub details: Vec<Violation>,
}

impl Checks {
    /// Adds another thread's.
    pub fn merge(&mut self, other: Checks) {
        self.reads += other.reads;
        self.acknowledged += other.acknowledged;
        self.in_doubt += other.in_doubt;
        self.read_back += other.read_back;
        self.unread += other.unread;
        self.violations += other.violations;
        self.details.extend(other.details);
        self.details.truncate(DETAILS_MAX);
    }
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Absent,
    Ours(u64),
    /// Not of this run, or damaged: indistinguishable where nothing was known.
    Other(OtherValue),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OtherValue {
    Run(u64),
    Damaged(value::Damage),
}

fn is_delete(sequence: u64) -> bool {
    sequence & 1 == 1
}

fn describe(sequence: u64) -> String {
    let kind = if is_delete(sequence) { "delete" } else { "put" };
    format!("{kind} {}", sequence >> 1)
}

impl Record {
    /// Whether `found` is the state after the write `sequence`.
    fn matches(found: Found, sequence: u64) -> bool {
        match found {
            Found::Absent => is_delete(sequence),
            Found::Ours(seen) => seen == sequence,
            Found::Other(_) => false,
        }
    }

    /// Judges what a read found. `Ok(true)`: the write in doubt is settled by it.
    fn judge(&self, found: Found) -> Result<bool, (ViolationKind, String)> {
        if self.settled != 0 && Self::matches(found, self.settled) {
            return Ok(false);
        }
        if self.doubt != 0 && Self::matches(found, self.doubt) {
            return Ok(true);
        }
        if self.settled == 0 && !matches!(found, Found::Ours(_)) {
            // What was there before this run is not known.
            return Ok(false);
        }
        let expected = match (self.settled, self.doubt) {
            (0, 0) => "nothing of this run".to_string(),
            (0, doubt) => format!("at most {} (in doubt)", describe(doubt)),
            (settled, 0) => format!("{} (acknowledged)", describe(settled)),
            (settled, doubt) => format!(
                "{} (acknowledged) or {} (in doubt)",
                describe(settled),
                describe(doubt)
            ),
        };
        let (kind, seen) = match found {
            Found::Absent => (ViolationKind::Lost, "no record".to_string()),
            Found::Ours(seen) if seen > self.last => (
                ViolationKind::Wrong,
                format!("{}, which was never sent", describe(seen)),
            ),
            Found::Ours(seen) => (ViolationKind::Stale, describe(seen)),
            Found::Other(OtherValue::Run(run)) => {
                (ViolationKind::Lost, format!("a value of run {run:016x}"))
            }
            Found::Other(OtherValue::Damaged(damage)) => (
                ViolationKind::Wrong,
                format!("a value that is damaged: {damage}"),
            ),
        };
        Err((kind, format!("expected {expected}, found {seen}")))
    }
}

/// One thread's share of a verified run.
#[derive(Debug)]
pub struct Verify {
    options: Arc<Options>,
    run: u64,
    reads_percent: u8,
    /// By connection.
    records: Vec<Vec<Record>>,
    choosers: Vec<Chooser>,
    cursors: Vec<usize>,
    /// Set for the read-back at the end.
    reading_back: bool,
    ledger: Option<Ledger>,
    timeout_ns: u64,
    rng: SmallRng,
    /// What came of it.
    pub checks: Checks,
}

impl Verify {
    /// Records of `share` (record numbers modulo threads) of `connections` connections that lead
    /// to `places`; what `entries`, sorted by record, know of them comes from a ledger.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        options: Arc<Options>,
        run: u64,
        routing: &Routing,
        places: &[Option<u16>],
        share: (u64, u64),
        entries: &[Entry],
        only_entries: bool,
        ledger: Option<Ledger>,
        now_ns: u64,
    ) -> Self {
        let mut keys = Keys::new(&options.key_prefix);
        let mut records: Vec<Vec<Record>> = vec![Vec::new(); places.len()];
        let timeout_ns = crate::clock::nanos(options.timeout);
        // Round robin over the connections that fit.
        let mut turn = 0;
        let mut add = |index: u64, entry: Option<&Entry>| {
            let owner = routing.owner(keys.key(index));
            let fits = |&conn: &usize| {
                owner.is_none() || places[conn].is_none_or(|place| Some(place) == owner)
            };
            let conn = (0..places.len())
                .map(|step| (turn + step) % places.len())
                .find(fits)
                .unwrap_or(turn % places.len());
            turn = conn + 1;
            let state = entry.copied().unwrap_or(Entry {
                record: index,
                settled: 0,
                doubt: 0,
                last: 0,
            });
            records[conn].push(Record {
                index,
                settled: state.settled,
                doubt: state.doubt,
                doubt_until_ns: now_ns + timeout_ns,
                last: state.last,
                busy: false,
            });
        };
        let mine = |index: u64| index % share.1 == share.0;
        if only_entries {
            for entry in entries.iter().filter(|entry| mine(entry.record)) {
                add(entry.record, Some(entry));
            }
        } else {
            let mut known = entries.iter().peekable();
            for index in (0..options.records).filter(|&index| mine(index)) {
                while known.next_if(|entry| entry.record < index).is_some() {}
                add(index, known.next_if(|entry| entry.record == index));
            }
        }
        let choosers = records
            .iter()
            .map(|own| Chooser::new(options.distribution(), own.len().max(1) as u64))
            .collect();
        Self {
            reads_percent: options.workload.percent()[0],
            run,
            choosers,
            cursors: vec![0; records.len()],
            records,
            reading_back: false,
            ledger,
            timeout_ns,
            rng: SmallRng::seed_from_u64(options.seed ^ share.0),
            options,
            checks: Checks::default(),
        }
    }

    /// From now on every record that this run knows of is read once.
    pub fn read_back(&mut self) {
        self.reading_back = true;
        self.cursors.fill(0);
        for record in self.records.iter_mut().flatten() {
            record.busy = false;
        }
    }

    /// Ends the read-back: counts what could not be read.
    pub fn finish(&mut self) -> Checks {
        let known = self
            .records
            .iter()
            .flatten()
            .filter(|record| record.last != 0)
            .count() as u64;
        self.checks.unread = known.saturating_sub(self.checks.read_back);
        std::mem::take(&mut self.checks)
    }

    fn next_read_back(&mut self, conn: usize) -> Next {
        let own = &mut self.records[conn];
        let cursor = &mut self.cursors[conn];
        while let Some(record) = own.get_mut(*cursor) {
            let place = *cursor as u32;
            *cursor += 1;
            if record.last != 0 {
                record.busy = true;
                return Next::Op(Op {
                    kind: OpKind::Read,
                    index: record.index,
                    sequence: 0,
                    size: 0,
                    place,
                });
            }
        }
        Next::Done
    }

    /// A record of the connection's with no request under way.
    fn free_record(&mut self, conn: usize) -> Option<usize> {
        let own = &self.records[conn];
        if own.is_empty() {
            return None;
        }
        for _ in 0..DRAWS_MAX {
            let place = self.choosers[conn].draw(&mut self.rng, own.len() as u64) as usize;
            if !own[place].busy {
                return Some(place);
            }
        }
        let start = self.rng.random_range(0..own.len());
        (start..own.len())
            .chain(0..start)
            .find(|&place| !own[place].busy)
    }

    fn observe(&mut self, conn: usize, op: &Op, key: &[u8], found: Found, now_ns: u64) {
        let record = &mut self.records[conn][op.place as usize];
        self.checks.reads += 1;
        if self.reading_back {
            self.checks.read_back += 1;
        }
        let mut mark = None;
        match record.judge(found) {
            Ok(true) => {
                record.settled = record.doubt;
                mark = Some((record.doubt, Mark::Settled));
                record.doubt = 0;
            }
            Ok(false) => {
                if record.doubt != 0 && now_ns >= record.doubt_until_ns {
                    mark = Some((record.doubt, Mark::NotDone));
                    record.doubt = 0;
                }
            }
            Err((kind, what)) => {
                self.checks.violations += 1;
                if self.checks.details.len() < DETAILS_MAX {
                    self.checks.details.push(Violation {
                        kind,
                        key: String::from_utf8_lossy(key).into_owned(),
                        what,
                    });
                }
            }
        }
        if let (Some(ledger), Some((sequence, mark))) = (&mut self.ledger, mark) {
            ledger.push(op.index, sequence, mark);
        }
    }
}

impl Source for Verify {
    fn next(&mut self, conn: usize, _place: Option<u16>, now_ns: u64) -> Next {
        if self.reading_back {
            return self.next_read_back(conn);
        }
        if self.records[conn].is_empty() {
            return Next::Done;
        }
        let Some(place) = self.free_record(conn) else {
            return Next::Wait;
        };
        let record = &mut self.records[conn][place];
        let read = record.doubt != 0 || self.rng.random_range(0..100) < self.reads_percent;
        if record.doubt != 0 && now_ns < record.doubt_until_ns && self.reads_percent == 0 {
            // Reading it now settles it only if the write was done: a workload of writes waits
            // half of the time, so that records in doubt do not take all its turns.
            if self.rng.random_range(0..2) == 0 {
                return Next::Wait;
            }
        }
        record.busy = true;
        let (kind, sequence) = if read {
            (OpKind::Read, 0)
        } else {
            let delete = self.rng.random_range(0..100) < self.options.deletes;
            let sequence = ((record.last >> 1) + 1) << 1 | u64::from(delete);
            record.last = sequence;
            if let Some(ledger) = &mut self.ledger {
                ledger.push(record.index, sequence, Mark::Intent);
            }
            let kind = if delete {
                OpKind::Delete
            } else {
                OpKind::Update
            };
            (kind, sequence)
        };
        Next::Op(Op {
            kind,
            index: record.index,
            sequence,
            size: draw_size(&mut self.rng, &self.options.value_bytes),
            place: place as u32,
        })
    }

    fn done(&mut self, conn: usize, op: &Op, key: &[u8], outcome: Outcome<'_>, now_ns: u64) {
        let timeout_ns = self.timeout_ns;
        let record = &mut self.records[conn][op.place as usize];
        record.busy = false;
        let mark = match outcome {
            Outcome::Value(bytes) => {
                let found = match value::check(bytes, key) {
                    Ok(stamp) if stamp.run == self.run => Found::Ours(stamp.sequence),
                    Ok(stamp) => Found::Other(OtherValue::Run(stamp.run)),
                    Err(damage) => Found::Other(OtherValue::Damaged(damage)),
                };
                return self.observe(conn, op, key, found, now_ns);
            }
            Outcome::Absent => return self.observe(conn, op, key, Found::Absent, now_ns),
            Outcome::Written => {
                record.settled = op.sequence;
                self.checks.acknowledged += 1;
                Mark::Settled
            }
            Outcome::InDoubt if op.kind.writes() => {
                record.doubt = op.sequence;
                record.doubt_until_ns = now_ns + timeout_ns;
                self.checks.in_doubt += 1;
                return;
            }
            Outcome::NotDone if op.kind.writes() => Mark::NotDone,
            Outcome::NotDone | Outcome::InDoubt | Outcome::Rows(_) => return,
        };
        if let Some(ledger) = &mut self.ledger {
            ledger.push(op.index, op.sequence, mark);
        }
    }

    fn before_send(&mut self) -> Result<(), LoadError> {
        self.ledger.as_mut().map_or(Ok(()), Ledger::write)
    }

    fn batched(&self) -> bool {
        self.ledger.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(settled: u64, doubt: u64) -> Record {
        Record {
            index: 0,
            settled,
            doubt,
            doubt_until_ns: 0,
            last: settled.max(doubt),
            busy: false,
        }
    }

    fn kind(record: Record, found: Found) -> Result<bool, ViolationKind> {
        record.judge(found).map_err(|(kind, _)| kind)
    }

    #[test]
    fn reads_are_judged_against_what_was_acknowledged() {
        use Found::{Absent, Ours};
        let other = Found::Other(OtherValue::Run(1));
        let damaged = Found::Other(OtherValue::Damaged(value::Damage::Checksum));

        // Nothing known: anything but a value of ours.
        for found in [Absent, other, damaged] {
            assert_eq!(kind(record(0, 0), found), Ok(false));
        }
        assert_eq!(kind(record(0, 0), Ours(2)), Err(ViolationKind::Wrong));

        // Put 4 acknowledged.
        assert_eq!(kind(record(4, 0), Ours(4)), Ok(false));
        assert_eq!(kind(record(4, 0), Ours(2)), Err(ViolationKind::Stale));
        assert_eq!(kind(record(4, 0), Ours(6)), Err(ViolationKind::Wrong));
        assert_eq!(kind(record(4, 0), Absent), Err(ViolationKind::Lost));
        assert_eq!(kind(record(4, 0), other), Err(ViolationKind::Lost));
        assert_eq!(kind(record(4, 0), damaged), Err(ViolationKind::Wrong));

        // Delete 5 acknowledged.
        assert_eq!(kind(record(5, 0), Absent), Ok(false));
        assert_eq!(kind(record(5, 0), Ours(2)), Err(ViolationKind::Stale));

        // Put 4 acknowledged, put 6 or delete 7 in doubt.
        assert_eq!(kind(record(4, 6), Ours(4)), Ok(false));
        assert_eq!(kind(record(4, 6), Ours(6)), Ok(true));
        assert_eq!(kind(record(4, 6), Absent), Err(ViolationKind::Lost));
        assert_eq!(kind(record(4, 7), Absent), Ok(true));
        assert_eq!(kind(record(4, 7), Ours(2)), Err(ViolationKind::Stale));
    }

    fn verify(records: u64) -> Verify {
        let options = Arc::new(Options {
            workload: crate::options::Workload::Put,
            records,
            deletes: 0,
            verify: true,
            ..Options::default()
        });
        let places = [None, None];
        Verify::new(
            options,
            1,
            &Routing::anywhere(),
            &places,
            (0, 1),
            &[],
            false,
            None,
            0,
        )
    }

    #[test]
    fn a_record_has_one_owner_and_one_request_under_way() {
        let mut verify = verify(10);
        let mut seen = std::collections::HashSet::new();
        for conn in 0..2 {
            for _ in 0..5 {
                let Next::Op(op) = verify.next(conn, None, 0) else {
                    panic!("five records each");
                };
                assert!(seen.insert(op.index));
            }
            assert_eq!(verify.next(conn, None, 0), Next::Wait);
        }
    }

    #[test]
    fn a_write_in_doubt_is_not_overtaken_before_its_deadline() {
        let mut verify = verify(2);
        let Next::Op(op) = verify.next(0, None, 0) else {
            panic!("a free record");
        };
        verify.done(0, &op, b"k", Outcome::InDoubt, 0);
        let second = 1_000_000_000;
        for _ in 0..100 {
            // Before the deadline, and after it until a read has settled the doubt: only reads.
            for now in [second, 100 * second] {
                match verify.next(0, None, now) {
                    Next::Op(op) => {
                        assert_eq!(op.kind, OpKind::Read);
                        verify.done(0, &op, b"k", Outcome::NotDone, now);
                    }
                    Next::Wait => {}
                    Next::Done => panic!("there is a record"),
                }
            }
        }
        let read = loop {
            if let Next::Op(op) = verify.next(0, None, 100 * second) {
                break op;
            }
        };
        verify.done(0, &read, b"k", Outcome::Absent, 100 * second);
        let Next::Op(op) = verify.next(0, None, 100 * second) else {
            panic!("the doubt is settled");
        };
        assert_eq!((op.kind, op.sequence), (OpKind::Update, 4));
        assert_eq!(verify.checks.violations, 0);
    }
}
