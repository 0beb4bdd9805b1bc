//! A script that keeps data in memory, and insists that each request comes to the core that owns
//! its key.

use std::collections::BTreeMap;
use std::sync::Mutex;

use ringbolt_wire::codec::{RowsBuilder, ValuesBuilder};
use ringbolt_wire::message::*;
use ringbolt_wire::partition_of;

use crate::fake::{Act, Fake, Seen, Settings};

#[derive(Default)]
struct Data {
    index: u64,
    keyspaces: Vec<Keyspace>,
    rows: BTreeMap<(u32, Vec<u8>), (Meta, Vec<u8>)>,
}

enum Refusal {
    Condition(u64),
    NotFound,
    NotANumber,
}

/// Starts a server that works.
pub async fn start(settings: Settings) -> Fake {
    let data = Mutex::new(Data {
        keyspaces: vec![Keyspace {
            id: 0,
            name: "default".to_owned(),
            options: KeyspaceOptions::default(),
        }],
        ..Data::default()
    });
    let script_settings = settings.clone();
    Fake::start(settings, move |seen| {
        data.lock().unwrap().answer(seen, &script_settings)
    })
    .await
}

impl Data {
    fn answer(&mut self, seen: &Seen<'_>, settings: &Settings) -> Act {
        let at_home = |key: &[u8]| assert_eq!(seen.core, settings.core_of(key));
        let token = |key: &[u8], index| Token {
            partition: partition_of(key, settings.partitions),
            term: 1,
            index,
        };
        match seen.request {
            Request::Get { keyspace, key, .. } => {
                at_home(key);
                let token = token(key, self.index);
                match self.rows.get(&(keyspace, key.to_vec())) {
                    Some((meta, value)) => seen.reply(Response::Value {
                        token,
                        meta: *meta,
                        value,
                    }),
                    None => seen.reply(Response::NotFound { token }),
                }
            }
            Request::Stat { keyspace, key, .. } => {
                at_home(key);
                let token = token(key, self.index);
                match self.rows.get(&(keyspace, key.to_vec())) {
                    Some((meta, value)) => seen.reply(Response::Stat {
                        token,
                        meta: *meta,
                        value_bytes: value.len() as u64,
                    }),
                    None => seen.reply(Response::NotFound { token }),
                }
            }
            Request::MultiGet { keyspace, keys, .. } => {
                let mut out = Vec::new();
                let mut values = ValuesBuilder::begin(&mut out, seen.id);
                for key in keys {
                    at_home(key);
                    match self.rows.get(&(keyspace, key.to_vec())) {
                        Some((meta, value)) => values.push(&mut out, meta, value),
                        None => values.push_absent(&mut out),
                    }
                }
                values.finish(&mut out, []);
                if out.len() > settings.limits.frame_bytes_max as usize {
                    return seen.error(ErrorCode::TooLarge, 0);
                }
                Act::Send(out)
            }
            Request::Write { keyspace, op, .. } => {
                at_home(op.key());
                let existed = Some(self.rows.contains_key(&(keyspace, op.key().to_vec())));
                match self.write(keyspace, &[op]) {
                    Ok(counters) => seen.reply(match counters[0] {
                        Some(value) => Response::Counter {
                            token: token(op.key(), self.index),
                            value,
                        },
                        None => Response::Written {
                            token: token(op.key(), self.index),
                            existed,
                        },
                    }),
                    Err(refusal) => self.refuse(seen, refusal, token(op.key(), self.index)),
                }
            }
            Request::Batch { keyspace, ops, .. } => {
                let ops: Vec<WriteOp<'_>> = ops.iter().collect();
                ops.iter().for_each(|op| at_home(op.key()));
                match self.write(keyspace, &ops) {
                    Ok(counters) => seen.reply(Response::BatchWritten {
                        token: token(ops[0].key(), self.index),
                        counters,
                    }),
                    Err(refusal) => self.refuse(seen, refusal, token(ops[0].key(), self.index)),
                }
            }
            Request::Scan(scan) => self.scan(seen, &scan),
            Request::KeyspaceCreate { name, options } => {
                if self.keyspaces.iter().any(|keyspace| keyspace.name == name) {
                    return seen.error(ErrorCode::KeyspaceExists, 0);
                }
                self.index += 1;
                let keyspace = Keyspace {
                    id: self.index as u32,
                    name: name.to_owned(),
                    options,
                };
                self.keyspaces.push(keyspace.clone());
                seen.reply(Response::Keyspaces(vec![keyspace]))
            }
            Request::KeyspaceDrop { name } => {
                let before = self.keyspaces.len();
                self.keyspaces.retain(|keyspace| keyspace.name != name);
                if self.keyspaces.len() == before {
                    return seen.error(ErrorCode::NoSuchKeyspace, 0);
                }
                seen.reply(Response::Done)
            }
            Request::KeyspaceList => seen.reply(Response::Keyspaces(self.keyspaces.clone())),
            Request::Ping | Request::Prefer { .. } | Request::Drain { .. } => {
                seen.reply(Response::Done)
            }
            Request::Stats => seen.reply(Response::Stats(vec![("rows".to_owned(), 7)])),
            Request::Status => seen.reply(Response::Status(NodeStatus {
                here: 1,
                ..NodeStatus::default()
            })),
            Request::Topology | Request::Clear { .. } => seen.error(ErrorCode::Unsupported, 0),
            Request::Hello { .. } => seen.error(ErrorCode::Handshake, 0),
        }
    }

