//! A client's operation as a frame of the wire protocol.

use ringbolt_wire::list::{KeysBuf, TokensBuf, WriteOpsBuf};
use ringbolt_wire::message::{
    Condition, ReadLevel, ReadOptions, Request, Scan, Ttl, WriteOp, WriteOptions,
};

use super::super::history::{Change, Guard, KeyId};
use super::super::workload::{Keys, Plan};
use super::Current;

fn write_op<'a>(keys: &'a Keys, change: &(KeyId, Guard, Change), value: &'a [u8]) -> WriteOp<'a> {
    let (key, guard, change) = *change;
    let key = keys.name(key);
    let condition = match guard {
        Guard::None => Condition::None,
        Guard::Absent => Condition::Absent,
        Guard::Present => Condition::Present,
        Guard::Is { version, .. } => Condition::Version(version),
    };
    match change {
        Change::Put(_) => WriteOp::Put {
            key,
            value,
            ttl: Ttl::Default,
            condition,
        },
        Change::Delete => WriteOp::Delete { key, condition },
        Change::Add(by) => WriteOp::Increment {
            key,
            by,
            ttl: Ttl::Keep,
            condition,
        },
    }
}

/// The request for an operation, with so much time for its answer. A client without a number, 0, numbers no
/// writes.
pub(super) fn encode(
    current: &Current,
    keys: &Keys,
    client: u64,
    request: u64,
    wait_ms: u32,
) -> Vec<u8> {
    let mut tokens = TokensBuf::new();
    if current.level == ReadLevel::Session {
        for &token in &current.tokens {
            tokens.push(token);
        }
    }
    let read = ReadOptions {
        level: current.level,
        tokens: tokens.as_tokens(),
    };
    let options = match client {
        0 => WriteOptions {
            ack: current.ack,
            ..WriteOptions::default()
        },
        _ => WriteOptions {
            ack: current.ack,
            client,
            sequence: current.sequence,
            retry: current.doubtful,
        },
    };
    let mut frame = Vec::new();
    let mut encode = |request_body: &Request<'_>| request_body.encode(request, wait_ms, &mut frame);
    let encoded = match &current.plan {
        Plan::Get(of) if of.len() == 1 => encode(&Request::Get {
            keyspace: 0,
            read,
            key: keys.name(of[0]),
        }),
        Plan::Get(of) => {
            let mut list = KeysBuf::new();
            let pushed = of.iter().try_for_each(|&key| list.push(keys.name(key)));
            pushed.and_then(|()| {
                encode(&Request::MultiGet {
                    keyspace: 0,
                    read,
                    keys: list.as_keys(),
                })
            })
        }
        Plan::Scan(prefix) => encode(&Request::Scan(Scan {
            keyspace: 0,
            read,
            prefix,
            start: b"",
            end: b"",
            reverse: false,
            keys_only: false,
            limit: 1000,
            cursor: b"",
        })),
        Plan::Write(changes) => {
            let values: Vec<Vec<u8>> = changes
                .iter()
                .map(|(_, _, change)| match change {
                    Change::Put(number) => Keys::encode(*number),
                    Change::Delete | Change::Add(_) => Vec::new(),
                })
                .collect();
            if let [change] = &changes[..] {
                encode(&Request::Write {
                    keyspace: 0,
                    options,
                    op: write_op(keys, change, &values[0]),
                })
            } else {
                let mut ops = WriteOpsBuf::new();
                let pushed = changes
                    .iter()
                    .zip(&values)
                    .try_for_each(|(change, value)| ops.push(&write_op(keys, change, value)));
                pushed.and_then(|()| {
                    encode(&Request::Batch {
                        keyspace: 0,
                        options,
                        ops: ops.as_ops(),
                    })
                })
            }
        }
    };
    assert!(
        encoded.is_ok(),
        "{:?} cannot be encoded: {encoded:?}",
        current.plan
    );
    frame
}
