//! `ringbolt put`: writes a value.

use std::io::Write as _;
use std::path::PathBuf;

use ringbolt_wire::message::Ttl;

use super::args::{ClientArgs, ConditionArgs, KeyArgs, WriteArgs, parse_ttl};
use super::failure::{Failure, Outcome};
use super::input::Source;
use super::output::{Format, Out};
use super::remote::{self, Done};

const EXAMPLES: &str = "\
Examples:
  A value, and one that expires:
    ringbolt put greeting hello
    ringbolt put session:42 active --ttl 30m

  The content of a file, or of standard input:
    ringbolt put logo --file logo.png
    date | ringbolt put now -

  Only if nobody has it yet, or has changed it since version 17:
    ringbolt put lock:job mine --if-absent --ttl 10s
    ringbolt put config '{\"a\":1}' --if-version 17

  Bytes that are no text:
    ringbolt put --base64 a2V5 AAEC/w==

Exits with 1 if the condition did not hold.";

/// Writes a value.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The key, 1 byte to 64KiB. Keys that share a {tag} share a partition.
    key: String,

    /// The value, up to 16MiB; - reads standard input.
    #[arg(required_unless_present = "file", allow_hyphen_values = true)]
    value: Option<String>,

    /// Reads the value from a file; - is standard input.
    #[arg(long, value_name = "PATH", conflicts_with = "value")]
    file: Option<PathBuf>,

    /// When it expires: a time such as 90s or 1h 30m, never, keep (as it is), or @UNIX_MS
    /// [default: by the keyspace's default].
    #[arg(
        long,
        value_name = "TIME",
        default_value = "default",
        hide_default_value = true,
        value_parser = parse_ttl
    )]
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
        let value = self.value()?;
        let options = remote::write_options(&self.write, self.condition.condition(), self.ttl);
        let (_client, keyspace) = remote::open(&self.client, &self.keys)?;
        let result = keyspace.put_with(&key, value, &options);
        let format = self.client.output.format;
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

    fn value(&self) -> Result<Vec<u8>, Failure> {
        match (self.value.as_deref(), self.file.as_deref()) {
            (Some("-") | None, file) => Source::new(file).value(),
            (Some(value), _) => self.keys.bytes(value),
        }
    }
}
