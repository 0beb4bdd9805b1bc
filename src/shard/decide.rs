//! What a write does, decided against the state of its key.
//!
//! That is the newest pending effect on the key, or else the applied state. What the tree has to read from
//! the disk is not waited for here: [`Verdict::NeedsDisk`].

use std::io::Write as _;
use std::ops::Range;

use ringbolt_engine::entry::{Effect, KeyspaceId, PartitionId};
use ringbolt_engine::env::Env;
use ringbolt_engine::log::decode_payload_trusted;
use ringbolt_engine::row::ReadAt;
use ringbolt_engine::tree::Lookup;
use ringbolt_wire::message::{Condition, KEYSPACE_DEFAULT, Ttl, WriteOp};

use super::Inner;
use crate::resp::number;

/// What is known of a key when a write on it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Present {
    version: u64,
    created_ms: u64,
    expires_ms: u64,
}

/// A key's state: the newest pending effect, or else what is applied.
pub(super) struct State {
    present: Option<Present>,
    /// Whether it rests on an effect that is not committed yet.
    pending: bool,
    /// Whether there was a record that is expired by the clock, not yet by the partition's time.
    expiring: bool,
}

impl State {
    /// What a refusal that rests on this comes to. A write that is done carries the time by which it was decided;
    /// what is only said must be true for whoever leads next, too.
    fn refused(&self, verdict: Verdict) -> Verdict {
        match self.expiring {
            true => Verdict::Expiring,
            false => verdict,
        }
    }
}

/// Why a write is not done as asked.
pub(super) enum Verdict {
    ConditionFailed {
        version: u64,
        pending: bool,
    },
    NotFound {
        pending: bool,
    },
    NotANumber {
        overflow: bool,
        pending: bool,
    },
    /// A record would have to be there, and expires just now: the partition's time must say so first.
    Expiring,
    NeedsDisk,
}

/// An effect whose value may stand in the arena of the decision, not in the request.
pub(super) enum Decided<'a> {
    Put {
        key: &'a [u8],
        value: Value<'a>,
        expires_ms: u64,
        created_ms: u64,
        existed: Option<bool>,
        counter: Option<i64>,
    },
    Delete {
        key: &'a [u8],
        existed: Option<bool>,
    },
}

pub(super) enum Value<'a> {
    Given(&'a [u8]),
    Made(Range<usize>),
}

impl Decided<'_> {
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    pub(super) fn existed(&self) -> Option<bool> {
        match self {
            Self::Put { existed, .. } | Self::Delete { existed, .. } => *existed,
        }
    }

    pub(super) fn counter(&self) -> Option<i64> {
        match self {
            Self::Put { counter, .. } => *counter,
            Self::Delete { .. } => None,
        }
    }

    pub(super) fn effect<'s>(&'s self, keyspace: KeyspaceId, arena: &'s [u8]) -> Effect<'s> {
        match self {
            Self::Put {
                key,
                value,
                expires_ms,
                created_ms,
                ..
            } => Effect::Put {
                keyspace,
                key,
                value: match value {
                    Value::Given(value) => value,
                    Value::Made(range) => &arena[range.clone()],
                },
                expires_ms: *expires_ms,
                created_ms: *created_ms,
            },
            Self::Delete { key, .. } => Effect::Delete { keyspace, key },
        }
    }
}

