//! From bytes to the arguments of commands: arrays of bulk strings, and inline commands.
//!
//! Arguments of arrays are slices of the input: nothing is copied, and nothing allocated for commands
//! of up to [`ARGUMENTS_INLINE`] arguments. A length is believed only up to the limits, and no
//! memory is set aside for it. A command that has not arrived whole says how many bytes it needs at
//! least, so that it is not parsed again for each piece of it.

use smallvec::SmallVec;

/// Arguments that need no memory of their own.
pub(crate) const ARGUMENTS_INLINE: usize = 8;
/// Longest line (an inline command, or a length) in bytes, as Redis has it.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;

/// The arguments of one command, its name first.
pub(crate) type Arguments<'a> = SmallVec<[&'a [u8]; ARGUMENTS_INLINE]>;

/// What a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParseLimits {
    /// Largest argument, in bytes.
    pub(crate) argument_bytes_max: usize,
    /// Most arguments of a command, its name among them.
    pub(crate) arguments_max: usize,
    /// Longest command, in bytes.
    pub(crate) command_bytes_max: usize,
}

/// What the first bytes of an input are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// More is needed: `need` bytes in all, at least.
    Incomplete {
        /// How many.
        need: usize,
    },
    /// An array: a command without a name if it has no arguments, to be passed over.
    Command {
        /// Its arguments.
        arguments: Arguments<'a>,
        /// Its length in bytes.
        len: usize,
    },
    /// An inline command: its words may have been quoted, and are not those of the input.
    Inline {
        /// Its words.
        words: Vec<Vec<u8>>,
        /// Its length in bytes.
        len: usize,
    },
}

/// The input is not the protocol: answered in Redis's words, then the connection is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    #[error("Protocol error: too big mbulk count string")]
    CountTooBig,
    #[error("Protocol error: invalid multibulk length")]
    Count,
    #[error("Protocol error: too big bulk count string")]
    LengthTooBig,
    #[error("Protocol error: invalid bulk length")]
    Length,
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0).escape_default())]
    NoBulk(u8),
    #[error("Protocol error: a bulk string does not end with CRLF")]
    NoEnd,
    #[error("Protocol error: a command is over the limit of {0} bytes")]
    CommandTooBig(usize),
}

/// Looks at the first command of an input, which must not be empty.
pub(crate) fn next<'a>(input: &'a [u8], limits: &ParseLimits) -> Result<Parsed<'a>, ProtocolError> {
    if input.first() == Some(&b'*') {
        array(input, limits)
    } else {
        inline(input)
    }
}

/// The key that the first command asks for and the command's length in bytes, if it is a whole `GET` as
/// clients write it: good for a guess of what is to come, and cheap.
pub(crate) fn guess_get(input: &[u8]) -> Option<(&[u8], usize)> {
    const HEAD: &[u8] = b"*2\r\n$3\r\nGET\r\n$";
    let head = input.get(..HEAD.len())?;
    if !head.eq_ignore_ascii_case(HEAD) {
        return None;
    }
    let (length, start) = line(input, HEAD.len(), ProtocolError::LengthTooBig).ok()??;
    let length = usize::try_from(super::number::parse(length)?).ok()?;
    let key = input.get(start..)?.get(..length)?;
    let len = start + length + 2;
    (len <= input.len()).then_some((key, len))
}

fn array<'a>(input: &'a [u8], limits: &ParseLimits) -> Result<Parsed<'a>, ProtocolError> {
    let Some((count, mut at)) = line(input, 1, ProtocolError::CountTooBig)? else {
        return Ok(incomplete(input));
    };
    let count = super::number::parse(count).ok_or(ProtocolError::Count)?;
    if count <= 0 {
        return Ok(Parsed::Command {
            arguments: Arguments::new(),
            len: at,
        });
    }
    if count > limits.arguments_max as i64 {
        return Err(ProtocolError::Count);
    }
    let mut arguments = Arguments::new();
    for _ in 0..count {
        match input.get(at) {
            None => return Ok(incomplete(input)),
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::NoBulk(other)),
        }
        let Some((length, start)) = line(input, at + 1, ProtocolError::LengthTooBig)? else {
            return Ok(incomplete(input));
        };
        let length = super::number::parse(length)
            .and_then(|length| usize::try_from(length).ok())
            .filter(|&length| length <= limits.argument_bytes_max)
            .ok_or(ProtocolError::Length)?;
        let end = start + length;
        if end + 2 > limits.command_bytes_max {
            return Err(ProtocolError::CommandTooBig(limits.command_bytes_max));
        }
        let Some(argument) = input.get(start..end + 2) else {
            return Ok(Parsed::Incomplete { need: end + 2 });
        };
        if !argument.ends_with(b"\r\n") {
            return Err(ProtocolError::NoEnd);
        }
        arguments.push(&argument[..length]);
        at = end + 2;
    }
    Ok(Parsed::Command { arguments, len: at })
}

