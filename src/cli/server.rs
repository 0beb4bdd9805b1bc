//! `ringbolt server`: runs a node until it is told to stop.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::args::SettingsArgs;
use super::failure::{Answer, Failure, Outcome};
use crate::config::{MessageFormat, MessageLevel, MessageSettings};
use crate::node;

const EXAMPLES: &str = "\
Examples:
  A server on this machine alone, its data in ./ringbolt-data:
    ringbolt server

  With a folder, memory and CPUs of its own:
    ringbolt server --data /var/lib/ringbolt --memory 4GiB --cpus 0,2-3

  With settings from a file, and one of them changed:
    ringbolt config print > ringbolt.toml
    ringbolt server --config ringbolt.toml --set limits.idle_timeout=5m

Settings come from the file, then from environment variables such as RINGBOLT_MEMORY, then from
flags; the last wins. `ringbolt config print` lists them all.

SIGTERM or Ctrl-C lets requests under way finish and stops. After a crash the next start recovers
everything that was acknowledged.";

/// Runs a server until it is stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Args {
    pub(super) fn run(self) -> Outcome {
        let settings = self.settings.load()?.settings;
        write_messages(&settings.messages);
        if !settings.listen.ip().is_loopback() {
            tracing::warn!(
                listen = %settings.listen,
                "listening beyond this machine, and there is no authentication: make sure that \
                 only trusted clients reach this address"
            );
        }
        if let Err(error) = node::preflight::host::raise_file_limit() {
            tracing::warn!(%error, "the limit on open files could not be raised");
        }
        match node::run(settings) {
            Ok(()) => Ok(Answer::Yes),
            Err(error) => Err(Failure::usage(error)),
        }
    }
}

/// Sends the process's messages to standard error.
fn write_messages(settings: &MessageSettings) {
    let level = match settings.level {
        MessageLevel::Error => "error",
        MessageLevel::Warn => "warn",
        MessageLevel::Info => "info",
        MessageLevel::Debug => "debug",
        MessageLevel::Trace => "trace",
    };
    // Ours by the setting, those of libraries only when they need attention.
    let filter = EnvFilter::new(format!(
        "warn,ringbolt={level},ringbolt_engine={level},ringbolt_ring={level}"
    ));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match settings.format {
        MessageFormat::Text => registry.with(layer).init(),
        MessageFormat::Json => registry.with(layer.json()).init(),
    }
}
