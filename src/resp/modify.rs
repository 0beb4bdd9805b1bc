//! What a record becomes: the middle of read-modify-write commands.
//!
//! From the record that was read follow the write that makes of it what it should be, and the reply that is
//! given once that write is done. If the record has changed meanwhile the write is not done, and all
//! begins again with the new one.

use std::borrow::Cow;

use ringbolt_wire::message::{Condition, Meta, Ttl};

use super::decimal::Decimal;
use super::reply::{self, Version};
use super::syntax::{Fault, NOT_A_FLOAT};

/// What `EXPIRE` asks of the expiry there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ExpireIf {
    /// `NX`: there is none.
    pub(crate) never: bool,
    /// `XX`: there is one.
    pub(crate) some: bool,
    /// `GT`: the new one is later.
    pub(crate) later: bool,
    /// `LT`: the new one is sooner.
    pub(crate) sooner: bool,
}

/// A change that follows from what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Modify {
    Append(Box<[u8]>),
    SetRange {
        offset: u64,
        value: Box<[u8]>,
    },
    /// Sets the value, and tells the one there was.
    Set {
        value: Box<[u8]>,
        ttl: Ttl,
        condition: Condition,
    },
    /// Removes it, and tells the value there was.
    Delete,
    /// Changes its expiry, and tells its value.
    Touch(Ttl),
    /// Tells what is wrong with the command, if there is a record.
    Refuse(Fault),
    /// Adds a number with a fraction.
    Add(Decimal),
    /// Takes its expiry away.
    Persist,
    /// Changes its expiry, or removes it where there is no new one.
    Expire {
        ttl: Option<Ttl>,
        at_ms: u64,
        only: ExpireIf,
    },
}

/// A write that makes of a record what it should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    Put { value: Cow<'a, [u8]>, ttl: Ttl },
    Delete,
    Touch(Ttl),
}

impl Modify {
    /// Works out the change, and appends the reply that is due once it is done; `None` if nothing is
    /// to be written.
    ///
    /// # Errors
    /// Why it cannot be done with this record.
    pub(crate) fn change<'a>(
        &'a self,
        old: Option<(&Meta, &'a [u8])>,
        value_bytes_max: usize,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<Option<Change<'a>>, Fault> {
        let value = old.map(|(_, value)| value);
        // What there was is kept, and nothing is what an absent record keeps.
        let kept = Ttl::Keep;
        match self {
            Self::Append(more) => {
                let old = value.unwrap_or_default();
                let length = old.len() + more.len();
                check_length(length as u64, value_bytes_max)?;
                reply::integer(out, length as i64);
                let value = Cow::Owned([old, more].concat());
                Ok(Some(Change::Put { value, ttl: kept }))
            }
            Self::SetRange { offset, value: new } => {
                let old = value.unwrap_or_default();
                if new.is_empty() {
                    reply::integer(out, old.len() as i64);
                    return Ok(None);
                }
                let end = offset.saturating_add(new.len() as u64);
                check_length(end, value_bytes_max)?;
                let (offset, end) = (*offset as usize, end as usize);
                let mut value = old.to_vec();
                value.resize(old.len().max(end), 0);
                value[offset..end].copy_from_slice(new);
                reply::integer(out, value.len() as i64);
                let value = Cow::Owned(value);
                Ok(Some(Change::Put { value, ttl: kept }))
            }
            Self::Set {
                value: new,
                ttl,
                condition,
            } => {
                tell(value, version, out);
                let holds = match condition {
                    Condition::Absent => old.is_none(),
                    Condition::Present => old.is_some(),
                    Condition::None | Condition::Version(_) => true,
                };
                Ok(holds.then_some(Change::Put {
                    value: Cow::Borrowed(new),
                    ttl: *ttl,
                }))
            }
            Self::Delete => {
                tell(value, version, out);
                Ok(old.map(|_| Change::Delete))
            }
            Self::Touch(ttl) => {
                tell(value, version, out);
                // Nothing is written where nothing would change.
                let changes = old.filter(|(meta, _)| *ttl != Ttl::Never || meta.expires_ms != 0);
                Ok(changes.map(|_| Change::Touch(*ttl)))
            }
            Self::Refuse(fault) => match old {
                Some(_) => Err(fault.clone()),
                None => {
                    tell(None, version, out);
                    Ok(None)
                }
            },
            Self::Add(by) => {
                let old = match value {
                    Some(value) => Decimal::parse(value).ok_or(NOT_A_FLOAT)?,
                    None => Decimal::zero(),
                };
                let sum = old.plus(by).ok_or(Fault::Borrowed(
                    "ERR increment would produce NaN or Infinity",
                ))?;
                reply::bulk(out, sum.as_bytes());
                let value = Cow::Owned(sum.into_bytes());
                Ok(Some(Change::Put { value, ttl: kept }))
            }
            Self::Persist => {
                let changes = old.is_some_and(|(meta, _)| meta.expires_ms != 0);
                reply::integer(out, i64::from(changes));
                Ok(changes.then_some(Change::Touch(Ttl::Never)))
            }
            Self::Expire { ttl, at_ms, only } => {
                let changes = old.is_some_and(|(meta, _)| only.holds(meta.expires_ms, *at_ms));
                reply::integer(out, i64::from(changes));
                Ok(changes.then_some(ttl.map_or(Change::Delete, Change::Touch)))
            }
        }
    }
}

impl ExpireIf {
    /// Whether a record that expires then (never, for 0) may expire at `at_ms`.
    fn holds(self, expires_ms: u64, at_ms: u64) -> bool {
        let never = expires_ms == 0;
        !(self.never && !never
            || self.some && never
            || self.later && (never || at_ms <= expires_ms)
            || self.sooner && !never && at_ms >= expires_ms)
    }
}