impl<E: Env> Inner<E> {
    /// Decides one write against the state of its key.
    pub(super) fn decide<'a>(
        &self,
        partition: PartitionId,
        keyspace: KeyspaceId,
        op: &WriteOp<'a>,
        arena: &mut Vec<u8>,
    ) -> Result<Decided<'a>, Verdict> {
        let time_ms = self.next_time_ms(partition);
        match *op {
            WriteOp::Put {
                key,
                value,
                ttl,
                condition,
            } => {
                let looks = condition != Condition::None || ttl == Ttl::Keep;
                let state = looks
                    .then(|| self.state(partition, keyspace, key, time_ms, |_| {}))
                    .transpose()?;
                if let Some(state) = &state {
                    check(condition, state)?;
                }
                let present = state.as_ref().and_then(|state| state.present);
                Ok(Decided::Put {
                    key,
                    value: Value::Given(value),
                    expires_ms: self.expiry(keyspace, ttl, time_ms, present),
                    created_ms: match (&state, present) {
                        (None, _) => 0,
                        (Some(_), Some(present)) => present.created_ms,
                        (Some(_), None) => time_ms,
                    },
                    existed: state.map(|state| state.present.is_some()),
                    counter: None,
                })
            }
            WriteOp::Delete { key, condition } => {
                let state = (condition != Condition::None)
                    .then(|| self.state(partition, keyspace, key, time_ms, |_| {}))
                    .transpose()?;
                if let Some(state) = &state {
                    check(condition, state)?;
                }
                Ok(Decided::Delete {
                    key,
                    existed: state.map(|state| state.present.is_some()),
                })
            }
            WriteOp::Increment {
                key,
                by,
                ttl,
                condition,
            } => {
                let mut number = Some(0);
                let state = self.state(partition, keyspace, key, time_ms, |value| {
                    number = number::parse(value);
                })?;
                check(condition, &state)?;
                let refused = |overflow| Verdict::NotANumber {
                    overflow,
                    pending: state.pending,
                };
                let number: i64 = number.ok_or(refused(false))?;
                let value = number.checked_add(by).ok_or(refused(true))?;
                let start = arena.len();
                // Writing to a vector cannot fail.
                let _ = write!(arena, "{value}");
                Ok(Decided::Put {
                    key,
                    value: Value::Made(start..arena.len()),
                    expires_ms: self.expiry(keyspace, ttl, time_ms, state.present),
                    created_ms: state.present.map_or(time_ms, |present| present.created_ms),
                    existed: Some(state.present.is_some()),
                    counter: Some(value),
                })
            }
            WriteOp::Touch {
                key,
                ttl,
                condition,
            } => {
                let start = arena.len();
                let state = self.state(partition, keyspace, key, time_ms, |value| {
                    arena.extend_from_slice(value);
                })?;
                check(condition, &state)?;
                let Some(present) = state.present else {
                    return Err(state.refused(Verdict::NotFound {
                        pending: state.pending,
                    }));
                };
                Ok(Decided::Put {
                    key,
                    value: Value::Made(start..arena.len()),
                    expires_ms: self.expiry(keyspace, ttl, time_ms, Some(present)),
                    created_ms: present.created_ms,
                    existed: Some(true),
                    counter: None,
                })
            }
        }
    }

    /// The state of a key at `time_ms`, which the next entry would carry. `value` sees the value if there
    /// is one.
    fn state(
        &self,
        partition: PartitionId,
        keyspace: KeyspaceId,
        key: &[u8],
        time_ms: u64,
        mut value: impl FnMut(&[u8]),
    ) -> Result<State, Verdict> {
        let hash = self.hash(keyspace, key);
        let pending = self.pending.borrow();
        let replicas = self.replicas.borrow();
        let replica = replicas
            .get(usize::from(partition))
            .and_then(Option::as_ref);
        for id in pending[usize::from(partition)].touching(hash) {
            let payload = replica.and_then(|replica| replica.payload(id.index));
            let entry = payload
                .as_deref()
                .and_then(|payload| decode_payload_trusted(partition, id, payload));
            let found = entry.map(|(head, effects)| {
                let mut found = None;
                let mut expiring = false;
                for effect in effects {
                    match effect {
                        Effect::Put {
                            keyspace: k,
                            key: effect_key,
                            value: bytes,
                            expires_ms,
                            created_ms,
                        } if k == keyspace && effect_key == key => {
                            expiring = expires_ms != 0 && expires_ms <= time_ms;
                            found = Some((!expiring).then(|| {
                                value(bytes);
                                Present {
                                    version: head.id.index,
                                    created_ms,
                                    expires_ms,
                                }
                            }));
                        }
                        Effect::Delete {
                            keyspace: k,
                            key: effect_key,
                        } if k == keyspace && effect_key == key => {
                            (found, expiring) = (Some(None), false);
                        }
                        // What the server writes itself removes whole keyspaces only.
                        Effect::DeleteRange { keyspace: k, .. } if k == keyspace => {
                            (found, expiring) = (Some(None), false);
                        }
                        _ => {}
                    }
                }
                found.map(|present| (present, expiring))
            });
            if let Some(Some((present, expiring))) = found {
                return Ok(State {
                    present,
                    pending: true,
                    expiring,
                });
            }
        }
        drop((pending, replicas));
        let mut row_key = self.row_key.borrow_mut();
        let row_key = row_key.set(partition, keyspace, key);
        let at = self.decided_at(partition);
        let found = self.engine.tree().get_now(row_key, at, |row, bytes| {
            (!row.expired_at(time_ms)).then(|| {
                value(bytes);
                Present {
                    version: row.version,
                    created_ms: row.created_ms,
                    expires_ms: row.expires_ms,
                }
            })
        });
        match found {
            Lookup::Found(present) => Ok(State {
                present,
                pending: false,
                expiring: present.is_none(),
            }),
            Lookup::Absent => Ok(State {
                present: None,
                pending: false,
                expiring: false,
            }),
            Lookup::NeedsDisk(_) => Err(Verdict::NeedsDisk),
        }
    }

    /// What decisions see of a partition: what is there for everybody, by its own time.
    pub(super) fn decided_at(&self, partition: PartitionId) -> ReadAt {
        let applied_ms = self.with_replica(partition, |replica| replica.applied_time_ms());
        ReadAt::newest(applied_ms.unwrap_or_default())
    }

    pub(super) fn next_time_ms(&self, partition: PartitionId) -> u64 {
        let wall_ms = self.clock.get().wall_ms;
        let replicas = self.replicas.borrow();
        match replicas.get(usize::from(partition)) {
            Some(Some(replica)) => replica.next_time_ms(wall_ms),
            _ => wall_ms,
        }
    }

    pub(super) fn expiry(
        &self,
        keyspace: KeyspaceId,
        ttl: Ttl,
        time_ms: u64,
        present: Option<Present>,
    ) -> u64 {
        match ttl {
            Ttl::Never => 0,
            Ttl::AfterMs(ms) => time_ms.saturating_add(ms),
            Ttl::AtMs(ms) => ms.max(1),
            Ttl::Keep => present.map_or(0, |present| present.expires_ms),
            Ttl::Default => {
                if keyspace == KEYSPACE_DEFAULT {
                    return 0;
                }
                match self.keyspaces.borrow().options(keyspace) {
                    Some(options) if options.default_ttl_ms > 0 => {
                        time_ms.saturating_add(options.default_ttl_ms)
                    }
                    _ => 0,
                }
            }
        }
    }
}

fn check(condition: Condition, state: &State) -> Result<(), Verdict> {
    let holds = match (condition, &state.present) {
        (Condition::None, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => true,
        (Condition::Version(version), Some(present)) => present.version == version,
        _ => false,
    };
    if holds {
        return Ok(());
    }
    Err(state.refused(Verdict::ConditionFailed {
        version: state.present.map_or(0, |present| present.version),
        pending: state.pending,
    }))
}
