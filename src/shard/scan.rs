//! Scans: a page of rows in key order, merged over partitions and cores.
//!
//! A core merges the partitions it serves: one cursor each, all opened at one moment, so that a page
//! sees each partition consistently. The core that took the request up merges the cores' pages, of
//! this node and of those that lead the rest. Each page's tokens say which partitions are in it: one
//! that is in none or in two, because its leader changed just now, makes the client ask again.
//! A core that stopped at a limit has said nothing of what lies behind its last row, so the merge
//! stops at the lowest such row (the highest, backwards). The page's cursor is its last key: no
//! state is held between pages, and any core can go on from it.

use std::cmp::Ordering;
use std::rc::Rc;

use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::row::{self, split_row_key};
use ringbolt_engine::tree::Cursor;
use ringbolt_wire::codec::RowsBuilder;
use ringbolt_wire::message::{ErrorCode, Meta, PartitionId, Request, Response, Scan, Token};
use ringbolt_wire::slot::partition_of_prefix;

use super::Inner;
use super::counters::add;
use super::gather::Target;
use super::input::by_leader;
use super::mail::{Origin, Scope};
use super::read::decode_reply;
use super::reply::{Refusal, meta};
use super::trace::Wait;
use crate::resp::cursor;

/// Rows of a page whose request leaves it to the server.
const ROWS_DEFAULT: u32 = 100;

/// What a page must keep to.
#[derive(Debug, Clone)]
struct Page {
    from: Vec<u8>,
    /// Empty: to the end.
    to: Vec<u8>,
    reverse: bool,
    keys_only: bool,
    rows: u32,
    bytes: usize,
}

impl Page {
    fn of(scan: &Scan<'_>, rows_max: u32, bytes: usize) -> Self {
        let mut from = scan.start.max(scan.prefix).to_vec();
        let mut to = scan.end.to_vec();
        if !scan.prefix.is_empty() {
            let after = row::successor(scan.prefix);
            if to.is_empty() || after < to {
                to = after;
            }
        }
        if let Some((_, last)) = scan.cursor.split_first() {
            if scan.reverse {
                if to.is_empty() || last < to.as_slice() {
                    to = last.to_vec();
                }
            } else {
                let mut next = last.to_vec();
                next.push(0);
                from = from.max(next);
            }
        }
        let rows = match scan.limit {
            0 => ROWS_DEFAULT,
            limit => limit,
        };
        Self {
            from,
            to,
            reverse: scan.reverse,
            keys_only: scan.keys_only,
            rows: rows.min(rows_max),
            bytes,
        }
    }

    /// Whether no key can be in it.
    fn is_empty(&self) -> bool {
        !self.to.is_empty() && self.from >= self.to
    }

    fn order(&self, a: &[u8], b: &[u8]) -> Ordering {
        if self.reverse { b.cmp(a) } else { a.cmp(b) }
    }
}

/// What a cursor begins with that goes on with a key.
const AT_KEY: u8 = 1;
/// What one begins with that goes on with the number of a Redis client's cursor, which the core
/// remembers that it is sent to.
const NAMED: u8 = 2;

/// A page's cursor: the last key.
pub(super) fn cursor_of(key: &[u8]) -> Vec<u8> {
    let mut cursor = Vec::with_capacity(key.len() + 1);
    cursor.push(AT_KEY);
    cursor.extend_from_slice(key);
    cursor
}

/// The cursor that a core remembers under this number.
pub(super) fn named_cursor(number: u64) -> Vec<u8> {
    let mut cursor = vec![NAMED];
    cursor.extend_from_slice(&number.to_le_bytes());
    cursor
}

fn named(cursor: &[u8]) -> Option<u64> {
    let (first, number) = cursor.split_first()?;
    let number = number.try_into().ok()?;
    (*first == NAMED).then_some(u64::from_le_bytes(number))
}

/// One row of another core's page.
type SharedRow<'a> = (&'a [u8], Meta, &'a [u8]);

/// One core's page while pages are merged.
struct Share<'a> {
    rows: std::iter::Peekable<std::vec::IntoIter<SharedRow<'a>>>,
    /// Its last key if it may have more behind it.
    stops_at: Option<&'a [u8]>,
}

