//! `SCAN`, `KEYS`, `DBSIZE` and `RANDOMKEY`: pages of keys, in key order, from the shard's own scans.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_wire::KEY_BYTES_MAX;
use ringbolt_wire::message::{ErrorCode, ReadOptions, Request, Response, Scan};
use ringbolt_wire::slot::partition_of_prefix;

use super::super::Inner;
use super::super::mail::Scope;
use super::super::read::decode_reply;
use super::super::reply::Refusal;
use super::super::scan::{cursor_of, forgotten, named_cursor};
use super::input::Taken;
use super::task::refusal_of;
use super::{Asked, Job, refused};
use crate::resp::ClusterMode;
use crate::resp::command::ScanPage;
use crate::resp::connection::Touches;
use crate::resp::cursor::Cursor;
use crate::resp::{glob, reply};

/// How long `DBSIZE` may count.
const COUNT_MAX: Duration = Duration::from_secs(60);
/// How many keys `RANDOMKEY` chooses from.
const CHOICE: u32 = 16;
/// Bytes of the key that `RANDOMKEY` begins to look at.
const RANDOM_KEY_BYTES: usize = 16;

/// A page of keys: those on it, and where the next one begins (empty for none).
struct Page {
    keys: Vec<Box<[u8]>>,
    next: Vec<u8>,
}

impl<E: Env> Inner<E> {
    /// Of which nodes the keys are told: clients that know clusters ask each node for its own.
    fn scan_scope(&self) -> Scope {
        match self.resp.options.mode {
            ClusterMode::Forward => Scope::Whole,
            ClusterMode::Moved => Scope::Node,
        }
    }

    /// Runs a command of several pages, alone on its connection.
    fn run_scan<F>(
        self: &Rc<Self>,
        asked: &Asked,
        run: impl FnOnce(Rc<Self>, Job) -> F + 'static,
    ) -> Taken
    where
        F: Future<Output = Result<Vec<u8>, Refusal>>,
    {
        if self.must_wait(asked.key, &Touches::ALL) {
            return Taken::MustWait;
        }
        let job = self.begin_job(asked, Touches::ALL);
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let reply = run(Rc::clone(&this), job).await;
            this.finish_job(&job, reply.unwrap_or_else(|refusal| refused(&refusal)));
        });
        Taken::Yes
    }

    /// The keys of a scan's page.
    async fn keys_of(
        self: &Rc<Self>,
        job: &Job,
        scan: &Scan<'_>,
        scope: Scope,
    ) -> Result<Page, Refusal> {
        if scope == Scope::Node
            && let Some(partition) = partition_of_prefix(scan.prefix, self.config.map.partitions())
            && self.config.cluster.leader(partition) != self.config.cluster.here()
        {
            return Ok(Page {
                keys: Vec::new(),
                next: Vec::new(),
            });
        }
        let request = Request::Scan(*scan);
        let frame = self.request_for(job, &request, scope).await?;
        match decode_reply(&frame)? {
            Response::Rows { rows, cursor, .. } => Ok(Page {
                keys: rows.iter().map(|(key, ..)| Box::from(*key)).collect(),
                next: cursor.to_vec(),
            }),
            other => Err(refusal_of(&other)),
        }
    }

    pub(super) fn scan_page(self: &Rc<Self>, asked: &Asked, page: &ScanPage<'_>) -> Taken {
        let (pattern, count) = (Box::<[u8]>::from(page.pattern), page.count);
        let (number, strings) = (page.cursor, page.strings);
        self.run_scan(asked, move |this, job| async move {
            let begun = (number != 0).then(|| Cursor::of(number)).flatten();
            let position = match (number, begun) {
                (0, _) => Vec::new(),
                (_, Some(cursor)) => this.position_of(cursor).ok_or_else(forgotten)?,
                (_, None) => return Err(forgotten()),
            };
            let scan = Scan {
                prefix: prefix_of(&pattern),
                limit: count.min(this.config.limits.scan_rows_max),
                cursor: &position,
                ..keys_only(job.asked.keyspace)
            };
            let mut found = this.keys_of(&job, &scan, this.scan_scope()).await?;
            found
                .keys
                .retain(|key| strings && glob::matches(&pattern, key));
            let mut cursors = this.resp.cursors.borrow_mut();
            let next = match found.next.split_first() {
                Some((_, key)) => cursors.remember(begun, key).number(),
                None => {
                    if let Some(begun) = begun {
                        cursors.finished(begun);
                    }
                    0
                }
            };
            let mut out = Vec::new();
            reply::array(&mut out, 2);
            reply::bulk(&mut out, next.to_string().as_bytes());
            all(&mut out, &found.keys);
            Ok(out)
        })
    }

    /// A scan's cursor as the shard has it: of a position that this core remembers, or one that tells the
    /// core which does.
    fn position_of(&self, cursor: Cursor) -> Option<Vec<u8>> {
        if cursor.core != self.config.core {
            let elsewhere = cursor.core < self.config.map.cores();
            return elsewhere.then(|| named_cursor(cursor.number()));
        }
        let mut cursors = self.resp.cursors.borrow_mut();
        cursors.position(cursor).map(cursor_of)
    }

    /// The key that a cursor of this core names, which another core was asked for.
    pub(in super::super) fn named_position(&self, number: u64) -> Option<Vec<u8>> {
        let cursor = Cursor::of(number).filter(|cursor| cursor.core == self.config.core)?;
        let mut cursors = self.resp.cursors.borrow_mut();
        cursors.position(cursor).map(<[u8]>::to_vec)
    }

    pub(super) fn all_keys(self: &Rc<Self>, asked: &Asked, pattern: &[u8]) -> Taken {
        let pattern = Box::<[u8]>::from(pattern);
        self.run_scan(asked, move |this, job| async move {
            let bytes_max = this.config.limits.frame_bytes_max() as usize;
            let keys_max = this.resp.options.keys_max;
            let (mut found, mut bytes) = (Vec::new(), 0);
            let mut position = Vec::new();
            loop {
                let scan = Scan {
                    prefix: prefix_of(&pattern),
                    limit: this.config.limits.scan_rows_max,
                    cursor: &position,
                    ..keys_only(job.asked.keyspace)
                };
                let page = this.keys_of(&job, &scan, this.scan_scope()).await?;
                let matching = page.keys.into_iter();
                for key in matching.filter(|key| glob::matches(&pattern, key)) {
                    bytes += key.len();
                    found.push(key);
                }
                if found.len() > keys_max || bytes > bytes_max {
                    let text = format!(
                        "more than {keys_max} keys, or {bytes_max} bytes of them, match \
                         (resp.keys_max): use SCAN"
                    );
                    return Err(Refusal::new(ErrorCode::TooLarge, keys_max as u64, text));
                }
                position = page.next;
                if position.is_empty() {
                    break;
                }
            }
            let mut out = Vec::new();
            all(&mut out, &found);
            Ok(out)
        })
    }

    pub(super) fn database_size(self: &Rc<Self>, asked: &Asked) -> Taken {
        self.run_scan(asked, move |this, mut job| async move {
            job.deadline = this.env.now() + COUNT_MAX;
            let (mut count, mut position) = (0, Vec::new());
            loop {
                let scan = Scan {
                    limit: this.config.limits.scan_rows_max,
                    cursor: &position,
                    ..keys_only(job.asked.keyspace)
                };
                let page = this.keys_of(&job, &scan, this.scan_scope()).await?;
                count += page.keys.len() as i64;
                position = page.next;
                if position.is_empty() {
                    break;
                }
                if this.env.now() > job.deadline {
                    let text = "counting the keys takes too long: see the metrics";
                    return Err(Refusal::new(ErrorCode::DeadlineExceeded, 0, text));
                }
            }
            let mut out = Vec::new();
            reply::integer(&mut out, count);
            Ok(out)
        })
    }

    pub(super) fn random_key(self: &Rc<Self>, asked: &Asked) -> Taken {
        self.run_scan(asked, move |this, job| async move {
            let ends = async |reverse| {
                let scan = Scan {
                    limit: 1,
                    reverse,
                    ..keys_only(job.asked.keyspace)
                };
                let page = this.keys_of(&job, &scan, this.scan_scope()).await?;
                Ok::<_, Refusal>(page.keys.into_iter().next())
            };
            let (first, last) = (ends(false).await?, ends(true).await?);
            let mut out = Vec::new();
            let (Some(first), Some(last)) = (first, last) else {
                out.extend_from_slice(reply::null(job.asked.version));
                return Ok(out);
            };
            let start = between(&first, &last, || this.env.random());
            let scan = Scan {
                start: &start,
                limit: CHOICE,
                ..keys_only(job.asked.keyspace)
            };
            let page = this.keys_of(&job, &scan, this.scan_scope()).await?;
            let at = this.env.random() as usize % page.keys.len().max(1);
            reply::bulk(&mut out, page.keys.get(at).unwrap_or(&last));
            Ok(out)
        })
    }
}

