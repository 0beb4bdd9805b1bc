//! Settings: what a node may be told, checked and typed before any component sees it.
//!
//! A setting's value is the last of: its default, the TOML file, the environment
//! (`RINGBOLT_LIMITS_VALUE_BYTES_MAX`), the flags. Unknown keys are refused wherever they stand.
//! [`SETTINGS`] describes every setting; [`load`] makes [`Settings`] of the sources; [`template`]
//! and [`effective`] write them down as TOML.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

mod error;
mod load;
mod machine;
mod parse;
mod peers;
mod print;
mod schema;
mod units;

pub use error::{ConfigError, Source};
pub use load::{Flag, Inputs, Loaded, VARIABLE_PREFIX, load};
pub use machine::Machine;
pub use peers::{Peer, parse_peers, show_peers};
pub use print::{effective, template};
pub use schema::{AUTO, Kind, OFF, SETTINGS, Setting};
pub use units::{
    about_bytes, parse_bytes, parse_cpus, parse_span, show_bytes, show_cpus, show_span,
};

/// The least memory a core can work in, in bytes.
pub const MEMORY_PER_CORE_MIN: u64 = 64 << 20;

/// The settings of a node. Each field's meaning, default and range stand in [`SETTINGS`] under the
/// same name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The node's name.
    pub name: String,
    /// The nodes of the cluster, this one included, sorted by name; empty for a cluster of one.
    #[serde(deserialize_with = "peers")]
    pub peers: Vec<Peer>,
    /// What fails together with this node.
    pub zone: String,
    /// Its capacity in proportion to the others'.
    pub weight: u32,
    /// On how many nodes each partition of a cluster that is yet to be made is.
    pub replication: u8,
    /// The data folder.
    pub data: PathBuf,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// How many cores serve, at least 1.
    pub cores: u16,
    /// The CPU of each core; empty where cores are not pinned.
    pub cpus: Vec<u16>,
    /// Memory of the whole process, in bytes.
    pub memory: u64,
    /// Partitions of a data folder that is yet to be made; a power of two up to 16384.
    pub partitions: u16,
    /// The door for Redis clients.
    pub resp: RespSettings,
    /// The loop of each core.
    pub core: CoreSettings,
    /// What clients may ask for.
    pub limits: LimitSettings,
    /// The log of each core.
    pub log: LogSettings,
    /// The tree of each core.
    pub tree: TreeSettings,
    /// The disk.
    pub disk: DiskSettings,
    /// What operators look at.
    pub admin: AdminSettings,
    /// What the process says on standard error.
    pub messages: MessageSettings,
}

impl Settings {
    /// Each core's share of the memory, in bytes.
    #[must_use]
    pub fn memory_per_core(&self) -> u64 {
        self.memory / u64::from(self.cores.max(1))
    }

    /// The CPU that a core is pinned to, if it is.
    #[must_use]
    pub fn cpu_of(&self, core: u16) -> Option<u16> {
        self.cpus.get(usize::from(core)).copied()
    }
}

/// The door for Redis clients.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RespSettings {
    /// Where they connect, if anywhere.
    #[serde(deserialize_with = "address_or_off")]
    pub listen: Option<SocketAddr>,
    /// The keyspaces that they choose from by number.
    pub databases: Vec<String>,
    /// What is done about keys that other nodes lead.
    pub cluster: RespCluster,
    /// Keys that `KEYS` may answer with.
    pub keys_max: usize,
}

/// What is done about keys that other nodes lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RespCluster {
    /// The other node is asked.
    Forward,
    /// The client is told whom to ask.
    Moved,
}

/// The loop of each core.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreSettings {
    /// How long an idle core looks for work before it sleeps.
    #[serde(deserialize_with = "micros")]
    pub spin: Duration,
}

