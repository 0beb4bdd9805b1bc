//! From arguments to what is to be done, and what is wrong with them.
//!
//! Everything that can be said of a command without looking at data is said here, in the order in
//! which Redis looks: the command's name, how many arguments it has, then each of them.

use ringbolt_wire::message::{Condition, Ttl, WriteOp};

use super::decimal::Decimal;
use super::modify::Modify;
use super::syntax::{Fault, NOT_A_FLOAT, SYNTAX, integer, is, unknown, wrong_arity};
use super::table::{self, Spec};

mod expiry;
mod scan;
mod talk;
#[cfg(test)]
mod tests;

pub(crate) use scan::ScanPage;
pub(crate) use talk::Talk;

/// What a read of one key is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Value,
    /// A part of the value, as `GETRANGE` counts it.
    Range {
        start: i64,
        end: i64,
    },
    Length,
    Exists,
    Type,
    /// When it expires: in milliseconds or seconds, from now or from 1970.
    Expiry {
        in_ms: bool,
        absolute: bool,
    },
}

/// What the answer to a write is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteWant {
    /// `OK`, or nothing if a condition did not hold.
    Ok,
    /// 1, or 0 if a condition did not hold.
    Flag,
    /// The new number.
    Number,
}

/// What a command is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    Talk(Talk<'a>),
    Look {
        key: &'a [u8],
        look: Look,
    },
    Write {
        op: WriteOp<'a>,
        want: WriteWant,
    },
    Modify {
        key: &'a [u8],
        modify: Modify,
    },
    /// How many of the keys there were.
    Delete(&'a [&'a [u8]]),
    /// How many of the keys there are.
    Exists(&'a [&'a [u8]]),
    MultiGet(&'a [&'a [u8]]),
    /// Keys and values in turn.
    MultiSet(&'a [&'a [u8]]),
    Scan(ScanPage<'a>),
    Keys(&'a [u8]),
    DbSize,
    RandomKey,
    /// One database, or all of them.
    Flush {
        all: bool,
    },
    Wait {
        replicas: i64,
        timeout_ms: u64,
    },
}

impl<'a> Command<'a> {
    /// Understands a command that has at least a name. `now_ms` is the wall clock's time.
    ///
    /// # Errors
    /// What is wrong with it, in Redis's words.
    pub(crate) fn parse(arguments: &'a [&'a [u8]], now_ms: u64) -> Result<Self, Fault> {
        // The two that everybody sends, ahead of all tables.
        match arguments {
            [name, key] if is(name, "get") => {
                return Ok(Self::Look {
                    key,
                    look: Look::Value,
                });
            }
            [name, key, value] if is(name, "set") => return Ok(put(key, value)),
            _ => {}
        }
        let (name, rest) = arguments.split_first().ok_or(SYNTAX)?;
        let spec = table::find(name).ok_or_else(|| unknown(arguments))?;
        if !spec.takes(arguments.len()) {
            return Err(wrong_arity(spec.name));
        }
        if spec.subcommands().next().is_some() {
            return talk::sub(spec, rest).map(Self::Talk);
        }
        Self::of(spec, rest, now_ms)
    }

    fn of(spec: &Spec, rest: &'a [&'a [u8]], now_ms: u64) -> Result<Self, Fault> {
        let name = spec.name;
        let look = |key, look| Ok(Self::Look { key, look });
        let expires = |in_ms, absolute| Look::Expiry { in_ms, absolute };
        match (name, rest) {
            ("get", [key]) => look(key, Look::Value),
            ("strlen", [key]) => look(key, Look::Length),
            ("type", [key]) => look(key, Look::Type),
            ("ttl", [key]) => look(key, expires(false, false)),
            ("pttl", [key]) => look(key, expires(true, false)),
            ("expiretime", [key]) => look(key, expires(false, true)),
            ("pexpiretime", [key]) => look(key, expires(true, true)),
            ("getrange" | "substr", [key, start, end]) => {
                let (start, end) = (integer(start)?, integer(end)?);
                look(key, Look::Range { start, end })
            }
            ("exists" | "touch", [key]) => look(key, Look::Exists),
            ("exists" | "touch", keys) => Ok(Self::Exists(keys)),
            ("del" | "unlink", [key]) => Ok(Self::Write {
                op: WriteOp::Delete {
                    key,
                    condition: Condition::Present,
                },
                want: WriteWant::Flag,
            }),
            ("del" | "unlink", keys) => Ok(Self::Delete(keys)),
            ("mget", keys) => Ok(Self::MultiGet(keys)),
            ("mset", pairs) if pairs.len() % 2 == 1 => Err(wrong_arity(name)),
            ("mset", pairs) => Ok(Self::MultiSet(pairs)),
            ("set", [key, value, options @ ..]) => expiry::set(key, value, options, now_ms),
            ("setnx", [key, value]) => Ok(Self::Write {
                op: WriteOp::Put {
                    key,
                    value,
                    ttl: Ttl::Default,
                    condition: Condition::Absent,
                },
                want: WriteWant::Flag,
            }),
            ("setex" | "psetex", [key, time, value]) => {
                let ttl = expiry::expiry_of(name, time, name == "setex", false, now_ms)?;
                Ok(Self::Write {
                    op: WriteOp::Put {
                        key,
                        value,
                        ttl,
                        condition: Condition::None,
                    },
                    want: WriteWant::Ok,
                })
            }
            ("incr", [key]) => Ok(increment(key, 1)),
            ("decr", [key]) => Ok(increment(key, -1)),
            ("incrby", [key, by]) => Ok(increment(key, integer(by)?)),
            ("decrby", [key, by]) => match integer(by)?.checked_neg() {
                Some(by) => Ok(increment(key, by)),
                None => Err("ERR decrement would overflow".into()),
            },
            ("expire" | "pexpire" | "expireat" | "pexpireat", [key, time, options @ ..]) => {
                expiry::expire(name, key, time, options, now_ms)
            }
            ("append", [key, value]) => modify(key, Modify::Append((*value).into())),
            ("getset", [key, value]) => modify(
                key,
                Modify::Set {
                    value: (*value).into(),
                    ttl: Ttl::Default,
                    condition: Condition::None,
                },
            ),
            ("getdel", [key]) => modify(key, Modify::Delete),
            ("getex", [key, options @ ..]) => expiry::getex(key, options, now_ms),
            ("setrange", [key, offset, value]) => {
                let offset = integer(offset)?;
                let offset = u64::try_from(offset)
                    .map_err(|_| Fault::Borrowed("ERR offset is out of range"))?;
                let value = (*value).into();
                modify(key, Modify::SetRange { offset, value })
            }
            ("incrbyfloat", [key, by]) => {
                let by = Decimal::parse(by).ok_or(NOT_A_FLOAT)?;
                modify(key, Modify::Add(by))
            }
            ("persist", [key]) => modify(key, Modify::Persist),
            ("scan", [cursor, options @ ..]) => scan::scan(cursor, options),
            ("keys", [pattern]) => Ok(Self::Keys(pattern)),
            ("dbsize", []) => Ok(Self::DbSize),
            ("randomkey", []) => Ok(Self::RandomKey),
            ("flushdb" | "flushall", options) => match options {
                [] => Ok(Self::Flush {
                    all: name == "flushall",
                }),
                [how] if is(how, "SYNC") || is(how, "ASYNC") => Ok(Self::Flush {
                    all: name == "flushall",
                }),
                _ => Err(SYNTAX),
            },
            ("wait", [replicas, timeout]) => {
                let replicas = integer(replicas)?;
                let timeout = integer(timeout).map_err(|_| {
                    Fault::Borrowed("ERR timeout is not an integer or out of range")
                })?;
                let timeout_ms = u64::try_from(timeout)
                    .map_err(|_| Fault::Borrowed("ERR timeout is negative"))?;
                Ok(Self::Wait {
                    replicas,
                    timeout_ms,
                })
            }
            _ => talk::talk(name, rest).map(Self::Talk),
        }
    }
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Command<'a> {
    Command::Write {
        op: WriteOp::Put {
            key,
            value,
            ttl: Ttl::Default,
            condition: Condition::None,
        },
        want: WriteWant::Ok,
    }
}

fn modify(key: &[u8], modify: Modify) -> Result<Command<'_>, Fault> {
    Ok(Command::Modify { key, modify })
}

fn increment(key: &[u8], by: i64) -> Command<'_> {
    Command::Write {
        op: WriteOp::Increment {
            key,
            by,
            ttl: Ttl::Keep,
            condition: Condition::None,
        },
        want: WriteWant::Number,
    }
}
