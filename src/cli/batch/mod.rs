//! `ringbolt batch`: many writes, all or none.

use std::io::Write as _;
use std::path::PathBuf;

use ringbolt_client::{Batch, WriteOptions};
use ringbolt_wire::message::{Condition, Ttl};
use serde::Serialize;

use super::args::{ClientArgs, WriteArgs};
use super::failure::{Failure, Outcome};
use super::input::Source;
use super::output::{Format, Out};
use super::remote;
use line::{Op, Write};

mod line;

/// Lines read at most, in bytes: base64 and escapes make more of what one frame holds.
const INPUT_BYTES_MAX: u64 = 64 << 20;

const EXAMPLES: &str = "\
Examples:
  Two accounts of one user, both or neither; {7} puts them into one partition:
    ringbolt batch <<'END'
    {\"op\": \"incr\", \"key\": \"{7}:savings\", \"by\": -50}
    {\"op\": \"incr\", \"key\": \"{7}:current\", \"by\": 50}
    END

  From a file:
    ringbolt batch --file writes.jsonl

Each line of the input is one write, as JSON:
  {\"op\": \"put\", \"key\": \"a\", \"value\": \"1\", \"ttl\": \"5m\", \"if\": \"absent\"}
  {\"op\": \"del\", \"key\": \"b\", \"if\": {\"version\": 7}}
  {\"op\": \"incr\", \"key\": \"n\", \"by\": -2}
  {\"op\": \"touch\", \"key\": \"s\", \"ttl\": \"never\"}

ttl: a time such as 90s, never, keep, default, @UNIX_MS. if (not for touch): absent, present, or
{\"version\": N}. Keys and values are strings, or {\"base64\": \"...\"} for bytes that are no text.

All keys must share a partition: give them a common {tag}. A key occurs once. Prints OK, or the new
number of an increment, for each line. Exits with 1 if a condition did not hold or a key to touch
does not exist; then nothing was written.";

/// Writes many keys of one partition, all or none.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Reads from a file instead of standard input.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,

    /// The keyspace.
    #[arg(long, value_name = "NAME", default_value = "default")]
    keyspace: String,

    #[command(flatten)]
    write: WriteArgs,

    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Serialize)]
struct DoneBatch {
    done: bool,
    version: u64,
    token: String,
    /// For each write the new number, if it was an increment.
    counters: Vec<Option<i64>>,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let writes = self.writes()?;
        let with = |condition, ttl| WriteOptions::new().condition(condition).ttl(ttl);
        let mut batch = Batch::new();
        for write in writes {
            batch = match write.op {
                Op::Put {
                    value,
                    ttl,
                    condition,
                } => batch.put_with(write.key, value, &with(condition, ttl)),
                Op::Delete { condition } => batch.delete_if(write.key, condition),
                Op::Increment { by, ttl, condition } => {
                    batch.increment_with(write.key, by, &with(condition, ttl))
                }
                Op::Touch { ttl } => batch.touch(write.key, ttl),
            };
        }
        let client = remote::connect(&self.client)?;
        let keyspace = client.keyspace(&self.keyspace)?;
        let options = remote::write_options(&self.write, Condition::None, Ttl::Default);
        let result = keyspace.batch_with(&batch, &options);
        let format = self.client.output.format;
        remote::tell_written(out, format, None, result, |out, written| match format {
            Format::Text => {
                for counter in &written.counters {
                    match counter {
                        Some(number) => writeln!(out, "{number}")?,
                        None => writeln!(out, "OK")?,
                    }
                }
                Ok(())
            }
            Format::Json => out.json(&DoneBatch {
                done: true,
                version: written.token.index,
                token: written.token.to_string(),
                counters: written.counters,
            }),
        })
    }

    fn writes(&self) -> Result<Vec<Write>, Failure> {
        let source = Source::new(self.file.as_deref());
        let mut writes = Vec::new();
        for (number, line) in (1..).zip(source.lines(INPUT_BYTES_MAX)?) {
            match line::parse(&line) {
                Ok(Some(write)) => writes.push(write),
                Ok(None) => {}
                Err(error) => {
                    return Err(Failure::usage(format!(
                        "{}, line {number}: {error}",
                        source.name()
                    )));
                }
            }
        }
        match writes.is_empty() {
            true => Err(Failure::usage(format!("{} has no writes", source.name()))),
            false => Ok(writes),
        }
    }
}
