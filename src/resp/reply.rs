//! Replies, appended to the buffer they are sent from.

/// `+OK`.
pub(crate) const OK: &[u8] = b"+OK\r\n";

/// The version of the protocol that a connection has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Version {
    /// The one that every client knows.
    #[default]
    Two,
    /// That of `HELLO 3`.
    Three,
}

/// Something does not exist.
pub(crate) fn null(version: Version) -> &'static [u8] {
    match version {
        Version::Two => b"$-1\r\n",
        Version::Three => b"_\r\n",
    }
}

/// A short text without line ends.
pub(crate) fn simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An error, its code word first. Line ends become spaces, as Redis has them.
pub(crate) fn error(out: &mut Vec<u8>, text: &str) {
    out.push(b'-');
    out.extend(text.bytes().map(|byte| match byte {
        b'\r' | b'\n' => b' ',
        byte => byte,
    }));
    out.extend_from_slice(b"\r\n");
}

/// A number.
pub(crate) fn integer(out: &mut Vec<u8>, number: i64) {
    prefixed(out, b':', number);
}

/// A string of bytes.
pub(crate) fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 24);
    prefixed(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// What `items` replies make up an array.
pub(crate) fn array(out: &mut Vec<u8>, items: usize) {
    prefixed(out, b'*', items as i64);
}

/// What `pairs` pairs of replies make up a map; an array of twice as many where there are no maps.
pub(crate) fn map(out: &mut Vec<u8>, version: Version, pairs: usize) {
    match version {
        Version::Two => prefixed(out, b'*', 2 * pairs as i64),
        Version::Three => prefixed(out, b'%', pairs as i64),
    }
}

/// What `items` replies make up a set; an array where there are no sets.
pub(crate) fn set(out: &mut Vec<u8>, version: Version, items: usize) {
    match version {
        Version::Two => prefixed(out, b'*', items as i64),
        Version::Three => prefixed(out, b'~', items as i64),
    }
}

/// A text for people, which clients do not take apart.
pub(crate) fn verbatim(out: &mut Vec<u8>, version: Version, text: &str) {
    match version {
        Version::Two => bulk(out, text.as_bytes()),
        Version::Three => {
            prefixed(out, b'=', text.len() as i64 + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn prefixed(out: &mut Vec<u8>, kind: u8, number: i64) {
    // Most lengths and counts are short: the formatter costs more than all of GET's parsing.
    if let 0..=9 = number {
        out.extend_from_slice(&[kind, b'0' + number as u8, b'\r', b'\n']);
        return;
    }
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.push(kind);
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// A line of `name:value`, as `INFO` has them.
pub(crate) fn field(text: &mut String, name: &str, value: impl std::fmt::Display) {
    use std::fmt::Write as _;
    // Writing to a string cannot fail.
    let _ = write!(text, "{name}:{value}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length() {
        let samples = [0, 9, 10, 100, 1234567890, i64::MAX, -1, -10, i64::MIN];
        for number in samples {
            let mut out = Vec::new();
            integer(&mut out, number);
            assert_eq!(out, format!(":{number}\r\n").as_bytes());
        }
    }

    #[test]
    fn an_error_stays_on_its_line() {
        let mut out = Vec::new();
        error(&mut out, "ERR a\r\nb");
        assert_eq!(out, b"-ERR a  b\r\n");
    }
}
