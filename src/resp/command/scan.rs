//! `SCAN`: its cursor and its options.

use super::super::syntax::{Fault, SYNTAX, integer, is};
use super::Command;

/// A page of `SCAN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScanPage<'a> {
    pub(crate) cursor: u64,
    pub(crate) pattern: &'a [u8],
    pub(crate) count: u32,
    /// Whether keys of strings are wanted: there are no others.
    pub(crate) strings: bool,
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

pub(super) fn scan<'a>(cursor: &[u8], options: &'a [&'a [u8]]) -> Result<Command<'a>, Fault> {
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
