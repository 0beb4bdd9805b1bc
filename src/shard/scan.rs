//! Scans: a page of rows in key order, merged over partitions and cores.
//!
//! A core merges the partitions it serves: one cursor each, all opened at one moment, so that a page
//! sees each partition consistently. The core that took the request up merges the cores' pages, of
//! this node and of those that lead the rest. Each page's tokens say which partitions are in it. One
//! that is in two (both nodes hold it, or its leader changed just now) is taken from one page only: a key
//! says which partition it is of. One that is in none was asked of a node that does not lead it: the
//! pages are asked for once more, where partitions without a replica here are believed to be led by then
//! ([`super::forward`]). In the end the client is to ask again.
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
use ringbolt_wire::partition_of;
use ringbolt_wire::slot::partition_of_prefix;

use super::Inner;
use super::counters::add;
use super::forward::{ASK_AGAIN, is_elsewhere};
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

/// The cores' pages that one is made of.
struct Pages<'a> {
    shares: Vec<Share<'a>>,
    /// One for each partition.
    tokens: Vec<Token>,
    /// By partition: whose rows of it count, of the shares.
    taken_from: Vec<Option<usize>>,
    /// Whether a partition is in more than one of them.
    has_doubles: bool,
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
        let by_leader = by_leader(&scan.read);
        let plan = self.plan(scope, by_leader);
        if plan.iter().all(|target| *target == self.target_here()) {
            return self.scan_here(origin, scope, scan, bytes);
        }
        let limits = &self.config.limits;
        let page = Page::of(scan, limits.scan_rows_max, limits.scan_page_bytes);
        let this = Rc::clone(self);
        let frame = bytes.to_vec();
        self.env.spawn(TaskClass::Foreground, async move {
            this.scan_all(origin, (scope, by_leader), plan, &page, &frame)
                .await;
        });
    }

    /// Which cores to ask for their shares of a page: one for each partition, or those of this node.
    fn plan(&self, scope: Scope, by_leader: bool) -> Vec<Target> {
        if scope == Scope::Node {
            return self.cores_here();
        }
        let partitions = 0..self.config.map.partitions();
        partitions
            .map(|partition| self.target_of(partition, by_leader))
            .collect()
    }

    /// Asks for the cores' pages and merges them. Where a partition was not led, or its node could not be
    /// reached, others are asked, as often as a partition has holders.
    async fn scan_all(
        self: &Rc<Self>,
        mut origin: Origin,
        (scope, by_leader): (Scope, bool),
        mut plan: Vec<Target>,
        page: &Page,
        frame: &[u8],
    ) {
        let cluster = &self.config.cluster;
        let partitions = self.config.map.partitions();
        let holders = (0..partitions).map(|partition| cluster.holders(partition).len());
        let mut rounds_left = holders.max().unwrap_or_default();
        loop {
            let mut targets = plan.clone();
            targets.sort_unstable();
            targets.dedup();
            let asked: Vec<_> = targets.iter().map(|&target| (target, frame)).collect();
            let replies = self.ask(&asked, Scope::Share, &origin).await;
            origin.trace.mark(Wait::Forward, self.now_us());
            let missed = match pages_of(scope, partitions, &replies) {
                Ok(pages) => return self.merge_pages(&origin, page, pages),
                Err(missed) => missed,
            };
            let code = match &missed {
                Ok(Response::Error(error)) => error.code,
                Ok(_) => ErrorCode::ShardFailed,
                Err(refusal) => refusal.code,
            };
            if scope != Scope::Whole || !is_elsewhere(code) {
                return self.pass_on(&origin, missed);
            }
            self.learn_from_pages(by_leader, &plan, &targets, &replies);
            rounds_left = rounds_left.saturating_sub(1);
            if rounds_left == 0 {
                return self.pass_on(&origin, missed);
            }
            let before = std::mem::replace(&mut plan, self.plan(scope, by_leader));
            if plan == before {
                self.env.sleep(ASK_AGAIN).await;
            }
        }
    }

    /// Takes from the shares of a page that could not be made who leads what is not held here.
    fn learn_from_pages(
        &self,
        by_leader: bool,
        plan: &[Target],
        targets: &[Target],
        replies: &[Vec<u8>],
    ) {
        let mut told_by = vec![None; plan.len()];
        for (target, reply) in targets.iter().zip(replies) {
            let Ok(Response::Rows { tokens, .. }) = decode_reply(reply) else {
                continue;
            };
            for token in tokens {
                if let Some(told_by) = told_by.get_mut(usize::from(token.partition)) {
                    *told_by = Some(target.node);
                }
            }
        }
        let cluster = &self.config.cluster;
        for ((target, told_by), partition) in plan.iter().zip(told_by).zip(0..) {
            match told_by {
                Some(leader) if by_leader => cluster.note_leader_elsewhere(partition, leader),
                Some(_) => {}
                None => cluster.note_not_led_by(partition, target.node),
            }
        }
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
    fn merge_pages(&self, origin: &Origin, page: &Page, pages: Pages<'_>) {
        let Pages {
            mut shares,
            tokens,
            taken_from,
            has_doubles,
        } = pages;
        let partitions = self.config.map.partitions();
        let is_double = |at: usize, key: &[u8]| {
            has_doubles && taken_from[usize::from(partition_of(key, partitions))] != Some(at)
        };
        let stop = shares
            .iter()
            .filter_map(|share| share.stops_at)
            .min_by(|a, b| page.order(a, b));
        self.reply(origin, |out| {
            let mut rows = RowsBuilder::begin(out, origin.request_id);
            let mut last: &[u8] = &[];
            let goes_on_behind = loop {
                let next = shares
                    .iter_mut()
                    .enumerate()
                    .filter_map(|(at, share)| Some((share.rows.peek().copied()?, at, share)))
                    .min_by(|((a, ..), ..), ((b, ..), ..)| page.order(a, b));
                let Some(((key, meta, value), at, share)) = next else {
                    break stop;
                };
                if stop.is_some_and(|stop| page.order(key, stop) == Ordering::Greater) {
                    break stop;
                }
                if is_double(at, key) {
                    share.rows.next();
                    continue;
                }
                let full = rows.count() >= page.rows
                    || (rows.count() > 0
                        && rows.frame_bytes(out) + RowsBuilder::row_bytes(key, value) > page.bytes);
                if full {
                    break Some(last);
                }
                rows.push(out, key, &meta, value);
                last = key;
                share.rows.next();
            };
            let cursor = goes_on_behind.map(cursor_of).unwrap_or_default();
            rows.finish(out, tokens, &cursor);
        });
    }
}

