//! `ringbolt check`: whether this host can run a server, and how well.

use std::io::Write as _;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, LineStyle, Table};

use super::args::{OutputArgs, SettingsArgs};
use super::failure::{Answer, Failure, Outcome};
use super::output::{Format, Out};
use crate::node::preflight::{self, Check, Verdict};

const EXAMPLES: &str = "\
Examples:
  This machine, with the default folder:
    ringbolt check

  The folder and settings that a server is to have:
    ringbolt check --data /var/lib/ringbolt --config ringbolt.toml

  What does not hold, for a script:
    ringbolt check --format json | jq 'select(.verdict != \"passed\")'

Exits with 2 if a required condition does not hold. Nothing is left behind in the folder.";

/// Checks whether this host can run a server, condition by condition.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

impl Args {
    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let settings = self.settings.load()?.settings;
        let checks = preflight::run_all(&settings);
        match self.output.format {
            Format::Text => write!(out, "{}", show(&checks, out.width()))?,
            Format::Json => {
                for check in &checks {
                    out.json(check)?;
                }
            }
        }
        match preflight::failed(&checks) {
            None => Ok(Answer::Yes),
            Some(check) => Err(Failure::usage(format!(
                "a server cannot start here: {} ({})",
                check.condition, check.remedy
            ))),
        }
    }
}

/// The table, and under it what to do about what does not hold.
fn show(checks: &[Check], width: u16) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(["condition", "required", "current", "passed"]);
    for check in checks {
        table.add_row([
            check.condition,
            &check.required,
            &check.current,
            &check.verdict.to_string(),
        ]);
    }
    let mut text = format!("{table}\n");
    for check in checks
        .iter()
        .filter(|check| check.verdict != Verdict::Passed)
    {
        text.push_str(&format!("\n{}: {}\n", check.condition, check.remedy));
    }
    text
}
