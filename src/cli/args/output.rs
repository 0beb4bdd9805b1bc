//! The form of a command's output.

use clap::Args;

use crate::cli::output::Format;

/// How a command shows what it found.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// The form of the output: text, or json (one object a line; bytes that are not UTF-8 become
    /// {"base64": "..."}).
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        hide_possible_values = true
    )]
    pub format: Format,
}
