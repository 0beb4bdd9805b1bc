//! Where the server is and how to talk to it.

use std::time::Duration;

use clap::Args;

use super::OutputArgs;
use crate::config::parse_span;

/// Arguments of every command that talks to a server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection and output")]
pub struct ClientArgs {
    /// The server; of a cluster, some of its nodes, with commas between.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "RINGBOLT_ADDR",
        hide_env_values = true,
        default_value = "127.0.0.1:7400"
    )]
    pub addr: String,

    /// How long each request may take, such as 500ms or 5s.
    #[arg(
        long,
        value_name = "TIME",
        env = "RINGBOLT_TIMEOUT",
        hide_env_values = true,
        default_value = "5s",
        value_parser = parse_timeout
    )]
    pub timeout: Duration,

    #[command(flatten)]
    pub output: OutputArgs,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let span = parse_span(text)?;
    match span.as_millis() {
        0 => Err("a timeout of less than 1ms".into()),
        1..=86_400_000 => Ok(span),
        _ => Err("a timeout of more than a day".into()),
    }
}