/// The line that begins at `from`, without its end, and where the next one begins.
fn line(
    input: &[u8],
    from: usize,
    too_long: ProtocolError,
) -> Result<Option<(&[u8], usize)>, ProtocolError> {
    let rest = input.get(from..).unwrap_or_default();
    // Lengths are short: looking for the end byte by byte beats a search made for long ones.
    match rest.iter().take(LINE_BYTES_MAX).position(|&b| b == b'\r') {
        None if rest.len() >= LINE_BYTES_MAX => Err(too_long),
        None => Ok(None),
        // The byte behind it is passed over unseen, as Redis does.
        Some(end) if end + 1 < rest.len() => Ok(Some((&rest[..end], from + end + 2))),
        Some(_) => Ok(None),
    }
}

fn incomplete<'a>(input: &[u8]) -> Parsed<'a> {
    Parsed::Incomplete {
        need: input.len() + 1,
    }
}

fn inline(input: &[u8]) -> Result<Parsed<'_>, ProtocolError> {
    let end = input
        .iter()
        .take(LINE_BYTES_MAX)
        .position(|&byte| byte == b'\n');
    let Some(end) = end else {
        if input.len() >= LINE_BYTES_MAX {
            return Err(ProtocolError::InlineTooBig);
        }
        return Ok(incomplete(input));
    };
    let text = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    let words = words(text).ok_or(ProtocolError::Quotes)?;
    Ok(Parsed::Inline {
        words,
        len: end + 1,
    })
}

