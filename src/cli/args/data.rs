//! Keys, conditions, expiry, acknowledgement and freshness as arguments.

use clap::Args;
use ringbolt_wire::message::{Ack, Condition, ReadLevel, Token, Ttl};

use crate::cli::failure::Failure;
use crate::cli::output::from_base64;
use crate::config::parse_span;

/// Arguments of every command on keys.
#[derive(Debug, Clone, Args)]
pub struct KeyArgs {
    /// The keyspace.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub keyspace: String,

    /// Keys and values on the command line are base64, for bytes that are no text.
    #[arg(long)]
    pub base64: bool,
}

impl KeyArgs {
    /// The bytes of a key or value as given.
    ///
    /// # Errors
    /// It is said to be base64 and is not.
    pub fn bytes(&self, text: &str) -> Result<Vec<u8>, Failure> {
        match self.base64 {
            true => from_base64(text).map_err(Failure::usage),
            false => Ok(text.as_bytes().to_vec()),
        }
    }

    /// The bytes of a key.
    ///
    /// # Errors
    /// It is empty or too long, or no base64 though said to be.
    pub fn key(&self, text: &str) -> Result<Vec<u8>, Failure> {
        let key = self.bytes(text)?;
        check_key(&key).map_err(Failure::usage)?;
        Ok(key)
    }
}

/// Refuses a key that no server takes.
pub(crate) fn check_key(key: &[u8]) -> Result<(), String> {
    let max = ringbolt_wire::KEY_BYTES_MAX as usize;
    match key.len() {
        0 => Err("the key is empty: keys have 1 byte to 64KiB".into()),
        length if length > max => Err(format!(
            "the key has {length} bytes: keys have 1 byte to 64KiB"
        )),
        _ => Ok(()),
    }
}

/// What must hold for a write to be done.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Condition")]
pub struct ConditionArgs {
    /// Only if the key does not exist.
    #[arg(long, group = "condition")]
    pub if_absent: bool,

    /// Only if the key exists.
    #[arg(long, group = "condition")]
    pub if_present: bool,

    /// Only if the key exists with this version (see `ringbolt stat`).
    #[arg(long, value_name = "VERSION", group = "condition")]
    pub if_version: Option<u64>,
}

impl ConditionArgs {
    /// The condition.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match (self.if_absent, self.if_present, self.if_version) {
            (true, _, _) => Condition::Absent,
            (_, true, _) => Condition::Present,
            (_, _, Some(version)) => Condition::Version(version),
            _ => Condition::None,
        }
    }
}

/// How a write is acknowledged.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Safety")]
pub struct WriteArgs {
    /// When to acknowledge: leader, quorum, all, or a number of voters.
    #[arg(long, value_name = "LEVEL", default_value = "quorum", value_parser = parse_ack)]
    pub ack: Ack,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Freshness")]
pub struct ReadArgs {
    /// linearizable, strict, session, or stale:AGE such as stale:5s [default: linearizable, or
    /// session with --token].
    #[arg(long, value_name = "LEVEL", value_parser = parse_read_level)]
    pub read: Option<ReadLevel>,

    /// Sees at least what an earlier command saw: its token (JSON output); several with commas.
    #[arg(long, value_name = "TOKEN", value_delimiter = ',', value_parser = parse_token)]
    pub token: Vec<Token>,
}

impl ReadArgs {
    /// The level: what was asked for, or what the tokens need.
    #[must_use]
    pub fn level(&self) -> ReadLevel {
        match self.read {
            Some(level) => level,
            None if self.token.is_empty() => ReadLevel::Linearizable,
            None => ReadLevel::Session,
        }
    }
}

/// Parses an acknowledgement level.
///
/// # Errors
/// In words, what is valid.
fn parse_ack(text: &str) -> Result<Ack, String> {
    match text {
        "leader" => Ok(Ack::Leader),
        "quorum" => Ok(Ack::Quorum),
        "all" => Ok(Ack::All),
        number => match number.parse::<u8>() {
            Ok(count @ 1..) => Ok(Ack::Count(count)),
            _ => Err("expected leader, quorum, all, or a number from 1 to 255".into()),
        },
    }
}

/// Parses a read level.
///
/// # Errors
/// In words, what is valid.
fn parse_read_level(text: &str) -> Result<ReadLevel, String> {
    match text {
        "linearizable" => Ok(ReadLevel::Linearizable),
        "strict" => Ok(ReadLevel::Strict),
        "session" => Ok(ReadLevel::Session),
        _ => {
            let Some(age) = text.strip_prefix("stale:") else {
                return Err("expected linearizable, strict, session, or stale:AGE".into());
            };
            let age = parse_span(age)?.as_millis();
            let max_age_ms = u32::try_from(age).map_err(|_| "an age of more than 49 days")?;
            Ok(ReadLevel::Stale { max_age_ms })
        }
    }
}

fn parse_token(text: &str) -> Result<Token, String> {
    text.parse().map_err(|_| {
        "not a token: it has the form PARTITION:TERM:INDEX, as JSON output shows it".to_string()
    })
}

/// Parses an expiry: a time span, `never`, `keep`, `default`, or `@` and Unix milliseconds.
///
/// # Errors
/// In words, what is valid.
pub fn parse_ttl(text: &str) -> Result<Ttl, String> {
    match text {
        "default" => Ok(Ttl::Default),
        "never" => Ok(Ttl::Never),
        "keep" => Ok(Ttl::Keep),
        _ => {
            if let Some(at) = text.strip_prefix('@') {
                return match at.parse::<u64>() {
                    Ok(ms @ 1..) => Ok(Ttl::AtMs(ms)),
                    _ => Err("expected @ and milliseconds since 1970".into()),
                };
            }
            let span = parse_span(text)
                .map_err(|error| format!("{error}; or never, keep, default, @UNIX_MS"))?;
            match u64::try_from(span.as_millis()) {
                Ok(ms @ 1..) => Ok(Ttl::AfterMs(ms)),
                _ => Err("a time of less than 1ms, or beyond all bounds".into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        assert_eq!(parse_ack("quorum"), Ok(Ack::Quorum));
        assert_eq!(parse_ack("3"), Ok(Ack::Count(3)));
        assert!(parse_ack("0").is_err() && parse_ack("some").is_err());
        assert_eq!(parse_read_level("strict"), Ok(ReadLevel::Strict));
        assert_eq!(
            parse_read_level("stale:1500ms"),
            Ok(ReadLevel::Stale { max_age_ms: 1500 })
        );
        assert!(parse_read_level("stale").is_err() && parse_read_level("stale:99w").is_err());
    }

    #[test]
    fn expiry() {
        assert_eq!(parse_ttl("90s"), Ok(Ttl::AfterMs(90_000)));
        assert_eq!(
            parse_ttl("@1700000000000"),
            Ok(Ttl::AtMs(1_700_000_000_000))
        );
        assert_eq!(parse_ttl("never"), Ok(Ttl::Never));
        assert_eq!(parse_ttl("keep"), Ok(Ttl::Keep));
        for wrong in ["", "0", "5", "@", "@x", "soon"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong}");
        }
    }
}
