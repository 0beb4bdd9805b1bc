//! Answers of the shard in Redis's words.

use ringbolt_wire::message::{ErrorCode, ErrorReply, Meta, Response};

use super::command::{Look, WriteWant};
use super::connection::Want;
use super::reply::{self, Version};
use super::syntax::{NOT_AN_INTEGER, WOULD_OVERFLOW};

/// Appends the reply that an answer comes to.
pub(crate) fn reply(
    out: &mut Vec<u8>,
    want: Want,
    response: &Response<'_>,
    version: Version,
    wall_ms: u64,
) {
    match (want, response) {
        (Want::Write(WriteWant::Ok), Response::Written { .. }) => out.extend_from_slice(reply::OK),
        (Want::Write(WriteWant::Flag), Response::Written { .. }) => reply::integer(out, 1),
        (Want::Write(WriteWant::Number), Response::Counter { value, .. }) => {
            reply::integer(out, *value);
        }
        (Want::Write(WriteWant::Flag), Response::NotFound { .. }) => reply::integer(out, 0),
        (Want::Write(want), Response::Error(failed))
            if failed.code == ErrorCode::ConditionFailed =>
        {
            match want {
                WriteWant::Ok => out.extend_from_slice(reply::null(version)),
                WriteWant::Flag | WriteWant::Number => reply::integer(out, 0),
            }
        }
        (Want::Look(look), Response::Value { meta, value, .. }) => {
            present(out, look, meta, value.len() as u64, value, wall_ms);
        }
        (
            Want::Look(look),
            Response::Stat {
                meta, value_bytes, ..
            },
        ) => present(out, look, meta, *value_bytes, &[], wall_ms),
        (Want::Look(look), Response::NotFound { .. }) => absent(out, look, version),
        (Want::Values, Response::Values { values, .. }) => {
            reply::array(out, values.len());
            for value in values {
                match value {
                    Some((_, value)) => reply::bulk(out, value),
                    None => out.extend_from_slice(reply::null(version)),
                }
            }
        }
        (_, Response::Error(failed)) => error(out, failed),
        _ => reply::error(out, "ERR the server has answered out of turn"),
    }
}

/// Whether something was there, as the answer to a write or a read says it.
pub(crate) fn flag<'a>(response: &'a Response<'_>) -> Result<i64, &'a ErrorReply<'a>> {
    match response {
        Response::Error(failed) if failed.code != ErrorCode::ConditionFailed => Err(failed),
        Response::Error(_) | Response::NotFound { .. } => Ok(0),
        _ => Ok(1),
    }
}

/// What is told of a record. Only what needs the value looks at it.
pub(crate) fn present(
    out: &mut Vec<u8>,
    look: Look,
    meta: &Meta,
    value_bytes: u64,
    value: &[u8],
    wall_ms: u64,
) {
    match look {
        Look::Value => reply::bulk(out, value),
        Look::Range { start, end } => reply::bulk(out, part(value, start, end)),
        Look::Length => reply::integer(out, value_bytes as i64),
        Look::Exists => reply::integer(out, 1),
        Look::Type => reply::simple(out, "string"),
        Look::Expiry { in_ms, absolute } => {
            let number = match meta.expires_ms {
                0 => -1,
                at_ms if absolute => to_unit(at_ms, in_ms),
                at_ms => to_unit(at_ms.saturating_sub(wall_ms), in_ms),
            };
            reply::integer(out, number);
        }
    }
}

/// What is told where there is no record.
pub(crate) fn absent(out: &mut Vec<u8>, look: Look, version: Version) {
    match look {
        Look::Value => out.extend_from_slice(reply::null(version)),
        Look::Range { .. } => reply::bulk(out, b""),
        Look::Length | Look::Exists => reply::integer(out, 0),
        Look::Type => reply::simple(out, "none"),
        Look::Expiry { .. } => reply::integer(out, -2),
    }
}

/// Whether the value itself is needed.
pub(crate) fn needs_value(look: Look) -> bool {
    matches!(look, Look::Value | Look::Range { .. })
}

/// Seconds are rounded, as Redis has them.
fn to_unit(ms: u64, in_ms: bool) -> i64 {
    let number = if in_ms {
        ms
    } else {
        ms.saturating_add(500) / 1000
    };
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The part that `GETRANGE` means: places below zero count from the end, both ends are in it.
fn part(value: &[u8], start: i64, end: i64) -> &[u8] {
    let length = value.len() as i64;
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let from_end = |place: i64| {
        if place < 0 {
            place.saturating_add(length).max(0)
        } else {
            place
        }
    };
    let (start, end) = (from_end(start), from_end(end).min(length - 1));
    if start > end || length == 0 {
        return &[];
    }
    &value[start as usize..=end as usize]
}

/// Appends an error: by its first word a client knows what to do.
///
/// | word | what |
/// |---|---|
/// | `ERR` | the request cannot be done; or data is damaged, as the text says |
/// | `TRYAGAIN` | a limit was reached; nothing was done |
/// | `CLUSTERDOWN` | a partition has no leader now, or this node stops; nothing was done |
/// | `TIMEOUT` | the deadline passed; nothing was done |
/// | `MISCONF` | the disk is nearly full; nothing was done |
/// | `INDOUBT` | the write may or may not be done |
pub(crate) fn error(out: &mut Vec<u8>, failed: &ErrorReply<'_>) {
    let word = match failed.code {
        ErrorCode::NotANumber if failed.detail == 0 => return reply::error(out, &NOT_AN_INTEGER),
        ErrorCode::NotANumber => return reply::error(out, WOULD_OVERFLOW),
        ErrorCode::Overloaded => "TRYAGAIN",
        ErrorCode::Unavailable | ErrorCode::NotLeader | ErrorCode::Stale => "CLUSTERDOWN",
        ErrorCode::DeadlineExceeded => "TIMEOUT",
        ErrorCode::NoSpace => "MISCONF",
        ErrorCode::InDoubt | ErrorCode::CommittedNotAll => "INDOUBT",
        _ => "ERR",
    };
    reply::error(out, &format!("{word} {}", failed.message));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_getrange() {
        let value = b"0123456789";
        for (start, end, expected) in [
            (0, -1, &b"0123456789"[..]),
            (0, 0, b"0"),
            (2, 4, b"234"),
            (-3, -1, b"789"),
            (-100, 1, b"01"),
            (5, 2, b""),
            (-1, -3, b""),
            (8, 100, b"89"),
            (10, 20, b""),
            (i64::MIN, i64::MAX, b"0123456789"),
            (0, -100, b"0"),
        ] {
            assert_eq!(part(value, start, end), expected, "{start} {end}");
        }
        assert_eq!(part(b"", 0, -1), b"");
    }

    #[test]
    fn expiries_are_told_in_either_unit() {
        let meta = Meta {
            expires_ms: 10_500,
            ..Meta::default()
        };
        let told = |in_ms, absolute, meta: &Meta| {
            let mut out = Vec::new();
            present(
                &mut out,
                Look::Expiry { in_ms, absolute },
                meta,
                0,
                &[],
                9_000,
            );
            String::from_utf8(out).unwrap()
        };
        assert_eq!(told(true, false, &meta), ":1500\r\n");
        assert_eq!(told(false, false, &meta), ":2\r\n");
        assert_eq!(told(true, true, &meta), ":10500\r\n");
        assert_eq!(told(false, true, &meta), ":11\r\n");
        assert_eq!(told(true, false, &Meta::default()), ":-1\r\n");
    }
}
