//! `ringbolt stat`: what is known of a record beside its value.

use std::io::Write as _;

use serde::Serialize;

use super::args::{ClientArgs, KeyArgs, ReadArgs};
use super::failure::{Answer, Outcome};
use super::output::{Format, Out, Row, show_time};
use super::remote;

const EXAMPLES: &str = "\
Examples:
  Version, times and size:
    ringbolt stat greeting

  The version alone, for a conditional write:
    version=$(ringbolt stat config --format json | jq .version)
    ringbolt put config new --if-version \"$version\"

Exits with 1 if the key does not exist.";

/// Shows a record's version, times and size.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The key.
    key: String,

    #[command(flatten)]
    keys: KeyArgs,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Serialize)]
struct StatRow<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    value_bytes: u64,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let key = self.keys.key(&self.key)?;
        let (client, keyspace) = remote::open(&self.client, &self.keys)?;
        let options = remote::read_options(&client, &self.read);
        let Some(stat) = keyspace.stat_with(&key, &options)? else {
            remote::tell_missing(out, self.client.output.format, &key)?;
            return Ok(Answer::No);
        };
        let meta = stat.meta;
        match self.client.output.format {
            Format::Json => {
                let mut row = Row::new(&key, None, &meta);
                row.token = client.tokens().first().map(ToString::to_string);
                out.json(&StatRow {
                    row,
                    value_bytes: stat.value_bytes,
                })?;
            }
            Format::Text => {
                writeln!(out, "version  {}", meta.version)?;
                writeln!(out, "bytes    {}", stat.value_bytes)?;
                writeln!(out, "created  {}", show_time(meta.created_ms))?;
                writeln!(out, "updated  {}", show_time(meta.updated_ms))?;
                match meta.expires_ms {
                    0 => writeln!(out, "expires  never")?,
                    ms => writeln!(out, "expires  {}", show_time(ms))?,
                }
            }
        }
        Ok(Answer::Yes)
    }
}
