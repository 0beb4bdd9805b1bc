//! `ringbolt incr`: adds to a number.

use std::io::Write as _;

use ringbolt_wire::message::Ttl;

use super::args::{ClientArgs, ConditionArgs, KeyArgs, WriteArgs, parse_ttl};
use super::failure::Outcome;
use super::output::{Format, Out};
use super::remote::{self, Done};

const EXAMPLES: &str = "\
Examples:
  One more, ten more, two fewer; the new number is printed:
    ringbolt incr visits
    ringbolt incr visits 10
    ringbolt incr visits -2

  A counter that is gone an hour after it was last counted:
    ringbolt incr limit:10.0.0.1 --ttl 1h

A key that does not exist counts as 0. The number is a decimal from -2^63 to 2^63-1; the server
refuses to pass the bounds, and to count what is no number.";

/// Adds to a number and prints the new one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The key.
    key: String,

    /// How much to add.
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    by: i64,

    /// When it expires: a time such as 90s or 1h 30m, never, keep (as it is), default (the
    /// keyspace's), or @UNIX_MS.
    #[arg(long, value_name = "TIME", default_value = "keep", value_parser = parse_ttl)]
    ttl: Ttl,

    #[command(flatten)]
    keys: KeyArgs,

    #[command(flatten)]
    condition: ConditionArgs,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let key = self.keys.key(&self.key)?;
        let options = remote::write_options(&self.write, self.condition.condition(), self.ttl);
        let (_client, keyspace) = remote::open(&self.client, &self.keys)?;
        let result = keyspace.increment_with(&key, self.by, &options);
        let format = self.client.output.format;
        remote::tell_written(
            out,
            format,
            Some(&key),
            result,
            |out, counter| match format {
                Format::Text => writeln!(out, "{}", counter.value),
                Format::Json => out.json(&Done {
                    value: Some(counter.value),
                    ..Done::new(&key, &counter.token)
                }),
            },
        )
    }
}
