//! Settings on the command line.

use std::path::PathBuf;

use clap::Args;

use crate::cli::failure::Failure;
use crate::config::{Flag, Inputs, Loaded, Machine, load};

/// Settings of a node as flags. Values are read by [`crate::config`], so that a wrong one is
/// answered alike wherever it stands.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Settings")]
pub struct SettingsArgs {
    /// The data folder; made at the first start [default: ringbolt-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,

    /// Where clients connect [default: 127.0.0.1:7400].
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,

    /// Where Redis clients connect, such as 127.0.0.1:6379 [default: nowhere].
    #[arg(long, value_name = "ADDR:PORT")]
    pub resp: Option<String>,

    /// This node's name, one of --peers [default: ringbolt].
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,

    /// Every node of the cluster, this one included: a=HOST:PORT,b=HOST:PORT,c=HOST:PORT.
    #[arg(long, value_name = "LIST")]
    pub peers: Option<String>,

    /// What fails together with this node, such as its rack; replicas go to distinct zones first.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,

    /// This node's capacity in proportion to the others' [default: 100].
    #[arg(long, value_name = "N")]
    pub weight: Option<String>,

    /// How many cores serve [default: one for each CPU].
    #[arg(long, value_name = "N")]
    pub cores: Option<String>,

    /// The CPUs that cores are pinned to, such as 0,2-3.
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,

    /// Memory of the whole process, such as 4GiB [default: a quarter of the machine's].
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,

    /// Where metrics, health and the page are served by HTTP; off for nowhere [default: on loopback,
    /// the port of --listen and 2].
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<String>,

    /// A settings file (TOML); `ringbolt config print` writes one to start from.
    #[arg(
        long,
        value_name = "FILE",
        env = "RINGBOLT_CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,

    /// Any setting by its key, such as --set limits.idle_timeout=5m; may be given again.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl SettingsArgs {
    /// Reads the settings from file, environment and these flags.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn load(&self) -> Result<Loaded, Failure> {
        let inputs = Inputs {
            file: self.config.clone(),
            environment: std::env::vars_os().collect(),
            flags: self.flags()?,
            machine: Machine::detect(),
        };
        Ok(load(&inputs)?)
    }

    fn flags(&self) -> Result<Vec<Flag>, Failure> {
        let mut flags = Vec::new();
        for pair in &self.set {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Failure::usage(format!(
                    "--set {pair}: write KEY=VALUE, such as --set limits.idle_timeout=5m"
                )));
            };
            flags.push(Flag {
                name: "--set".into(),
                key: key.trim().into(),
                value: value.into(),
            });
        }
        let named = [
            ("data", "data", &self.data),
            ("listen", "listen", &self.listen),
            ("resp", "resp.listen", &self.resp),
            ("node", "name", &self.node),
            ("peers", "peers", &self.peers),
            ("zone", "zone", &self.zone),
            ("weight", "weight", &self.weight),
            ("cores", "cores", &self.cores),
            ("cpus", "cpus", &self.cpus),
            ("memory", "memory", &self.memory),
            ("admin", "admin.listen", &self.admin),
        ];
        for (flag, key, value) in named {
            if let Some(value) = value {
                flags.push(Flag {
                    name: format!("--{flag}"),
                    key: key.into(),
                    value: value.clone(),
                });
            }
        }
        Ok(flags)
    }
}