/// Why a page could not be made as asked.
enum Stop {
    Refused(Refusal),
    /// A row of this partition expires in this moment.
    Expiring(PartitionId),
}

impl<E: Env> Inner<E> {
    pub(super) fn scan(
        self: &Rc<Self>,
        origin: Origin,
        scope: Scope,
        scan: &Scan<'_>,
        bytes: &[u8],
    ) {
        add(&self.counters.scan_pages_total, 1);
        if let Some(first) = scan.cursor.first()
            && *first != AT_KEY
            && named(scan.cursor).is_none()
        {
            let refusal = Refusal::new(
                ErrorCode::BadRequest,
                0,
                "the cursor is not one of this server's: start the scan anew",
            );
            return self.refuse(&origin, &refusal);
        }
        if scope == Scope::Share {
            return self.scan_here(origin, scope, scan, bytes);
        }
        if let Some(number) = named(scan.cursor) {
            return self.scan_named(origin, scope, scan, number);
        }
        // A prefix with a whole tag is in one partition, so one core has it all.
        if let Some(partition) = partition_of_prefix(scan.prefix, self.config.map.partitions()) {
            if self.owned(partition, origin, bytes)
                && self.serves_here(partition, by_leader(&scan.read), &origin, scope, bytes)
            {
                self.scan_here(origin, scope, scan, bytes);
            }
            return;
        }
        let mut targets: Vec<Target> = if scope == Scope::Node {
            self.cores_here()
        } else {
            let partitions = 0..self.config.map.partitions();
            partitions
                .map(|partition| self.target_of(partition, by_leader(&scan.read)))
                .collect()
        };
        targets.sort_unstable();
        targets.dedup();
        if let [target] = targets[..]
            && target == self.target_here()
        {
            return self.scan_here(origin, scope, scan, bytes);
        }
        let limits = &self.config.limits;
        let page = Page::of(scan, limits.scan_rows_max, limits.scan_page_bytes);
        let this = Rc::clone(self);
        let frame = bytes.to_vec();
        self.env.spawn(TaskClass::Foreground, async move {
            let asked: Vec<_> = targets.iter().map(|&target| (target, &frame[..])).collect();
            let replies = this.ask(&asked, Scope::Share, &origin).await;
            let mut origin = origin;
            origin.trace.mark(Wait::Forward, this.now_us());
            this.merge_pages(&origin, scope, &page, &replies);
        });
    }

    /// Goes on from the position that a Redis client's cursor names: on the core that remembers it.
    fn scan_named(self: &Rc<Self>, origin: Origin, scope: Scope, scan: &Scan<'_>, number: u64) {
        let core = cursor::Cursor::of(number).map(|cursor| cursor.core);
        let core = core.filter(|&core| core < self.config.map.cores());
        let mut frame = Vec::new();
        if let Some(core) = core.filter(|&core| core != self.config.core) {
            let request = Request::Scan(*scan);
            if request.encode(origin.request_id, 0, &mut frame).is_ok() {
                self.parcels.borrow_mut()[usize::from(core)].request(origin, scope, &frame);
            }
            return;
        }
        let position = self.named_position(number);
        let cursor = position.map(|key| cursor_of(&key));
        let scan = cursor.as_ref().map(|cursor| Scan { cursor, ..*scan });
        let request = scan.map(Request::Scan);
        match request.map(|request| request.encode(origin.request_id, 0, &mut frame)) {
            Some(Ok(())) => self.execute_frame(origin, scope, &frame),
            _ => self.refuse(&origin, &forgotten()),
        }
    }

    /// The partitions that this core answers for.
    pub(super) fn served(&self, by_leader: bool) -> Vec<PartitionId> {
        let replicas = self.replicas.borrow();
        let serves = |partition: &PartitionId| match &replicas[usize::from(*partition)] {
            Some(replica) => !by_leader || replica.serves(),
            None => false,
        };
        let owned = self.config.map.owned_by(self.config.core);
        owned.filter(serves).collect()
    }

