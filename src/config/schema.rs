//! Every setting there is: its key, what it may be, its default and its meaning.
//!
//! This table is the single source for validation, for `ringbolt config print` and for the
//! environment's names. [`super::Settings`] has one field for each row; a test holds the two
//! together.

use std::time::Duration;

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The key as in the file, with dots between tables: `limits.value_bytes_max`.
    pub key: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Its default as one would write it, or [`AUTO`].
    pub default: &'static str,
    /// What it does, in whole sentences.
    pub doc: &'static str,
}

/// The default of settings that follow the machine or other settings.
pub const AUTO: &str = "auto";

/// The value of an address that is not to be listened on.
pub const OFF: &str = "off";

/// What a setting may be. Bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A path, relative to the working directory.
    Path,
    /// `ADDRESS:PORT`.
    Address,
    /// `ADDRESS:PORT`, or `off`.
    AddressOrOff,
    /// 1–64 characters of `[A-Za-z0-9_.-]`.
    Name,
    /// Such names, with commas between them.
    Names,
    /// A whole number.
    Count {
        /// Least.
        min: u64,
        /// Greatest.
        max: u64,
        /// Whether it must be a power of two.
        power_of_two: bool,
    },
    /// A size in bytes with a unit: `64MiB`.
    Bytes {
        /// Least.
        min: u64,
        /// Greatest.
        max: u64,
        /// Whether it must be a power of two.
        power_of_two: bool,
    },
    /// A time span with a unit: `5s`.
    Span {
        /// Least.
        min: Duration,
        /// Greatest.
        max: Duration,
        /// Whether `never` is allowed too.
        never: bool,
    },
    /// A list of CPUs such as `0,2-3`, or `none`.
    Cpus,
    /// A list of nodes such as `a=10.0.0.1:7400,b=10.0.0.2:7400`, or `none`.
    Peers,
    /// One of these words.
    Choice(&'static [&'static str]),
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count {
        min,
        max,
        power_of_two: false,
    }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes {
        min,
        max,
        power_of_two: false,
    }
}

const fn span(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Span {
        min: Duration::from_millis(min_ms),
        max: Duration::from_millis(max_ms),
        never: false,
    }
}