/// The cores' pages of one page. Fails with the first answer that is none, or if a partition is in none.
fn pages_of(
    scope: Scope,
    partitions: PartitionId,
    replies: &[Vec<u8>],
) -> Result<Pages<'_>, Result<Response<'_>, Refusal>> {
    let mut pages = Pages {
        shares: Vec::with_capacity(replies.len()),
        tokens: Vec::new(),
        taken_from: vec![None; usize::from(partitions)],
        has_doubles: false,
    };
    for (at, reply) in replies.iter().enumerate() {
        let (seen, rows, cursor) = match decode_reply(reply) {
            Ok(Response::Rows {
                tokens,
                rows,
                cursor,
            }) => (tokens, rows, cursor),
            other => return Err(other),
        };
        pages.shares.push(Share {
            stops_at: cursor.split_first().map(|(_, key)| key),
            rows: rows.into_iter().peekable(),
        });
        for token in seen {
            match pages.taken_from.get_mut(usize::from(token.partition)) {
                Some(from @ None) => {
                    *from = Some(at);
                    pages.tokens.push(token);
                }
                _ => pages.has_doubles = true,
            }
        }
    }
    if scope == Scope::Whole && pages.taken_from.contains(&None) {
        return Err(Err(incomplete()));
    }
    Ok(pages)
}

/// The cursor's position is not remembered.
pub(super) fn forgotten() -> Refusal {
    Refusal::new(
        ErrorCode::BadRequest,
        0,
        "invalid cursor: it is none of this node's, or was not used for too long: begin again",
    )
}

/// A page would lack a partition.
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
