//! From arguments to what is to be done, and what is wrong with them.
//!
//! Everything that can be said of a command without looking at data is said here, in the order in
//! which Redis looks: the command's name, how many arguments it has, then each of them.

use ringbolt_wire::message::{Condition, Ttl, WriteOp};

use super::decimal::Decimal;
use super::modify::{ExpireIf, Modify};
use super::reply::Version;
use super::syntax::{
    Fault, NOT_A_FLOAT, SYNTAX, integer, invalid_expire, is, unknown, unknown_sub, wrong_arity,
};
use super::table::{self, Spec};

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

/// What is asked of the server itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Talk<'a> {
    Ping(Option<&'a [u8]>),
    Echo(&'a [u8]),
    Quit,
    Reset,
    Hello {
        version: Option<Version>,
        name: Option<&'a [u8]>,
    },
    Select(i64),
    ClientId,
    ClientGetName,
    ClientSetName(&'a [u8]),
    /// The library's name, or its version.
    ClientSetInfo {
        version: bool,
        text: &'a [u8],
    },
    ClientInfo,
    ClientList,
    Time,
    /// Nothing to do but to say so.
    Acknowledge,
    CommandAll,
    CommandCount,
    CommandDocs(&'a [&'a [u8]]),
    CommandInfo(&'a [&'a [u8]]),
    CommandList,
    CommandGetKeys(&'a [&'a [u8]]),
    ConfigGet(&'a [&'a [u8]]),
    ClusterInfo,
    ClusterKeySlot(&'a [u8]),
    ClusterMyId,
    ClusterNodes,
    ClusterShards,
    ClusterSlots,
    /// Named sections, or those that are told by default.
    Info(&'a [&'a [u8]]),
}

/// A page of `SCAN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScanPage<'a> {
    pub(crate) cursor: u64,
    pub(crate) pattern: &'a [u8],
    pub(crate) count: u32,
    /// Whether keys of strings are wanted: there are no others.
    pub(crate) strings: bool,
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

/// Names an expiry may have among a command's options.
const EXPIRIES: [(&str, bool, bool); 4] = [
    ("EX", true, false),
    ("PX", false, false),
    ("EXAT", true, true),
    ("PXAT", false, true),
];

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
            return sub(spec, rest).map(Self::Talk);
        }
        Self::of(spec, rest, now_ms)
    }

    fn of(spec: &Spec, rest: &'a [&'a [u8]], now_ms: u64) -> Result<Self, Fault> {
        let name = spec.name;
        let look = |key, look| Ok(Self::Look { key, look });
        let expiry = |in_ms, absolute| Look::Expiry { in_ms, absolute };
        match (name, rest) {
            ("get", [key]) => look(key, Look::Value),
            ("strlen", [key]) => look(key, Look::Length),
            ("type", [key]) => look(key, Look::Type),
            ("ttl", [key]) => look(key, expiry(false, false)),
            ("pttl", [key]) => look(key, expiry(true, false)),
            ("expiretime", [key]) => look(key, expiry(false, true)),
            ("pexpiretime", [key]) => look(key, expiry(true, true)),
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
            ("set", [key, value, options @ ..]) => set(key, value, options, now_ms),
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
                let ttl = expiry_of(name, time, name == "setex", false, now_ms)?;
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
                expire(name, key, time, options, now_ms)
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
            ("getex", [key, options @ ..]) => getex(key, options, now_ms),
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
            ("scan", [cursor, options @ ..]) => scan(cursor, options),
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
            _ => talk(name, rest).map(Self::Talk),
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

/// An expiry of `SET` and its like: above zero, and within range.
fn expiry_of(
    command: &str,
    time: &[u8],
    in_seconds: bool,
    absolute: bool,
    now_ms: u64,
) -> Result<Ttl, Fault> {
    let time = integer(time)?;
    let ms = if in_seconds {
        time.checked_mul(1000)
    } else {
        Some(time)
    };
    let within = |ms: &i64| *ms > 0 && (absolute || ms.checked_add(now_ms as i64).is_some());
    let ms = ms.filter(within).ok_or_else(|| invalid_expire(command))?;
    Ok(if absolute {
        Ttl::AtMs(ms as u64)
    } else {
        Ttl::AfterMs(ms as u64)
    })
}

/// One option that sets an expiry, and its time.
fn expiry_option(option: &[u8]) -> Option<(bool, bool)> {
    let found = EXPIRIES.iter().find(|(name, ..)| is(option, name));
    found.map(|&(_, in_seconds, absolute)| (in_seconds, absolute))
}

fn set<'a>(
    key: &'a [u8],
    value: &'a [u8],
    options: &[&[u8]],
    now_ms: u64,
) -> Result<Command<'a>, Fault> {
    let (mut condition, mut ttl, mut get) = (Condition::None, Ttl::Default, false);
    let mut expiry = None;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if is(option, "NX") && condition != Condition::Present {
            condition = Condition::Absent;
        } else if is(option, "XX") && condition != Condition::Absent {
            condition = Condition::Present;
        } else if is(option, "GET") {
            get = true;
        } else if is(option, "KEEPTTL") && expiry.is_none() {
            ttl = Ttl::Keep;
        } else if let Some(kind) = expiry_option(option)
            && ttl != Ttl::Keep
            && expiry.is_none_or(|(known, _)| known == kind)
        {
            expiry = Some((kind, *options.next().ok_or(SYNTAX)?));
        } else {
            return Err(SYNTAX);
        }
    }
    if let Some(((in_seconds, absolute), time)) = expiry {
        ttl = expiry_of("set", time, in_seconds, absolute, now_ms)?;
    }
    if get {
        let value = value.into();
        return modify(
            key,
            Modify::Set {
                value,
                ttl,
                condition,
            },
        );
    }
    Ok(Command::Write {
        op: WriteOp::Put {
            key,
            value,
            ttl,
            condition,
        },
        want: WriteWant::Ok,
    })
}

