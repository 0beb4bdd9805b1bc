//! Reads that come together wait for memory together.
//!
//! A read of a row that is in memory is for a good part waiting: for the slot of the memtable's index, then
//! for the row, neither of which is in the CPU's caches where there are many. What a client sends
//! without waiting for answers arrives in one piece. Before the first request of such a piece is executed,
//! the rows that it and those behind it ask for are fetched side by side. The requests themselves are
//! verified and executed one after the other, as ever: this is only a guess of what they will want.

use ringbolt_engine::env::Env;
use ringbolt_engine::memtable::WARMED_MAX;
use ringbolt_wire::frame::{self, Peek};
use ringbolt_wire::message::{KeyspaceId, Request};

use super::Inner;
use crate::resp::parse;

/// Frames that are looked at for reads: among many that are none, few are to be gained.
const FRAMES_MAX: usize = 32;

/// The keys of some reads that are about to be executed.
#[derive(Default)]
struct Ahead<'a> {
    keys: [(KeyspaceId, &'a [u8]); WARMED_MAX],
    count: usize,
}

impl<'a> Ahead<'a> {
    fn is_full(&self) -> bool {
        self.count == WARMED_MAX
    }

    fn push(&mut self, keyspace: KeyspaceId, key: &'a [u8]) {
        self.keys[self.count] = (keyspace, key);
        self.count += 1;
    }
}

impl<E: Env> Inner<E> {
    /// Looks at the next whole frames of `bytes`, and fetches the rows that are asked for. Returns how
    /// many bytes it has looked at.
    pub(super) fn look_ahead(&self, bytes: &[u8], limit: u32) -> usize {
        let (mut ahead, mut at) = (Ahead::default(), 0);
        for _ in 0..FRAMES_MAX {
            let rest = &bytes[at..];
            let Ok(Peek::Frame { len }) = frame::peek(rest, limit) else {
                break;
            };
            if ahead.is_full() {
                break;
            }
            if let Some((keyspace, key)) = Request::guess_get(&rest[..len]) {
                ahead.push(keyspace, key);
            }
            at += len;
        }
        self.fetch(&ahead);
        at
    }

    /// The same for a Redis client's commands, up to one that is no `GET`.
    pub(super) fn look_ahead_commands(&self, bytes: &[u8], keyspace: KeyspaceId) -> usize {
        let (mut ahead, mut at) = (Ahead::default(), 0);
        while !ahead.is_full()
            && let Some((key, len)) = parse::guess_get(&bytes[at..])
        {
            ahead.push(keyspace, key);
            at += len;
        }
        self.fetch(&ahead);
        at
    }

    fn fetch(&self, ahead: &Ahead<'_>) {
        // One alone would only be looked up twice.
        if ahead.count > 1 {
            let keys = ahead.keys[..ahead.count].iter().copied();
            self.engine.tree().warm(keys);
        }
    }
}
