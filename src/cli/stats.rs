//! `ringbolt stats`: a server's counters.

use std::io::Write as _;

use super::args::ClientArgs;
use super::failure::{Answer, Outcome};
use super::output::{Format, Out};
use super::remote;

const EXAMPLES: &str = "\
Examples:
  All counters of a server, summed over its cores:
    ringbolt stats

  One of them, every second:
    watch -n 1 \"ringbolt stats --format json | jq .requests_total\"";

/// Shows a server's counters.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let stats = remote::connect(&self.client)?.stats()?;
        match self.client.output.format {
            Format::Text => {
                let width = stats.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                for (name, number) in &stats {
                    writeln!(out, "{name:width$}  {number}")?;
                }
            }
            Format::Json => {
                let object: serde_json::Map<_, _> = stats
                    .into_iter()
                    .map(|(name, number)| (name, number.into()))
                    .collect();
                out.json(&object)?;
            }
        }
        Ok(Answer::Yes)
    }
}