/// The words of a line: apart by white space, in quotes where they contain some. `None` if a quote is not
/// closed, or something stands right behind it.
fn words(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        while let Some((first, behind)) = rest.split_first()
            && is_space(first)
        {
            rest = behind;
        }
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        loop {
            match rest {
                [] => break,
                [byte, ..] if is_space(byte) => break,
                [b'"', behind @ ..] => {
                    rest = double_quoted(behind, &mut word)?;
                    break;
                }
                [b'\'', behind @ ..] => {
                    rest = single_quoted(behind, &mut word)?;
                    break;
                }
                [byte, behind @ ..] => {
                    word.push(*byte);
                    rest = behind;
                }
            }
        }
        if rest.first().is_some_and(|byte| !is_space(byte)) {
            return None;
        }
        words.push(word);
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    loop {
        match rest {
            [] => return None,
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', b'x', high, low, behind @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push((digit(*high)? * 16 + digit(*low)?) as u8);
                rest = behind;
            }
            [b'\\', escaped, behind @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = behind;
            }
            [byte, behind @ ..] => {
                word.push(*byte);
                rest = behind;
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'\'', behind @ ..] => return Some(behind),
            [b'\\', b'\'', behind @ ..] => {
                word.push(b'\'');
                rest = behind;
            }
            [byte, behind @ ..] => {
                word.push(*byte);
                rest = behind;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: ParseLimits = ParseLimits {
        argument_bytes_max: 1000,
        arguments_max: 20,
        command_bytes_max: 3000,
    };

    fn encode(arguments: &[Vec<u8>]) -> Vec<u8> {
        let mut out = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            out.extend_from_slice(argument);
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    #[test]
    fn what_a_get_asks_for_is_guessed_from_its_bytes() {
        for name in ["GET", "get", "gEt"] {
            let one = encode(&[name.into(), b"a key".to_vec()]);
            let two = [one.clone(), one.clone()].concat();
            for input in [&one, &two] {
                assert_eq!(guess_get(input), Some((&b"a key"[..], one.len())));
            }
            for short in 0..one.len() {
                assert_eq!(guess_get(&one[..short]), None, "{short}");
            }
        }
        for other in [
            &b"*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n"[..],
            b"*3\r\n$3\r\nGET\r\n$1\r\nk\r\n",
            b"*2\r\n$3\r\nGET\r\n$-1\r\n",
            b"*2\r\n$3\r\nGET\r\n$9223372036854775807\r\nk\r\n",
            b"*2\r\n$3\r\nGET\r\n$x\r\nk\r\n",
            b"GET k\r\n",
        ] {
            assert_eq!(guess_get(other), None);
        }
    }

    fn split(text: &str) -> Option<Vec<String>> {
        let words = words(text.as_bytes())?;
        Some(
            words
                .into_iter()
                .map(|word| String::from_utf8(word).unwrap())
                .collect(),
        )
    }

    #[test]
    fn inline_commands_are_split_as_redis_splits_them() {
        let is = |text, expected: &[&str]| assert_eq!(split(text).unwrap(), expected, "{text}");
        is("", &[]);
        is("  PING ", &["PING"]);
        is("SET a 'it\\'s'", &["SET", "a", "it's"]);
        is(r#"SET a "\x41\n\"b""#, &["SET", "a", "A\n\"b"]);
        is("SET a ''", &["SET", "a", ""]);
        is(r"a\b", &[r"a\b"]);
        for broken in ["'a", "\"a", "\"a\"b", "'a'b", "\"a\\"] {
            assert_eq!(split(broken), None, "{broken}");
        }
    }

    #[test]
    fn what_is_no_protocol_is_refused_in_redis_words() {
        let says = |input: &[u8], words: &str| {
            let error = next(input, &LIMITS).unwrap_err();
            assert_eq!(error.to_string(), format!("Protocol error: {words}"));
        };
        says(b"*x\r\n", "invalid multibulk length");
        says(b"*21\r\n", "invalid multibulk length");
        says(b"*1\r\n:1\r\n", "expected '$', got ':'");
        says(b"*1\r\n$-1\r\n", "invalid bulk length");
        says(b"*1\r\n$1001\r\n", "invalid bulk length");
        says(b"*1\r\n$01\r\nx\r\n", "invalid bulk length");
        says(b"*1\r\n$1\r\nxyz", "a bulk string does not end with CRLF");
        says(b"get \"a\r\n", "unbalanced quotes in request");
        let long = vec![b'1'; LINE_BYTES_MAX + 1];
        says(&long, "too big inline request");
        says(&[b"*", &long[..]].concat(), "too big mbulk count string");
        says(
            &[b"*1\r\n$", &long[..]].concat(),
            "too big bulk count string",
        );
        let four = vec![vec![b'x'; 900]; 4];
        says(&encode(&four), "a command is over the limit of 3000 bytes");
    }

    #[test]
    fn an_array_of_nothing_is_passed_over() {
        for empty in [&b"*0\r\n"[..], b"*-1\r\n"] {
            let expected = Parsed::Command {
                arguments: Arguments::new(),
                len: empty.len(),
            };
            assert_eq!(next(empty, &LIMITS), Ok(expected));
        }
    }

    proptest! {
        #[test]
        fn a_command_is_understood_once_it_is_whole(
            arguments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..12),
            behind in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let bytes = encode(&arguments);
            for end in 1..bytes.len() {
                match next(&bytes[..end], &LIMITS) {
                    Ok(Parsed::Incomplete { need }) => prop_assert!(need > end && need <= bytes.len()),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            let more = [&bytes[..], &behind].concat();
            let Ok(Parsed::Command { arguments: found, len }) = next(&more, &LIMITS) else {
                return Err(TestCaseError::fail("no command"));
            };
            prop_assert_eq!(len, bytes.len());
            prop_assert_eq!(found.to_vec(), arguments);
        }

        #[test]
        fn garbage_harms_nobody(input in prop::collection::vec(any::<u8>(), 1..200), star in any::<bool>()) {
            let mut input = input;
            if star {
                input[0] = b'*';
            }
            match next(&input, &LIMITS) {
                Ok(Parsed::Incomplete { need }) => prop_assert!(need > input.len()),
                Ok(Parsed::Command { len, .. } | Parsed::Inline { len, .. }) => {
                    prop_assert!(len > 0 && len <= input.len());
                }
                Err(_) => {}
            }
        }
    }
}