    fn refuse(&self, seen: &Seen<'_>, refusal: Refusal, token: Token) -> Act {
        match refusal {
            Refusal::Condition(version) => seen.reply(Response::Error(ErrorReply {
                code: ErrorCode::ConditionFailed,
                retry_after_ms: 0,
                detail: version,
                message: "the condition did not hold",
            })),
            Refusal::NotFound => seen.reply(Response::NotFound { token }),
            Refusal::NotANumber => seen.error(ErrorCode::NotANumber, 0),
        }
    }

    fn write(&mut self, keyspace: u32, ops: &[WriteOp<'_>]) -> Result<Vec<Option<i64>>, Refusal> {
        let mut rows = self.rows.clone();
        let version = self.index + 1;
        let mut counters = Vec::new();
        for op in ops {
            let row_key = (keyspace, op.key().to_vec());
            let old = rows.get(&row_key).cloned();
            let old_version = old.as_ref().map_or(0, |(meta, _)| meta.version);
            let holds = match op.condition() {
                Condition::None => true,
                Condition::Absent => old.is_none(),
                Condition::Present => old.is_some(),
                Condition::Version(version) => version == old_version,
            };
            if !holds {
                return Err(Refusal::Condition(old_version));
            }
            let meta = |ttl| Meta {
                version,
                expires_ms: match ttl {
                    Ttl::AtMs(ms) => ms,
                    Ttl::AfterMs(ms) => 1_000_000 + ms,
                    Ttl::Keep => old.as_ref().map_or(0, |(meta, _)| meta.expires_ms),
                    Ttl::Default | Ttl::Never => 0,
                },
                ..Meta::default()
            };
            let mut counter = None;
            match *op {
                WriteOp::Put { value, ttl, .. } => {
                    rows.insert(row_key, (meta(ttl), value.to_vec()));
                }
                WriteOp::Delete { .. } => {
                    rows.remove(&row_key);
                }
                WriteOp::Increment { by, ttl, .. } => {
                    let number = match &old {
                        Some((_, value)) => std::str::from_utf8(value)
                            .ok()
                            .and_then(|text| text.parse::<i64>().ok())
                            .ok_or(Refusal::NotANumber)?,
                        None => 0,
                    };
                    let number = number.checked_add(by).ok_or(Refusal::NotANumber)?;
                    counter = Some(number);
                    rows.insert(row_key, (meta(ttl), number.to_string().into_bytes()));
                }
                WriteOp::Touch { ttl, .. } => {
                    let Some((_, value)) = old.clone() else {
                        return Err(Refusal::NotFound);
                    };
                    rows.insert(row_key, (meta(ttl), value));
                }
            }
            counters.push(counter);
        }
        self.rows = rows;
        self.index = version;
        Ok(counters)
    }

    /// Pages of two rows, and an empty one first: legal, and hard on the client.
    fn scan(&self, seen: &Seen<'_>, scan: &Scan<'_>) -> Act {
        let mut out = Vec::new();
        let mut builder = RowsBuilder::begin(&mut out, seen.id);
        if scan.cursor.is_empty() {
            builder.finish(&mut out, [], b"+");
            return Act::Send(out);
        }
        let after = &scan.cursor[1..];
        let mut rows: Vec<_> = self
            .rows
            .iter()
            .filter(|((keyspace, key), _)| {
                *keyspace == scan.keyspace
                    && key.starts_with(scan.prefix)
                    && key.as_slice() >= scan.start
                    && (scan.end.is_empty() || key.as_slice() < scan.end)
                    && (after.is_empty() || (key.as_slice() > after) != scan.reverse)
                    && key.as_slice() != after
            })
            .collect();
        if scan.reverse {
            rows.reverse();
        }
        let limit = match scan.limit {
            0 => 2,
            limit => limit.min(2) as usize,
        };
        let mut cursor = Vec::new();
        for ((_, key), (meta, value)) in rows.iter().take(limit) {
            let value: &[u8] = if scan.keys_only { b"" } else { value };
            builder.push(&mut out, key, meta, value);
            if rows.len() > limit {
                cursor = [b"+", key.as_slice()].concat();
            }
        }
        builder.finish(&mut out, [], &cursor);
        Act::Send(out)
    }
}