    /// This core's share of a page.
    fn scan_here(self: &Rc<Self>, origin: Origin, scope: Scope, scan: &Scan<'_>, bytes: &[u8]) {
        let limits = &self.config.limits;
        let page = Page::of(scan, limits.scan_rows_max, limits.scan_page_bytes);
        let partitions: Vec<PartitionId> =
            match partition_of_prefix(scan.prefix, self.config.map.partitions()) {
                Some(one) => vec![one],
                None => {
                    let served = self.served(by_leader(&scan.read));
                    let all = usize::from(self.config.map.partitions());
                    if scope == Scope::Whole && served.len() < all {
                        return self.refuse(&origin, &incomplete());
                    }
                    served
                }
            };
        let mut behind = Vec::new();
        let mut tokens = Vec::with_capacity(partitions.len());
        let mut cursors = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let (seen, at) = match self.view(partition, scan.keyspace, scan.read.level) {
                Ok(view) => view,
                Err(refusal) => return self.refuse(&origin, &refusal),
            };
            let index = match self.wanted(&origin, partition, &scan.read, seen) {
                Ok(index) => index,
                Err(refusal) => return self.refuse(&origin, &refusal),
            };
            behind.extend(index.map(|index| (partition, index)));
            tokens.push(seen);
            if !page.is_empty() {
                let (from, to) =
                    row::keyspace_range(partition, scan.keyspace, &page.from, &page.to);
                let tree = self.engine.tree();
                let cursor = tree.cursor(&from, &to, page.reverse, at);
                cursors.push((partition, cursor.with_deadline(origin.deadline)));
            }
        }
        if !behind.is_empty() {
            return self.defer(&origin, scope, behind, bytes);
        }
        let this = Rc::clone(self);
        let (frame, level) = (bytes.to_vec(), scan.read.level);
        self.env.spawn(TaskClass::Foreground, async move {
            let seen = tokens.clone();
            let mut built = Vec::new();
            let made = this
                .build_page(&origin, &page, &mut cursors, tokens, &mut built)
                .await;
            let mut origin = origin;
            origin.trace.mark(Wait::Disk, this.now_us());
            if made.is_ok() {
                let proven = this.prove_reads(seen, level).await;
                origin.trace.mark(Wait::Proof, this.now_us());
                if let Err(refusal) = proven {
                    return this.refuse(&origin, &refusal);
                }
            }
            match made {
                Ok(()) => this.reply(&origin, |out| out.append(&mut built)),
                Err(Stop::Refused(refusal)) => this.refuse(&origin, &refusal),
                Err(Stop::Expiring(partition)) => {
                    this.defer_for_time(&origin, scope, partition, &frame);
                }
            }
        });
    }

    async fn build_page(
        &self,
        origin: &Origin,
        page: &Page,
        cursors: &mut [(PartitionId, Cursor<E>)],
        tokens: Vec<Token>,
        out: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let refused = |error| Stop::Refused(Refusal::from(error));
        for (_, cursor) in &mut *cursors {
            cursor.next().await.map_err(refused)?;
        }
        let mut rows = RowsBuilder::begin(out, origin.request_id);
        let mut last = Vec::new();
        let more = loop {
            let Some(at) = lowest(cursors, page) else {
                break false;
            };
            let (partition, cursor) = &mut cursors[at];
            let Some((row_key, row, value)) = cursor.current() else {
                break false;
            };
            if self.expires_here(*partition, &row) {
                return Err(Stop::Expiring(*partition));
            }
            let key = split_row_key(row_key).map_or(row_key, |parts| parts.key);
            let value = if page.keys_only { &[][..] } else { value };
            let full = rows.count() >= page.rows
                || (rows.count() > 0
                    && rows.frame_bytes(out) + RowsBuilder::row_bytes(key, value) > page.bytes);
            if full {
                break true;
            }
            rows.push(out, key, &meta(&row), value);
            last.clear();
            last.extend_from_slice(key);
            cursor.next().await.map_err(refused)?;
            self.env.yield_if_needed().await;
        };
        let cursor = if more { cursor_of(&last) } else { Vec::new() };
        rows.finish(out, tokens, &cursor);
        Ok(())
    }

    /// Merges the cores' pages into one.
    fn merge_pages(&self, origin: &Origin, scope: Scope, page: &Page, replies: &[Vec<u8>]) {
        let mut shares = Vec::with_capacity(replies.len());
        let mut tokens = Vec::new();
        for reply in replies {
            match decode_reply(reply) {
                Ok(Response::Rows {
                    tokens: seen,
                    rows,
                    cursor,
                }) => {
                    tokens.extend(seen);
                    shares.push(Share {
                        stops_at: cursor.split_first().map(|(_, key)| key),
                        rows: rows.into_iter().peekable(),
                    });
                }
                other => return self.pass_on(origin, other),
            }
        }
        let mut seen: Vec<PartitionId> =
            tokens.iter().map(|token: &Token| token.partition).collect();
        seen.sort_unstable();
        if scope == Scope::Whole && !seen.into_iter().eq(0..self.config.map.partitions()) {
            return self.refuse(origin, &incomplete());
        }
        let stop = shares
            .iter()
            .filter_map(|share| share.stops_at)
            .min_by(|a, b| page.order(a, b));
        self.reply(origin, |out| {
            let mut rows = RowsBuilder::begin(out, origin.request_id);
            let mut last: &[u8] = &[];
            let more = loop {
                let next = shares
                    .iter_mut()
                    .filter_map(|share| share.rows.peek().copied().map(|row| (row, share)))
                    .min_by(|((a, ..), _), ((b, ..), _)| page.order(a, b));
                let Some(((key, meta, value), share)) = next else {
                    break stop.is_some();
                };
                let behind = stop.is_some_and(|stop| page.order(key, stop) == Ordering::Greater);
                let full = rows.count() >= page.rows
                    || (rows.count() > 0
                        && rows.frame_bytes(out) + RowsBuilder::row_bytes(key, value) > page.bytes);
                if behind || full {
                    break true;
                }
                rows.push(out, key, &meta, value);
                last = key;
                share.rows.next();
            };
            let cursor = if more { cursor_of(last) } else { Vec::new() };
            rows.finish(out, tokens, &cursor);
        });
    }
}