/// All settings, in the order they are printed: those outside any table first.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "name",
        kind: Kind::Name,
        default: "ringbolt",
        doc: "The node's name, as clients and messages show it; one of `peers` if there are any.",
    },
    Setting {
        key: "peers",
        kind: Kind::Peers,
        default: "none",
        doc: "Every node of the cluster at its first start, this one included, by name and \
              address; the same list on every node. Each reaches the others there. none: this \
              node is a cluster of its own.",
    },
    Setting {
        key: "zone",
        kind: Kind::Name,
        default: "default",
        doc: "What fails together with this node: a rack, a room. Replicas of a partition are put \
              in distinct zones first.",
    },
    Setting {
        key: "weight",
        kind: count(1, 10_000),
        default: "100",
        doc: "The node's capacity in proportion to the others': it gets partitions accordingly.",
    },
    Setting {
        key: "replication",
        kind: count(1, 7),
        default: "3",
        doc: "On how many nodes each partition is, or on all if there are fewer. Used when the \
              cluster is made and fixed from then on; the same on every node.",
    },
    Setting {
        key: "data",
        kind: Kind::Path,
        default: "ringbolt-data",
        doc: "The data folder. It is made at the first start. One process at a time may use it.",
    },
    Setting {
        key: "listen",
        kind: Kind::Address,
        default: "127.0.0.1:7400",
        doc: "Where clients and other nodes connect; with `peers`, by default the address that they \
              give this node. There is no authentication yet: leave it on loopback, or on \
              a network that you trust.",
    },
    Setting {
        key: "cores",
        kind: count(1, 1024),
        default: AUTO,
        doc: "How many cores serve; each owns a shard of its own. auto: one for each CPU this \
              process may use, or one for each CPU of `cpus`. It is fixed once the data folder \
              exists: `ringbolt recore` changes it.",
    },
    Setting {
        key: "cpus",
        kind: Kind::Cpus,
        default: AUTO,
        doc: "The CPUs that the cores are pinned to, one each. auto: pinned when there are as \
              many cores as CPUs, else not pinned. none: not pinned.",
    },
    Setting {
        key: "memory",
        kind: bytes(64 * MIB, 64 * TIB),
        default: AUTO,
        doc: "Memory of the whole process, shared equally by its cores; at least 64MiB a core. \
              auto: a quarter of the machine's (or of the control group's limit), at most 64GiB.",
    },
    Setting {
        key: "partitions",
        kind: Kind::Count {
            min: 1,
            max: 16384,
            power_of_two: true,
        },
        default: "128",
        doc: "How many partitions the data is cut into; the unit that moves between cores. Used \
              when the data folder is made and fixed from then on. Have four or more for each \
              core there may ever be.",
    },
    Setting {
        key: "resp.listen",
        kind: Kind::AddressOrOff,
        default: "off",
        doc: "Where Redis clients connect; off: nowhere. In a cluster each node's is as far from its \
              own port as on every other node. docs/redis.md says what they can do.",
    },
    Setting {
        key: "resp.databases",
        kind: Kind::Names,
        default: "default",
        doc: "The keyspaces that Redis clients choose with SELECT, by their numbers from 0.",
    },
    Setting {
        key: "resp.cluster",
        kind: Kind::Choice(&["forward", "moved"]),
        default: "forward",
        doc: "What a Redis client is answered about a key that another node leads. forward: that node's \
              answer, so that any client can use any node. moved: where to ask, for clients that \
              know clusters; SCAN, KEYS, DBSIZE and FLUSHDB then concern what the node leads.",
    },
    Setting {
        key: "resp.keys_max",
        kind: count(1, 10_000_000),
        default: "100000",
        doc: "Keys that KEYS may answer with. Over it Redis clients are told to use SCAN.",
    },
    Setting {
        key: "core.spin",
        kind: Kind::Span {
            min: Duration::ZERO,
            max: Duration::from_micros(50),
            never: false,
        },
        default: "20us",
        doc: "How long an idle core looks for work before it sleeps. It lowers latency and costs \
              CPU.",
    },
    Setting {
        key: "limits.connections_max",
        kind: count(1, 1_000_000),
        default: "16384",
        doc: "Connections that one core serves. One more is told OVERLOADED and closed.",
    },
    Setting {
        key: "limits.connection_requests_max",
        kind: count(1, 1_000_000),
        default: "1024",
        doc: "Unanswered requests of one connection. At the limit the connection is not read \
              until replies have gone out.",
    },
    Setting {
        key: "limits.connection_bytes_max",
        kind: bytes(64 * KIB, 4 * GIB),
        default: "32MiB",
        doc: "Bytes of unanswered requests of one connection. At the limit the connection is not \
              read until replies have gone out.",
    },
    Setting {
        key: "limits.connection_reply_bytes_max",
        kind: bytes(64 * KIB, GIB),
        default: "1MiB",
        doc: "Bytes of replies that wait to be sent on one connection. Past it the connection is \
              not read; see limits.stall_timeout.",
    },
    Setting {
        key: "limits.core_bytes_max",
        kind: bytes(MIB, TIB),
        default: AUTO,
        doc: "Bytes of unanswered requests of one core. Past it requests are answered with \
              OVERLOADED. auto: an eighth of the core's memory, at least 24MiB, at most 256MiB.",
    },
    Setting {
        key: "limits.value_bytes_max",
        kind: bytes(KIB, 16 * MIB),
        default: "16MiB",
        doc: "The largest value. A larger one is answered with TOO_LARGE.",
    },
    Setting {
        key: "limits.batch_writes_max",
        kind: count(1, 65536),
        default: "4096",
        doc: "Writes of one batch, and keys of one get of many.",
    },
    Setting {
        key: "limits.scan_rows_max",
        kind: count(1, 1_000_000),
        default: "10000",
        doc: "Rows of one scan page. Clients fetch page after page.",
    },
    Setting {
        key: "limits.scan_page_bytes",
        kind: bytes(4 * KIB, 16 * MIB),
        default: "1MiB",
        doc: "Bytes of one scan page; a page has at least one row, whatever its size.",
    },
    Setting {
        key: "limits.keyspaces_max",
        kind: count(1, 65536),
        default: "1024",
        doc: "Keyspaces that may exist.",
    },
    Setting {
        key: "limits.deadline_default",
        kind: span(1, 3_600_000),
        default: "5s",
        doc: "The deadline of a request that names none.",
    },
    Setting {
        key: "limits.handshake_timeout",
        kind: span(10, 600_000),
        default: "5s",
        doc: "How long a new connection may take to say hello before it is closed.",
    },
    Setting {
        key: "limits.frame_timeout",
        kind: span(10, 3_600_000),
        default: "30s",
        doc: "How long a request may take to arrive, from its first byte to its last, before the \
              connection is closed.",
    },
    Setting {
        key: "limits.idle_timeout",
        kind: Kind::Span {
            min: Duration::from_millis(100),
            max: Duration::from_secs(30 * 86400),
            never: true,
        },
        default: "never",
        doc: "How long a connection may be silent before it is closed.",
    },
    Setting {
        key: "limits.stall_timeout",
        kind: span(10, 3_600_000),
        default: "10s",
        doc: "How long a client that has replies waiting may take none of them before it is cut \
              off.",
    },
    Setting {
        key: "limits.copy_bytes_per_second",
        kind: bytes(MIB, 64 * GIB),
        default: "16MiB",
        doc: "Bytes of partitions that each core sends in a second to nodes that lack them: \
              wiped, replaced, new, or away for long. More ends sooner, and requests meanwhile \
              take longer.",
    },
    Setting {
        key: "log.segment_bytes",
        kind: Kind::Bytes {
            min: MIB,
            max: GIB,
            power_of_two: true,
        },
        default: "64MiB",
        doc: "Size of a log segment. A node with peers needs 32MiB or more.",
    },
    Setting {
        key: "log.retained_bytes",
        kind: bytes(0, 16 * TIB),
        default: "0B",
        doc: "Log that each core keeps although all of it is in tables, at most: in whole segments.",
    },
    Setting {
        key: "log.writes_inflight_max",
        kind: count(1, 4),
        default: "2",
        doc: "Log writes that each core has under way at once.",
    },
    Setting {
        key: "log.durability",
        kind: Kind::Choice(&["auto", "dsync", "fdatasync"]),
        default: AUTO,
        doc: "How a log write is made durable: written through (O_DSYNC), or written and then \
              synced. auto: the faster by a short measurement at the first start. Both are \
              equally safe.",
    },
    Setting {
        key: "tree.memtable_percent",
        kind: count(5, 75),
        default: "25",
        doc: "Share of a core's memory for writes that are not in tables yet, in percent; most \
              of the rest is block cache.",
    },
    Setting {
        key: "tree.compression",
        kind: Kind::Choice(&["lz4", "none"]),
        default: "lz4",
        doc: "Compression of the tables of all levels but the deepest.",
    },
    Setting {
        key: "tree.compression_deepest",
        kind: Kind::Choice(&["lz4", "zstd", "none"]),
        default: "lz4",
        doc: "Compression of the deepest level, where most of the data is. zstd is smaller and \
              slower to read.",
    },
    Setting {
        key: "tree.background_bytes_per_second",
        kind: bytes(MIB, 64 * GIB),
        default: "512MiB",
        doc: "Bytes that each core's flushes and compactions may read and write in a second.",
    },
    Setting {
        key: "disk.reserve_bytes",
        kind: bytes(MIB, 64 * TIB),
        default: "256MiB",
        doc: "Free space below which puts are answered with NO_SPACE; reads, deletes and \
              compaction go on, and puts are taken again by themselves once there is room.",
    },
    Setting {
        key: "admin.listen",
        kind: Kind::AddressOrOff,
        default: AUTO,
        doc: "Where metrics, health and the page for operators are served by HTTP, to be read \
              only. auto: on loopback, at the port of `listen` and 2; if that is taken, the node \
              warns and goes without. off: nowhere. There is no authentication.",
    },
    Setting {
        key: "admin.slow_threshold",
        kind: Kind::Span {
            min: Duration::from_micros(100),
            max: Duration::from_secs(60),
            never: false,
        },
        default: "10ms",
        doc: "A request that takes at least this long leaves a record of where its time went, for \
              `ringbolt slow` and the page.",
    },
    Setting {
        key: "admin.keys",
        kind: Kind::Choice(&["show", "hide"]),
        default: "show",
        doc: "Whether slow requests and hot keys are shown with their keys. hide: by a hash, which \
              tells one from another while the node runs.",
    },
    Setting {
        key: "messages.level",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        default: "info",
        doc: "The least severe message written to standard error.",
    },
    Setting {
        key: "messages.format",
        kind: Kind::Choice(&["auto", "text", "json"]),
        default: AUTO,
        doc: "The form of messages: text for people, json for collectors (one object a line). \
              auto: text on a terminal, else json.",
    },
];

impl Setting {
    /// The setting of this key.
    #[must_use]
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// The environment variable that sets it: `limits.value_bytes_max` is
    /// `RINGBOLT_LIMITS_VALUE_BYTES_MAX`.
    #[must_use]
    pub fn variable(&self) -> String {
        let mut name = String::from(super::VARIABLE_PREFIX);
        name.extend(self.key.chars().map(|c| match c {
            '.' => '_',
            c => c.to_ascii_uppercase(),
        }));
        name
    }

    /// Whether it accepts `auto`.
    #[must_use]
    pub fn accepts_auto(&self) -> bool {
        self.default == AUTO
    }

    /// What it accepts, in words: `a size from 64MiB to 64TiB`.
    #[must_use]
    pub fn accepts(&self) -> String {
        let what = self.kind.accepts();
        match self.kind {
            Kind::Choice(_) => what,
            _ if self.accepts_auto() => format!("{what}, or auto"),
            _ => what,
        }
    }
}
