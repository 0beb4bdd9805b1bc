//! `ringbolt scan`: reads keys in order.

use super::args::{ClientArgs, KeyArgs, ReadArgs};
use super::failure::{Answer, Outcome};
use super::output::{Format, Out, Row};
use super::remote;

const EXAMPLES: &str = "\
Examples:
  Everything, in order of the keys; or what begins with user:
    ringbolt scan
    ringbolt scan --prefix user:

  The ten last, only their keys:
    ringbolt scan --prefix event: --reverse --limit 10 --keys-only

  From one key up to, and without, another:
    ringbolt scan --start a --end n

  Safe for any bytes, one JSON object a line:
    ringbolt scan --format json > backup.jsonl

Text output is key TAB value, as the bytes are; use JSON where keys or values may have tabs or line
ends. Rows come page by page: each page shows its partitions at one moment. A prefix that holds a
whole {tag} reads one partition.";

/// Reads keys and values in order.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only keys that begin with this.
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    prefix: String,

    /// The first key.
    #[arg(
        long,
        value_name = "KEY",
        default_value = "",
        hide_default_value = true
    )]
    start: String,

    /// The key to stop before.
    #[arg(
        long,
        value_name = "KEY",
        default_value = "",
        hide_default_value = true
    )]
    end: String,

    /// How many rows at most.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// From the last key to the first.
    #[arg(long)]
    reverse: bool,

    /// Without values.
    #[arg(long)]
    keys_only: bool,

    #[command(flatten)]
    keys: KeyArgs,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let (client, keyspace) = remote::open(&self.client, &self.keys)?;
        let options = remote::read_options(&client, &self.read);
        let prefix = self.keys.bytes(&self.prefix)?;
        let start = self.keys.bytes(&self.start)?;
        let end = self.keys.bytes(&self.end)?;
        let rows = keyspace.scan(|scan| {
            let mut scan = scan.prefix(prefix).start(start).end(end).options(options);
            if self.reverse {
                scan = scan.reverse();
            }
            if self.keys_only {
                scan = scan.keys_only();
            }
            match self.limit {
                Some(limit) => scan.limit(limit),
                None => scan,
            }
        });
        for row in rows {
            let row = row?;
            let value = (!self.keys_only).then_some(&row.value[..]);
            match self.client.output.format {
                Format::Text => match value {
                    Some(value) => out.row(&row.key, value)?,
                    None => out.key(&row.key)?,
                },
                Format::Json => out.json(&Row::new(&row.key, value, &row.meta))?,
            }
        }
        Ok(Answer::Yes)
    }
}
