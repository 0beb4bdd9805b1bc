//! `ringbolt del`: removes a key.

use std::io::Write as _;

use ringbolt_wire::message::{Condition, Ttl};

use super::args::{ClientArgs, KeyArgs, WriteArgs};
use super::failure::Outcome;
use super::output::{Format, Out};
use super::remote::{self, Done};

const EXAMPLES: &str = "\
Examples:
  A key; it is no error if it does not exist:
    ringbolt del greeting

  Only if it exists, or has not changed since version 17:
    ringbolt del greeting --if-present
    ringbolt del config --if-version 17

Exits with 1 if the condition did not hold.";

/// Removes a key.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The key.
    key: String,

    /// Only if the key exists.
    #[arg(long, conflicts_with = "if_version", help_heading = "Condition")]
    if_present: bool,

    /// Only if the key exists with this version (see `ringbolt stat`).
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
        let condition = match (self.if_present, self.if_version) {
            (true, _) => Condition::Present,
            (_, Some(version)) => Condition::Version(version),
            _ => Condition::None,
        };
        let options = remote::write_options(&self.write, condition, Ttl::Default);
        let (_client, keyspace) = remote::open(&self.client, &self.keys)?;
        let result = keyspace.delete_with(&key, &options);
        let format = self.client.output.format;
        remote::tell_written(
            out,
            format,
            Some(&key),
            result,
            |out, written| match format {
                Format::Text => writeln!(out, "OK"),
                Format::Json => out.json(&Done {
                    existed: written.existed,
                    ..Done::new(&key, &written.token)
                }),
            },
        )
    }
}
