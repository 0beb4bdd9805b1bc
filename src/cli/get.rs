//! `ringbolt get`: reads values.

use std::io::Write as _;

use super::args::{ClientArgs, KeyArgs, ReadArgs};
use super::failure::{Answer, Failure, Outcome};
use super::output::{Format, Out, Row};
use super::remote;

const EXAMPLES: &str = "\
Examples:
  The raw value, nothing added when it goes into a file or a pipe:
    ringbolt get greeting
    ringbolt get logo > logo.png

  With version and times:
    ringbolt get greeting --format json

  Several keys, one line each (key TAB value):
    ringbolt get user:1 user:2 user:3

  At least as new as an earlier write, from any replica:
    token=$(ringbolt put a 1 --format json | jq -r .token)
    ringbolt get a --token \"$token\"

Exits with 1 if a key does not exist.";

/// Reads values.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The key, or several.
    #[arg(required = true, value_name = "KEY")]
    wanted: Vec<String>,

    #[command(flatten)]
    keys: KeyArgs,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let wanted: Result<Vec<_>, Failure> =
            self.wanted.iter().map(|key| self.keys.key(key)).collect();
        match wanted?.as_slice() {
            [key] => self.one(key, out),
            keys => self.many(keys, out),
        }
    }

    fn one(&self, key: &[u8], out: &mut Out) -> Outcome {
        let (client, keyspace) = remote::open(&self.client, &self.keys)?;
        let options = remote::read_options(&client, &self.read);
        let Some(record) = keyspace.get_with(key, &options)? else {
            remote::tell_missing(out, self.client.output.format, key)?;
            return Ok(Answer::No);
        };
        match self.client.output.format {
            Format::Text => {
                out.write_all(&record.value)?;
                if out.terminal && record.value.last() != Some(&b'\n') {
                    out.write_all(b"\n")?;
                }
            }
            Format::Json => {
                let mut row = Row::new(key, Some(&record.value), &record.meta);
                row.token = client.tokens().first().map(ToString::to_string);
                out.json(&row)?;
            }
        }
        Ok(Answer::Yes)
    }

    fn many(&self, keys: &[Vec<u8>], out: &mut Out) -> Outcome {
        let (client, keyspace) = remote::open(&self.client, &self.keys)?;
        let options = remote::read_options(&client, &self.read);
        let records = keyspace.multi_get_with(keys, &options)?;
        let mut answer = Answer::Yes;
        for (key, record) in keys.iter().zip(records) {
            let Some(record) = record else {
                remote::tell_missing(out, self.client.output.format, key)?;
                answer = Answer::No;
                continue;
            };
            match self.client.output.format {
                Format::Text => out.row(key, &record.value)?,
                Format::Json => out.json(&Row::new(key, Some(&record.value), &record.meta))?,
            }
        }
        Ok(answer)
    }
}