fn getex<'a>(key: &'a [u8], options: &[&[u8]], now_ms: u64) -> Result<Command<'a>, Fault> {
    let mut persist = false;
    let mut expiry = None;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if is(option, "PERSIST") && expiry.is_none() {
            persist = true;
        } else if let Some(kind) = expiry_option(option)
            && !persist
            && expiry.is_none_or(|(known, _)| known == kind)
        {
            expiry = Some((kind, *options.next().ok_or(SYNTAX)?));
        } else {
            return Err(SYNTAX);
        }
    }
    let ttl = match expiry {
        Some(((in_seconds, absolute), time)) => {
            match expiry_of("getex", time, in_seconds, absolute, now_ms) {
                Ok(ttl) => ttl,
                // Redis looks at the time only where there is a key.
                Err(fault) => return modify(key, Modify::Refuse(fault)),
            }
        }
        None if persist => Ttl::Never,
        None => {
            return Ok(Command::Look {
                key,
                look: Look::Value,
            });
        }
    };
    match ttl {
        Ttl::AtMs(at) if at <= now_ms => modify(key, Modify::Delete),
        ttl => modify(key, Modify::Touch(ttl)),
    }
}

fn expire<'a>(
    name: &str,
    key: &'a [u8],
    time: &[u8],
    options: &[&[u8]],
    now_ms: u64,
) -> Result<Command<'a>, Fault> {
    let mut only = ExpireIf::default();
    for option in options {
        match () {
            () if is(option, "NX") => only.never = true,
            () if is(option, "XX") => only.some = true,
            () if is(option, "GT") => only.later = true,
            () if is(option, "LT") => only.sooner = true,
            () => {
                let option = super::syntax::repeated(option);
                return Err(format!("ERR Unsupported option {option}").into());
            }
        }
    }
    if only.never && (only.some || only.later || only.sooner) {
        let words = "ERR NX and XX, GT or LT options at the same time are not compatible";
        return Err(words.into());
    }
    if only.later && only.sooner {
        return Err("ERR GT and LT options at the same time are not compatible".into());
    }
    let time = integer(time)?;
    let (in_seconds, absolute) = (!name.starts_with('p'), name.ends_with("at"));
    let ms = if in_seconds {
        time.checked_mul(1000)
    } else {
        Some(time)
    };
    let base = if absolute { 0 } else { now_ms as i64 };
    let at_ms = ms.and_then(|ms| Some((ms, ms.checked_add(base)?)));
    let (ms, at_ms) = at_ms.ok_or_else(|| invalid_expire(name))?;
    let past = at_ms <= now_ms as i64;
    let ttl = match absolute {
        true => Ttl::AtMs(at_ms.max(0) as u64),
        false => Ttl::AfterMs(ms.max(0) as u64),
    };
    if only != ExpireIf::default() {
        let at_ms = at_ms.max(0) as u64;
        let ttl = (!past).then_some(ttl);
        return modify(key, Modify::Expire { ttl, at_ms, only });
    }
    let op = if past {
        WriteOp::Delete {
            key,
            condition: Condition::Present,
        }
    } else {
        WriteOp::Touch {
            key,
            ttl,
            condition: Condition::None,
        }
    };
    let want = WriteWant::Flag;
    Ok(Command::Write { op, want })
}

