//! The row that holds a partition's results: in the keyspace that
//! [`crate::tree::TreeOptions::own_keyspace`] names, under the key `0x00 'w'`, with the index of the
//! newest entry applied as its version.
//!
//! ```text
//! value: | kind u8 = 1 | all u8 | clients | for each client:
//!        | id u64 LE | unknown u8 | forgotten | results | for each result, by index:
//!            | sequence, delta | term, delta | index, delta | length | outcome |
//! ```
//!
//! What has no width is a base-128 number; a delta counts from the same client's result before, from
//! zeros for its first. `all` is 1 if no result was ever forgotten. `unknown` is 1 if any of the client's
//! may have been, otherwise only those up to `forgotten` were. Clients are in the order of their first
//! result; those without one are left out.

use std::time::Duration;

use super::{Client, REPEAT_WITHIN, RESULTS_KEPT, Writers};
use crate::entry::{LogId, OUTCOME_BYTES_MAX};
use crate::table::varint;

/// The row's key.
pub const KEY: [u8; 2] = [0, b'w'];

const KIND: u8 = 1;

/// Whether it is the key of a row that an entry in a segment of version 2 sets in place of an outcome, one
/// for each result. Nothing reads these rows any more.
pub(crate) fn is_of_version_2(key: &[u8]) -> bool {
    matches!(key, [0, b'w', _, _])
}

impl Writers {
    /// The row's value.
    pub(crate) fn encode(&self, now: Duration, out: &mut Vec<u8>) {
        let mut clients: Vec<_> = self.clients.iter().filter(|(_, c)| c.applied > 0).collect();
        clients.sort_unstable_by_key(|(_, client)| client.records[0].id);
        out.reserve(8 * self.order.len());
        out.push(KIND);
        out.push(u8::from(
            self.order.len() < RESULTS_KEPT && now >= self.forgot_until,
        ));
        varint::put(clients.len() as u64, out);
        for (id, client) in clients {
            out.extend_from_slice(&id.to_le_bytes());
            out.push(u8::from(now < client.unknown_until));
            varint::put(client.forgotten, out);
            varint::put(client.applied as u64, out);
            let (mut sequence, mut before) = (0, LogId::default());
            for record in client.records.iter().take(client.applied) {
                varint::put_delta(record.sequence, sequence, out);
                varint::put_delta(record.id.term, before.term, out);
                varint::put_delta(record.id.index, before.index, out);
                varint::put(record.outcome.len() as u64, out);
                out.extend_from_slice(&record.outcome);
                (sequence, before) = (record.sequence, record.id);
            }
        }
    }

    /// What a row's value says, to whoever begins with it at `now`; `None` if it is no such row.
    pub(crate) fn decode(value: &[u8], now: Duration) -> Option<Self> {
        let mut writers = Self::default();
        let mut at = 0;
        if take(value, &mut at, 1)? != [KIND] {
            return None;
        }
        if take(value, &mut at, 1)? != [1] {
            writers.forgot_until = now + REPEAT_WITHIN;
        }
        let mut order = Vec::new();
        for _ in 0..varint::get(value, &mut at)? {
            let id = u64::from_le_bytes(take(value, &mut at, 8)?.try_into().ok()?);
            let is_unknown = take(value, &mut at, 1)? != [0];
            let mut client = Client {
                unknown_until: if is_unknown {
                    now + REPEAT_WITHIN
                } else {
                    Duration::ZERO
                },
                forgotten: varint::get(value, &mut at)?,
                applied: varint::get_len(value, &mut at)?,
                seen: now,
                ..Client::default()
            };
            let (mut sequence, mut before) = (0, LogId::default());
            for _ in 0..client.applied {
                sequence = varint::get_delta(value, &mut at, sequence)?;
                let term = varint::get_delta(value, &mut at, before.term)?;
                let index = varint::get_delta(value, &mut at, before.index)?;
                let outcome = varint::get_len(value, &mut at)?;
                if index <= before.index || outcome > OUTCOME_BYTES_MAX {
                    return None;
                }
                before = LogId { term, index };
                client.push(sequence, before, take(value, &mut at, outcome)?);
                order.push((index, id));
            }
            if client.applied == 0 || order.len() > RESULTS_KEPT {
                return None;
            }
            if writers.clients.insert(id, client).is_some() {
                return None;
            }
        }
        writers.is_put_down = true;
        order.sort_unstable();
        writers.order = order.into_iter().map(|(_, client)| client).collect();
        (at == value.len()).then_some(writers)
    }
}

fn take<'a>(bytes: &'a [u8], at: &mut usize, len: usize) -> Option<&'a [u8]> {
    let taken = bytes.get(*at..at.checked_add(len)?)?;
    *at += len;
    Some(taken)
}