/// A scan over all keys of a keyspace.
fn keys_only(keyspace: u32) -> Scan<'static> {
    Scan {
        keyspace,
        read: ReadOptions::default(),
        prefix: b"",
        start: b"",
        end: b"",
        reverse: false,
        keys_only: true,
        limit: 0,
        cursor: b"",
    }
}

/// What every key that matches begins with, as far as a key can.
fn prefix_of(pattern: &[u8]) -> &[u8] {
    let prefix = glob::literal_prefix(pattern);
    &prefix[..prefix.len().min(KEY_BYTES_MAX as usize)]
}

fn all(out: &mut Vec<u8>, keys: &[Box<[u8]>]) {
    reply::array(out, keys.len());
    for key in keys {
        reply::bulk(out, key);
    }
}

/// A random key that is not below the first and, but for what cannot be, not above the last: what both begin
/// with, a byte between theirs, and random ones.
fn between(first: &[u8], last: &[u8], mut random: impl FnMut() -> u64) -> Vec<u8> {
    let same = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    let mut key = first[..same].to_vec();
    let low = first.get(same).copied().unwrap_or(0);
    let high = last.get(same).copied().unwrap_or(low).max(low);
    key.push(low + (random() % (u64::from(high - low) + 1)) as u8);
    while key.len() < same + RANDOM_KEY_BYTES {
        key.extend_from_slice(&random().to_le_bytes());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_start_lies_within_what_there_is() {
        let mut state = 1u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        };
        for _ in 0..1000 {
            let key = between(b"key:100", b"key:900", &mut random);
            assert!(
                key.starts_with(b"key:") && (b'1'..=b'9').contains(&key[4]),
                "{key:?}"
            );
        }
        between(b"a", b"a", &mut random);
        between(b"a", b"ab", &mut random);
    }
}
