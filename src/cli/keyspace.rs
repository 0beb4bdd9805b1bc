//! `ringbolt keyspace`: creates, drops and lists keyspaces.

use std::io::Write as _;
use std::time::Duration;

use clap::Subcommand;
use ringbolt_client::{KeyspaceInfo, KeyspaceOptions};
use serde::Serialize;

use super::args::ClientArgs;
use super::failure::{Answer, Failure, Outcome};
use super::output::{Format, Out};
use super::remote;
use crate::config::{parse_span, show_span};

const CREATE_EXAMPLES: &str = "\
Examples:
  A keyspace, and one whose records expire after a day unless told otherwise:
    ringbolt keyspace create users
    ringbolt keyspace create sessions --default-ttl 1d";

const DROP_EXAMPLES: &str = "\
Examples:
  A keyspace and everything in it, at once and for good:
    ringbolt keyspace drop sessions --yes";

const LIST_EXAMPLES: &str = "\
Examples:
  All of them:
    ringbolt keyspace list

  Their names, for a script:
    ringbolt keyspace list --format json | jq -r .name";

/// Creates, drops and lists keyspaces.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Creates a keyspace.
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// Its name: 1 to 64 of A-Z a-z 0-9 _ . - (no . or - first).
        name: String,

        /// When its records expire, unless a write says otherwise.
        #[arg(long, value_name = "TIME", value_parser = parse_span)]
        default_ttl: Option<Duration>,

        #[command(flatten)]
        client: ClientArgs,
    },
    /// Drops a keyspace and everything in it.
    #[command(after_help = DROP_EXAMPLES)]
    Drop {
        /// Its name.
        name: String,

        /// Says that you mean it: what is dropped does not come back.
        #[arg(long)]
        yes: bool,

        #[command(flatten)]
        client: ClientArgs,
    },
    /// Lists keyspaces.
    #[command(after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Serialize)]
struct Listed<'a> {
    id: u32,
    name: &'a str,
    /// Null for never.
    default_ttl_ms: Option<u64>,
}

impl<'a> From<&'a KeyspaceInfo> for Listed<'a> {
    fn from(info: &'a KeyspaceInfo) -> Self {
        let ttl = info.options.default_ttl_ms;
        Self {
            id: info.id,
            name: &info.name,
            default_ttl_ms: (ttl != 0).then_some(ttl),
        }
    }
}

impl Args {
    fn client(&self) -> &ClientArgs {
        match &self.command {
            Command::Create { client, .. }
            | Command::Drop { client, .. }
            | Command::List { client } => client,
        }
    }

    pub(super) fn format(&self) -> Format {
        self.client().output.format
    }

    pub(super) fn run(self, out: &mut Out) -> Outcome {
        let format = self.format();
        if let Command::Drop {
            yes: false, name, ..
        } = &self.command
        {
            return Err(Failure::usage(format!(
                "dropping {name} removes everything in it for good: say --yes if you mean it"
            )));
        }
        let client = remote::connect(self.client())?;
        match self.command {
            Command::Create {
                name, default_ttl, ..
            } => {
                let ttl = default_ttl.unwrap_or_default().as_millis();
                let options = KeyspaceOptions {
                    default_ttl_ms: u64::try_from(ttl).unwrap_or(u64::MAX),
                };
                let created = client.create_keyspace(&name, options)?;
                let created = KeyspaceInfo {
                    id: created.id(),
                    name,
                    options,
                };
                match format {
                    Format::Text => writeln!(out, "OK")?,
                    Format::Json => out.json(&Listed::from(&created))?,
                }
            }
            Command::Drop { name, .. } => {
                client.drop_keyspace(&name)?;
                match format {
                    Format::Text => writeln!(out, "OK")?,
                    Format::Json => out.json(&serde_json::json!({ "dropped": name }))?,
                }
            }
            Command::List { .. } => list(&client.keyspaces()?, format, out)?,
        }
        Ok(Answer::Yes)
    }
}

fn list(keyspaces: &[KeyspaceInfo], format: Format, out: &mut Out) -> std::io::Result<()> {
    let width = keyspaces.iter().map(|info| info.name.len()).max();
    let width = width.unwrap_or(0).max("name".len());
    if format == Format::Text {
        writeln!(out, "{:width$}  {:>5}  default ttl", "name", "id")?;
    }
    for info in keyspaces {
        match format {
            Format::Text => {
                let ttl = match info.options.default_ttl_ms {
                    0 => "never".to_string(),
                    ms => show_span(Duration::from_millis(ms)),
                };
                writeln!(out, "{:width$}  {:>5}  {ttl}", info.name, info.id)?;
            }
            Format::Json => out.json(&Listed::from(info))?,
        }
    }
    Ok(())
}
