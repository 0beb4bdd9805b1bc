//! Commands that set an expiry, and the options by which they do.

use ringbolt_wire::message::{Condition, Ttl, WriteOp};

use super::super::modify::{ExpireIf, Modify};
use super::super::syntax::{Fault, SYNTAX, integer, invalid_expire, is, repeated};
use super::{Command, Look, WriteWant, modify};

/// Names an expiry may have among a command's options.
const EXPIRIES: [(&str, bool, bool); 4] = [
    ("EX", true, false),
    ("PX", false, false),
    ("EXAT", true, true),
    ("PXAT", false, true),
];

/// An expiry of `SET` and its like: above zero, and within range.
pub(super) fn expiry_of(
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

pub(super) fn set<'a>(
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

pub(super) fn getex<'a>(
    key: &'a [u8],
    options: &[&[u8]],
    now_ms: u64,
) -> Result<Command<'a>, Fault> {
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

pub(super) fn expire<'a>(
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
                let option = repeated(option);
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