/// A cursor, as C's `strtoul` reads it: nothing is 0, and a sign is taken.
fn cursor_number(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    // The standard library would take one more sign.
    let digits = std::str::from_utf8(digits).ok();
    let digits = digits.filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit()));
    let number: u64 = digits?.parse().ok()?;
    Some(if negative {
        number.wrapping_neg()
    } else {
        number
    })
}

fn scan<'a>(cursor: &[u8], options: &'a [&'a [u8]]) -> Result<Command<'a>, Fault> {
    let mut page = ScanPage {
        cursor: cursor_number(cursor).ok_or(Fault::Borrowed("ERR invalid cursor"))?,
        pattern: b"*",
        count: 10,
        strings: true,
    };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let value = *options.next().ok_or(SYNTAX)?;
        if is(option, "MATCH") {
            page.pattern = value;
        } else if is(option, "COUNT") {
            let count = integer(value)?;
            if count < 1 {
                return Err(SYNTAX);
            }
            page.count = u32::try_from(count).unwrap_or(u32::MAX);
        } else if is(option, "TYPE") {
            page.strings = is(value, "string");
        } else {
            return Err(SYNTAX);
        }
    }
    Ok(Command::Scan(page))
}

fn talk<'a>(name: &str, rest: &'a [&'a [u8]]) -> Result<Talk<'a>, Fault> {
    Ok(match (name, rest) {
        ("ping", []) => Talk::Ping(None),
        ("ping", [text]) => Talk::Ping(Some(text)),
        ("echo", [text]) => Talk::Echo(text),
        ("quit", _) => Talk::Quit,
        ("reset", _) => Talk::Reset,
        ("time", _) => Talk::Time,
        ("asking" | "readonly" | "readwrite", _) => Talk::Acknowledge,
        ("select", [index]) => Talk::Select(integer(index)?),
        ("info", sections) => Talk::Info(sections),
        ("hello", rest) => hello(rest)?,
        ("auth", [_] | [_, _]) => {
            return Err(
                "ERR AUTH <password> called without any password configured for the \
                        default user. Are you sure your configuration is correct?"
                    .into(),
            );
        }
        ("auth", _) => return Err(SYNTAX),
        (name, _) => return Err(wrong_arity(name)),
    })
}

fn hello<'a>(rest: &'a [&'a [u8]]) -> Result<Talk<'a>, Fault> {
    let Some((version, mut options)) = rest.split_first() else {
        return Ok(Talk::Hello {
            version: None,
            name: None,
        });
    };
    let version = match integer(version) {
        Ok(2) => Version::Two,
        Ok(3) => Version::Three,
        Ok(_) => return Err("NOPROTO unsupported protocol version".into()),
        Err(_) => return Err("ERR Protocol version is not an integer or out of range".into()),
    };
    let mut name = None;
    loop {
        match options {
            [] => break,
            [option, _, _, ..] if is(option, "AUTH") => {
                return Err("WRONGPASS there is no authentication: leave AUTH out".into());
            }
            [option, text, behind @ ..] if is(option, "SETNAME") => {
                name = Some(client_name(text)?);
                options = behind;
            }
            [option, ..] => {
                let option = super::syntax::repeated(option);
                return Err(format!("ERR Syntax error in HELLO option '{option}'").into());
            }
        }
    }
    let version = Some(version);
    Ok(Talk::Hello { version, name })
}

/// A connection's name: printable, without spaces.
fn client_name(text: &[u8]) -> Result<&[u8], Fault> {
    if text.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(text);
    }
    Err("ERR Client names cannot contain spaces, newlines or special characters.".into())
}

fn sub<'a>(spec: &Spec, rest: &'a [&'a [u8]]) -> Result<Talk<'a>, Fault> {
    let Some((name, behind)) = rest.split_first() else {
        return match spec.name {
            "command" => Ok(Talk::CommandAll),
            name => Err(wrong_arity(name)),
        };
    };
    let found = table::find_sub(spec, name).ok_or_else(|| unknown_sub(spec.name, name))?;
    if !found.takes(rest.len() + 1) {
        return Err(wrong_arity(found.name));
    }
    Ok(match (found.name, behind) {
        ("client|id", _) => Talk::ClientId,
        ("client|getname", _) => Talk::ClientGetName,
        ("client|setname", [name]) => Talk::ClientSetName(client_name(name)?),
        ("client|setinfo", [option, text]) => {
            let version = is(option, "LIB-VER");
            if !version && !is(option, "LIB-NAME") {
                let option = super::syntax::repeated(option);
                return Err(format!("ERR Unrecognized option '{option}'").into());
            }
            let option = if version { "lib-ver" } else { "lib-name" };
            let text = client_name(text).map_err(|_| {
                format!("ERR {option} cannot contain spaces, newlines or special characters.")
            })?;
            Talk::ClientSetInfo { version, text }
        }
        ("client|info", _) => Talk::ClientInfo,
        ("client|list", []) => Talk::ClientList,
        ("client|no-evict", [on]) if is(on, "ON") || is(on, "OFF") => Talk::Acknowledge,
        ("command|count", _) => Talk::CommandCount,
        ("command|docs", names) => Talk::CommandDocs(names),
        ("command|info", []) => Talk::CommandAll,
        ("command|info", names) => Talk::CommandInfo(names),
        ("command|list", []) => Talk::CommandList,
        ("command|getkeys", command) => Talk::CommandGetKeys(command),
        ("config|get", patterns) => Talk::ConfigGet(patterns),
        ("cluster|info", _) => Talk::ClusterInfo,
        ("cluster|keyslot", [key]) => Talk::ClusterKeySlot(key),
        ("cluster|myid", _) => Talk::ClusterMyId,
        ("cluster|nodes", _) => Talk::ClusterNodes,
        ("cluster|shards", _) => Talk::ClusterShards,
        ("cluster|slots", _) => Talk::ClusterSlots,
        _ => return Err(SYNTAX),
    })
}

/// The keys of a whole command, by the places that its specification gives.
///
/// # Errors
/// What Redis says if it has none.
pub(crate) fn keys_of<'a>(command: &[&'a [u8]]) -> Result<Vec<&'a [u8]>, Fault> {
    let spec = command.first().and_then(|name| table::find(name));
    let spec = spec.ok_or(Fault::Borrowed("ERR Invalid command specified"))?;
    if spec.keys.first == 0 {
        return Err("ERR The command has no key arguments".into());
    }
    if !spec.takes(command.len()) {
        return Err("ERR Invalid number of arguments specified for command".into());
    }
    let last = if spec.keys.last < 0 {
        command.len() as i64 + spec.keys.last
    } else {
        spec.keys.last
    };
    let places = (spec.keys.first..=last).step_by(spec.keys.step as usize);
    Ok(places
        .filter_map(|at| command.get(at as usize).copied())
        .collect())
}
