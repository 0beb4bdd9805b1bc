//! The server as commands see it: connecting, and what its errors mean for the exit code.

use std::io;

use ringbolt_client::blocking::{Client, Keyspace};
use ringbolt_client::{Error, ReadOptions, WriteOptions};
use ringbolt_wire::message::{Condition, Token, Ttl};
use serde::Serialize;

use super::args::{ClientArgs, KeyArgs, ReadArgs, WriteArgs};
use super::failure::{Answer, Failure, FailureKind, Outcome};
use super::output::{Format, JsonBytes, Out};

/// Connects.
///
/// # Errors
/// The server is not reached.
pub fn connect(args: &ClientArgs) -> Result<Client, Failure> {
    let client = Client::builder()
        .addresses(&args.addr)
        .agent(concat!("ringbolt ", env!("CARGO_PKG_VERSION")))
        .connect_timeout(args.timeout)
        .deadline(args.timeout)
        .connect_blocking()?;
    Ok(client)
}

/// Connects, and finds the keyspace.
///
/// # Errors
/// The server is not reached, or has no such keyspace.
pub fn open(client: &ClientArgs, keys: &KeyArgs) -> Result<(Client, Keyspace), Failure> {
    let client = connect(client)?;
    let keyspace = client.keyspace(&keys.keyspace)?;
    Ok((client, keyspace))
}

/// How to read, as the arguments say; the client is told what was seen before.
pub fn read_options(client: &Client, args: &ReadArgs) -> ReadOptions {
    client.import_tokens(args.token.iter().copied());
    ReadOptions::new().level(args.level())
}

/// How to write, as the arguments say.
pub fn write_options(args: &WriteArgs, condition: Condition, ttl: Ttl) -> WriteOptions {
    WriteOptions::new()
        .ack(args.ack)
        .condition(condition)
        .ttl(ttl)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::InDoubt(_) | Error::CommittedNotAll => FailureKind::InDoubt,
            _ => FailureKind::Refused,
        };
        let message = match &error {
            // The failure says so itself.
            Error::InDoubt(why) => format!("the write may or may not have been done: {why}"),
            Error::Unreachable { .. } => {
                format!("{error}; is a server running there? (ringbolt server, --addr)")
            }
            Error::DeadlineExceeded => {
                "the deadline passed and nothing was done; give more time with --timeout".into()
            }
            error => error.to_string(),
        };
        let retry_after = match &error {
            Error::Refused(reason) | Error::Stale(reason) => reason.retry_after,
            _ => None,
        };
        Self {
            code: error.code().map(|code| format!("{code:?}")),
            retry_after_ms: retry_after.map(|time| u64::try_from(time.as_millis()).unwrap_or(0)),
            ..Self::new(kind, message)
        }
    }
}

/// Tells of a write: what it did, or that its condition did not hold.
///
/// # Errors
/// The write's own, and those of standard output.
pub fn tell_written<T>(
    out: &mut Out,
    format: Format,
    key: Option<&[u8]>,
    result: Result<T, Error>,
    tell: impl FnOnce(&mut Out, T) -> io::Result<()>,
) -> Outcome {
    match result {
        Ok(done) => {
            tell(out, done)?;
            Ok(Answer::Yes)
        }
        Err(Error::ConditionFailed { version }) => {
            match format {
                Format::Text => eprintln!("ringbolt: not done: {}", current(version)),
                Format::Json => out.json(&NotDone {
                    key: key.map(JsonBytes),
                    done: false,
                    version,
                })?,
            }
            Ok(Answer::No)
        }
        Err(error) => Err(error.into()),
    }
}

/// Tells that a key does not exist.
///
/// # Errors
/// Those of standard output.
pub fn tell_missing(out: &mut Out, format: Format, key: &[u8]) -> io::Result<()> {
    match format {
        Format::Text => eprintln!("ringbolt: not found: {}", key.escape_ascii()),
        Format::Json => out.json(&Missing {
            key: JsonBytes(key),
            value: None,
        })?,
    }
    Ok(())
}

fn current(version: Option<u64>) -> String {
    match version {
        Some(version) => format!("the key exists, with version {version}"),
        None => "the key does not exist".to_string(),
    }
}

#[derive(Serialize)]
struct NotDone<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<JsonBytes<&'a [u8]>>,
    done: bool,
    /// What the key has; null where it does not exist.
    version: Option<u64>,
}

#[derive(Serialize)]
struct Missing<'a> {
    key: JsonBytes<&'a [u8]>,
    value: Option<()>,
}

/// A write that was done, as JSON.
#[derive(Debug, Serialize)]
pub struct Done<'a> {
    /// The key.
    pub key: JsonBytes<&'a [u8]>,
    /// True; where a condition did not hold it is false.
    pub done: bool,
    /// The record's new version.
    pub version: u64,
    /// The new number, of an increment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// Whether the key existed before, where the server looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existed: Option<bool>,
    /// For `--token` of a later read.
    pub token: String,
}

impl<'a> Done<'a> {
    /// A write of `key` that stands at `token`.
    #[must_use]
    pub fn new(key: &'a [u8], token: &Token) -> Self {
        Self {
            key: JsonBytes(key),
            done: true,
            version: token.index,
            value: None,
            existed: None,
            token: token.to_string(),
        }
    }
}
