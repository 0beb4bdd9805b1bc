//! `ringbolt server`: runs a node until it is told to stop.

use std::process::ExitCode;

use super::args::SettingsArgs;
use super::failure::{Answer, Failure, Outcome};
use crate::messages::{self, Form};
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
        messages::install(&settings.messages);
        let form = Form::of(settings.messages.format);
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
            Err(error) => {
                let failure = Failure::usage(error);
                match form {
                    Form::Text => Err(failure),
                    // A collector gets nothing but objects.
                    Form::Json => {
                        tracing::error!("{}", failure.message);
                        Ok(Answer::Ended(ExitCode::from(failure.exit_code())))
                    }
                }
            }
        }
    }
}
