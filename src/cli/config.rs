//! `ringbolt config`: shows settings.

use std::io::Write as _;

use super::args::SettingsArgs;
use super::failure::{Answer, Outcome};
use super::output::Out;
use crate::config::{effective, template};

const PRINT_EXAMPLES: &str = "\
Examples:
  A file to start from, every setting with its meaning, range and default:
    ringbolt config print > ringbolt.toml

  What a server started with the same flags and environment would use, and why:
    ringbolt config print --effective --config ringbolt.toml --memory 2GiB";

/// Shows the settings.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Print(Print),
}

/// Prints the settings as TOML, with comments.
#[derive(Debug, clap::Args)]
#[command(after_help = PRINT_EXAMPLES)]
struct Print {
    /// The settings in force and where each came from, instead of the defaults.
    #[arg(long)]
    effective: bool,

    #[command(flatten)]
    settings: SettingsArgs,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let Command::Print(print) = self.command;
        // Checked either way: a file that is wrong is better told of now than at the start.
        let loaded = print.settings.load()?;
        let text = if print.effective {
            effective(&loaded)
        } else {
            template()
        };
        out.write_all(text.as_bytes())?;
        Ok(Answer::Yes)
    }
}
