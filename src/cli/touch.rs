//! `ringbolt touch`: changes when a record expires.

use std::io::Write as _;

use ringbolt_wire::message::{Condition, Ttl};

use super::args::{ClientArgs, KeyArgs, WriteArgs, parse_ttl};
use super::failure::{Answer, Outcome};
use super::output::{Format, Out};
use super::remote::{self, Done};

const EXAMPLES: &str = "\
Examples:
  Half an hour more, or for ever:
    ringbolt touch session:42 --ttl 30m
    ringbolt touch session:42 --ttl never

Exits with 1 if the key does not exist or the condition did not hold.";

/// Changes when a record expires, and nothing else.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The key.
    key: String,

    /// When it expires: a time such as 90s or 1h 30m, never, default (the keyspace's), or
    /// @UNIX_MS.
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Ttl,

    /// Only if the key has this version (see `ringbolt stat`).
    #[arg(long, value_name = "VERSION", help_heading = "Condition")]
    if_version: Option<u64>,

    #[command(flatten)]
    keys: KeyArgs,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let key = self.keys.key(&self.key)?;
        let condition = self.if_version.map_or(Condition::None, Condition::Version);
        let options = remote::write_options(&self.write, condition, self.ttl);
        let (_client, keyspace) = remote::open(&self.client, &self.keys)?;
        let format = self.client.output.format;
        let result = match keyspace.touch_with(&key, &options) {
            Ok(Some(written)) => Ok(written),
            Ok(None) => {
                remote::tell_missing(out, format, &key)?;
                return Ok(Answer::No);
            }
            Err(error) => Err(error),
        };
        remote::tell_written(
            out,
            format,
            Some(&key),
            result,
            |out, written| match format {
                Format::Text => writeln!(out, "OK version {}", written.version()),
                Format::Json => out.json(&Done::new(&key, &written.token)),
            },
        )
    }
}