fn tell(value: Option<&[u8]>, version: Version, out: &mut Vec<u8>) {
    match value {
        Some(value) => reply::bulk(out, value),
        None => out.extend_from_slice(reply::null(version)),
    }
}

fn check_length(length: u64, limit: usize) -> Result<(), Fault> {
    if length > limit as u64 {
        return Err("ERR string exceeds maximum allowed size (proto-max-bulk-len)".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(modify: &Modify, old: Option<(u64, &str)>) -> (String, Option<String>) {
        let meta = Meta {
            version: 7,
            expires_ms: old.map_or(0, |(expires, _)| expires),
            ..Meta::default()
        };
        let old = old.map(|(_, value)| (&meta, value.as_bytes()));
        let mut out = Vec::new();
        let change = modify.change(old, 10, Version::Two, &mut out);
        let said = match &change {
            Ok(_) => String::from_utf8(out).unwrap(),
            Err(fault) => fault.to_string(),
        };
        let change = change.ok().flatten().map(|change| match change {
            Change::Put { value, ttl } => format!("{}, {ttl:?}", String::from_utf8_lossy(&value)),
            Change::Delete => "delete".to_owned(),
            Change::Touch(ttl) => format!("{ttl:?}"),
        });
        (said, change)
    }

    #[test]
    fn values_grow_within_the_limit() {
        let append = Modify::Append((*b"cd").into());
        let is = |found: (String, Option<String>), said: &str, change: Option<&str>| {
            assert_eq!((found.0.as_str(), found.1.as_deref()), (said, change));
        };
        is(run(&append, Some((0, "ab"))), ":4\r\n", Some("abcd, Keep"));
        is(run(&append, None), ":2\r\n", Some("cd, Keep"));
        let too_long = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
        is(run(&append, Some((0, "123456789"))), too_long, None);
        let value = (*b"xy").into();
        let range = Modify::SetRange { offset: 3, value };
        is(run(&range, None), ":5\r\n", Some("\0\0\0xy, Keep"));
        is(
            run(&range, Some((0, "abcdefg"))),
            ":7\r\n",
            Some("abcxyfg, Keep"),
        );
        let value = (*b"").into();
        let nothing = Modify::SetRange { offset: 3, value };
        is(run(&nothing, Some((0, "ab"))), ":2\r\n", None);
        let value = (*b"x").into();
        let far = Modify::SetRange {
            offset: u64::MAX,
            value,
        };
        is(run(&far, None), too_long, None);
    }

    #[test]
    fn expiries_change_only_as_asked() {
        let expire = |only, ttl| Modify::Expire {
            ttl,
            at_ms: 500,
            only,
        };
        let only = |never, some, later, sooner| ExpireIf {
            never,
            some,
            later,
            sooner,
        };
        let then = Some(Ttl::AtMs(500));
        for (only, expires, changes) in [
            (only(true, false, false, false), 0, true),
            (only(true, false, false, false), 400, false),
            (only(false, true, false, false), 0, false),
            (only(false, true, false, false), 400, true),
            (only(false, false, true, false), 0, false),
            (only(false, false, true, false), 400, true),
            (only(false, false, true, false), 500, false),
            (only(false, false, false, true), 0, true),
            (only(false, false, false, true), 600, true),
            (only(false, false, false, true), 500, false),
            (only(false, true, false, true), 0, false),
        ] {
            let (said, change) = run(&expire(only, then), Some((expires, "x")));
            assert_eq!(
                said,
                format!(":{}\r\n", u8::from(changes)),
                "{only:?} {expires}"
            );
            assert_eq!(change.is_some(), changes);
        }
        let past = run(&expire(ExpireIf::default(), None), Some((0, "x")));
        assert_eq!(past, (":1\r\n".into(), Some("delete".into())));
        assert_eq!(run(&Modify::Persist, Some((0, "x"))).0, ":0\r\n");
        assert_eq!(run(&Modify::Persist, Some((5, "x"))).0, ":1\r\n");
        assert_eq!(run(&Modify::Persist, None).0, ":0\r\n");
    }

    #[test]
    fn the_old_value_is_told() {
        let set = |condition| Modify::Set {
            value: (*b"new").into(),
            ttl: Ttl::Default,
            condition,
        };
        let is = |found: (String, Option<String>), said: &str, writes: bool| {
            assert_eq!((found.0.as_str(), found.1.is_some()), (said, writes));
        };
        is(
            run(&set(Condition::None), Some((0, "old"))),
            "$3\r\nold\r\n",
            true,
        );
        is(run(&set(Condition::None), None), "$-1\r\n", true);
        is(
            run(&set(Condition::Absent), Some((0, "old"))),
            "$3\r\nold\r\n",
            false,
        );
        is(run(&set(Condition::Present), None), "$-1\r\n", false);
        is(run(&Modify::Delete, None), "$-1\r\n", false);
        is(run(&Modify::Delete, Some((0, "x"))), "$1\r\nx\r\n", true);
        is(
            run(&Modify::Touch(Ttl::Never), Some((0, "x"))),
            "$1\r\nx\r\n",
            false,
        );
        is(
            run(&Modify::Touch(Ttl::Never), Some((9, "x"))),
            "$1\r\nx\r\n",
            true,
        );
    }

    #[test]
    fn sums_of_fractions() {
        let add = Modify::Add(Decimal::parse(b"0.1").unwrap());
        assert_eq!(run(&add, Some((0, "1.5"))).0, "$3\r\n1.6\r\n");
        assert_eq!(run(&add, None).0, "$3\r\n0.1\r\n");
        assert_eq!(
            run(&add, Some((0, "x"))).0,
            "ERR value is not a valid float"
        );
    }
}