/// What clients may ask for. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// Connections of one core.
    pub connections_max: u32,
    /// Unanswered requests of one connection.
    pub connection_requests_max: u32,
    /// Bytes of unanswered requests of one connection.
    pub connection_bytes_max: usize,
    /// Bytes of replies that wait to be sent on one connection.
    pub connection_reply_bytes_max: usize,
    /// Bytes of unanswered requests of one core.
    pub core_bytes_max: usize,
    /// The largest value.
    pub value_bytes_max: usize,
    /// Writes of one batch, and keys of one get of many.
    pub batch_writes_max: u32,
    /// Rows of one scan page.
    pub scan_rows_max: u32,
    /// Bytes of one scan page.
    pub scan_page_bytes: usize,
    /// Keyspaces that may exist.
    pub keyspaces_max: usize,
    /// The deadline of a request that names none.
    #[serde(deserialize_with = "micros")]
    pub deadline_default: Duration,
    /// How long a connection may take to say hello.
    #[serde(deserialize_with = "micros")]
    pub handshake_timeout: Duration,
    /// How long a request may take to arrive.
    #[serde(deserialize_with = "micros")]
    pub frame_timeout: Duration,
    /// How long a connection may be silent; zero for ever.
    #[serde(deserialize_with = "micros")]
    pub idle_timeout: Duration,
    /// How long a client may take none of the replies that wait for it.
    #[serde(deserialize_with = "micros")]
    pub stall_timeout: Duration,
    /// Bytes of partitions that each core sends in a second to nodes that lack them.
    pub copy_bytes_per_second: u64,
}

/// The log of each core. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// Size of a segment.
    pub segment_bytes: u64,
    /// Flushed log that is kept.
    pub retained_bytes: u64,
    /// Writes under way at once, 1–4.
    pub writes_inflight_max: usize,
    /// How a write is made durable.
    pub durability: Durability,
}

/// How a log write is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The faster, by a measurement at the first start.
    Auto,
    /// Written through: `O_DSYNC`.
    Dsync,
    /// Written, then `fdatasync`.
    Fdatasync,
}

/// The tree of each core.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeSettings {
    /// Share of a core's memory for memtables, in percent.
    pub memtable_percent: u8,
    /// Compression of all levels but the deepest.
    pub compression: Compression,
    /// Compression of the deepest level.
    pub compression_deepest: Compression,
    /// Bytes that flushes and compactions may read and write in a second.
    pub background_bytes_per_second: u64,
}

/// Compression of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None.
    None,
    /// Fast.
    Lz4,
    /// Small.
    Zstd,
}

/// The disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSettings {
    /// Free bytes below which puts are refused.
    pub reserve_bytes: u64,
}

/// What operators look at: metrics, health, the page.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSettings {
    /// Where it is served.
    #[serde(deserialize_with = "admin_listen")]
    pub listen: AdminListen,
    /// A request that takes at least this long leaves a record.
    #[serde(deserialize_with = "micros")]
    pub slow_threshold: Duration,
    /// Whether keys are shown.
    pub keys: Keys,
}

/// Whether operators see keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// As they are.
    Show,
    /// By a hash.
    Hide,
}

/// Where metrics, health and the page are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminListen {
    /// On loopback, beside the port of clients; without it if that is taken.
    Auto,
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

/// From the port of clients to the one that [`AdminListen::Auto`] means.
pub const ADMIN_PORT_STEP: u16 = 2;

impl AdminListen {
    /// The address of a node that clients find at `listen`; none if it is off, or if there is no
    /// such port.
    #[must_use]
    pub fn address(self, listen: SocketAddr) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
            Self::Auto => {
                let port = listen.port().checked_add(ADMIN_PORT_STEP)?;
                let own = listen.ip();
                let ip = if own.is_loopback() {
                    own
                } else {
                    Ipv4Addr::LOCALHOST.into()
                };
                Some((ip, port).into())
            }
        }
    }
}

/// What the process says on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageSettings {
    /// The least severe that is written.
    pub level: MessageLevel,
    /// Their form.
    pub format: MessageFormat,
}

/// Severity of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageLevel {
    /// What stops something from working.
    Error,
    /// What needs attention.
    Warn,
    /// What happened.
    Info,
    /// What led to it.
    Debug,
    /// Every step.
    Trace,
}

/// Form of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn peers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Peer>, D::Error> {
    let pairs = Vec::<(String, String)>::deserialize(from)?;
    let peer = |(name, address)| Peer { name, address };
    Ok(pairs.into_iter().map(peer).collect())
}

fn admin_listen<'de, D: Deserializer<'de>>(from: D) -> Result<AdminListen, D::Error> {
    match String::deserialize(from)?.as_str() {
        AUTO => Ok(AdminListen::Auto),
        OFF => Ok(AdminListen::Off),
        address => address
            .parse()
            .map(AdminListen::At)
            .map_err(serde::de::Error::custom),
    }
}

fn address_or_off<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    if text == OFF {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn micros<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(Duration::from_micros)
}

#[cfg(test)]
mod tests;