/// The cursor's position is not remembered.
pub(super) fn forgotten() -> Refusal {
    Refusal::new(
        ErrorCode::BadRequest,
        0,
        "invalid cursor: it is none of this node's, or was not used for too long: begin again",
    )
}

/// A page would lack a partition, or have it twice.
fn incomplete() -> Refusal {
    Refusal::retry(
        ErrorCode::Unavailable,
        50,
        "a partition's leader changed while the page was made: try again",
    )
}

/// The cursor whose row comes next.
fn lowest<E: Env>(cursors: &[(PartitionId, Cursor<E>)], page: &Page) -> Option<usize> {
    // Partition prefixes differ: only the user keys are compared.
    let key = |at: usize| {
        let (row_key, ..) = cursors[at].1.current()?;
        split_row_key(row_key).map(|parts| parts.key)
    };
    (0..cursors.len())
        .filter_map(|at| key(at).map(|key| (at, key)))
        .min_by(|(_, a), (_, b)| page.order(a, b))
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use ringbolt_wire::message::ReadOptions;

    use super::*;

    fn scan<'a>(prefix: &'a [u8], cursor: &'a [u8], reverse: bool) -> Scan<'a> {
        Scan {
            keyspace: 0,
            read: ReadOptions::default(),
            prefix,
            start: b"",
            end: b"",
            reverse,
            keys_only: false,
            limit: 0,
            cursor,
        }
    }

    #[test]
    fn a_page_goes_on_behind_its_cursor_both_ways() {
        let page = Page::of(&scan(b"ab", b"\x01abc", false), 1000, 1 << 20);
        assert_eq!(
            (page.from.as_slice(), page.to.as_slice()),
            (&b"abc\0"[..], &b"ac"[..])
        );
        let page = Page::of(&scan(b"ab", b"\x01abc", true), 1000, 1 << 20);
        assert_eq!(
            (page.from.as_slice(), page.to.as_slice()),
            (&b"ab"[..], &b"abc"[..])
        );
        assert_eq!(page.rows, ROWS_DEFAULT);
    }

    #[test]
    fn an_impossible_range_is_empty() {
        let mut impossible = scan(b"ab", b"", false);
        impossible.end = b"aa";
        assert!(Page::of(&impossible, 10, 10).is_empty());
    }
}
