//! Arguments by their meaning, and the words for those that have none.

use std::borrow::Cow;

use super::number;

/// Why a command is not done, in Redis's words, its code word first.
pub(crate) type Fault = Cow<'static, str>;

pub(crate) const SYNTAX: Fault = Cow::Borrowed("ERR syntax error");
pub(crate) const NOT_AN_INTEGER: Fault =
    Cow::Borrowed("ERR value is not an integer or out of range");
pub(crate) const NOT_A_FLOAT: Fault = Cow::Borrowed("ERR value is not a valid float");
pub(crate) const WOULD_OVERFLOW: &str = "ERR increment or decrement would overflow";

pub(crate) fn integer(argument: &[u8]) -> Result<i64, Fault> {
    number::parse(argument).ok_or(NOT_AN_INTEGER)
}

pub(crate) fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// A text of a client's, as an error may repeat it: at most 128 bytes.
pub(crate) fn repeated(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&text[..text.len().min(128)])
}

pub(crate) fn wrong_arity(name: &str) -> Fault {
    format!("ERR wrong number of arguments for '{name}' command").into()
}

pub(crate) fn invalid_expire(name: &str) -> Fault {
    format!("ERR invalid expire time in '{name}' command").into()
}

pub(crate) fn unknown(arguments: &[&[u8]]) -> Fault {
    let (name, rest) = match arguments {
        [name, rest @ ..] => (*name, rest),
        [] => (&[][..], &[][..]),
    };
    let mut shown = String::new();
    for argument in rest {
        let room = 128usize.saturating_sub(shown.len());
        if room == 0 {
            break;
        }
        // As a C string: up to a zero byte.
        let end = argument.iter().position(|&byte| byte == 0);
        let part = &argument[..end.unwrap_or(argument.len()).min(room)];
        shown.push_str(&format!("'{}' ", String::from_utf8_lossy(part)));
    }
    let name = repeated(name);
    format!("ERR unknown command '{name}', with args beginning with: {shown}").into()
}

pub(crate) fn unknown_sub(command: &str, sub: &[u8]) -> Fault {
    let (sub, command) = (repeated(sub), command.to_ascii_uppercase());
    format!("ERR unknown subcommand '{sub}'. Try {command} HELP.").into()
}
