//! What clients and servers say to each other, before it is bytes.
//!
//! Requests borrow from the frame they were decoded from: decoding allocates nothing.
//! The layout of each message is in `docs/protocol.md`; the codec is in [`crate::codec`].

pub use crate::status::{MemberStatus, NodeStatus, ReplicaStatus, Role};
pub use crate::topology::{NodeId, NodeInfo, Replicas, Topology};

/// A partition's number, `0..partitions`.
pub type PartitionId = u16;
/// A keyspace's number. 0 is [`KEYSPACE_DEFAULT`]; numbers are never reused.
pub type KeyspaceId = u32;

/// The keyspace that always exists, named `default`.
pub const KEYSPACE_DEFAULT: KeyspaceId = 0;
/// The server's own keyspace (keyspace definitions): clients are refused.
pub const KEYSPACE_SYSTEM: KeyspaceId = u32::MAX;

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    /// Durable on the leader; not yet readable, may be lost in a failover.
    Leader,
    /// Durable on a majority of the partition's voters, and readable.
    #[default]
    Quorum,
    /// Durable on every current voter.
    All,
    /// Durable on this many voters (at least a majority is waited for).
    Count(u8),
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadLevel {
    /// Sees every write acknowledged before it was sent (leader lease).
    #[default]
    Linearizable,
    /// The same, confirmed by a quorum instead of the lease.
    Strict,
    /// Sees at least what the request's tokens say, on any replica.
    Session,
    /// At most this many milliseconds old, on any replica.
    Stale {
        /// The bound, in milliseconds.
        max_age_ms: u32,
    },
}

/// A position in one partition's history. A client that sends it back with a `Session` read sees
/// at least what that position saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// The partition.
    pub partition: PartitionId,
    /// The term of the entry.
    pub term: u64,
    /// The index of the entry.
    pub index: u64,
}

/// What must hold for a write to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The key does not exist.
    Absent,
    /// The key exists.
    Present,
    /// The key exists with this very version.
    Version(u64),
}

/// When the written record expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ttl {
    /// The keyspace's default (never, unless it has one).
    #[default]
    Default,
    /// Never.
    Never,
    /// This many milliseconds after the write, by the partition's time.
    AfterMs(u64),
    /// At this time, in milliseconds since the Unix epoch.
    AtMs(u64),
    /// Keeps what the record has (never, for a record that did not exist).
    Keep,
}

/// Options common to every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// When to acknowledge.
    pub ack: Ack,
    /// Who writes: chosen at random by the client, 0 for none.
    pub client: u64,
    /// The client's number for this write: a retry carries the same one. 0 for none.
    pub sequence: u64,
    /// Whether this (client, sequence) was sent before with an outcome that is not known: the write
    /// is done unless it was, and never a second time. Needs a client and a sequence.
    pub retry: bool,
}

/// Options common to every read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadOptions<'a> {
    /// How fresh.
    pub level: ReadLevel,
    /// What a `Session` read must have seen.
    pub tokens: Tokens<'a>,
}

/// A list of tokens in wire form: 18 bytes each (partition u16, term u64, index u64). Built by
/// [`TokensBuf`](crate::list::TokensBuf).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens<'a>(pub(crate) &'a [u8]);

/// One write of a [`Request::Batch`] or a request of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOp<'a> {
    /// Sets the value.
    Put {
        /// The key, 1 B–64 KiB.
        key: &'a [u8],
        /// The value, up to the server's limit.
        value: &'a [u8],
        /// When it expires.
        ttl: Ttl,
        /// What must hold.
        condition: Condition,
    },
    /// Removes the key. Deleting what is not there succeeds unless a condition says otherwise.
    Delete {
        /// The key.
        key: &'a [u8],
        /// What must hold.
        condition: Condition,
    },
    /// Adds to a number (a decimal i64 in ASCII); a missing key counts as 0. The reply has the
    /// new value. Overflow and a value that is no number are typed errors.
    Increment {
        /// The key.
        key: &'a [u8],
        /// What to add.
        by: i64,
        /// When it expires; `Ttl::Keep` keeps what it has.
        ttl: Ttl,
        /// What must hold.
        condition: Condition,
    },
    /// Changes only the expiry. A missing key: `NotFound`.
    Touch {
        /// The key.
        key: &'a [u8],
        /// The new expiry.
        ttl: Ttl,
        /// What must hold.
        condition: Condition,
    },
}

/// A page of an ordered scan over one keyspace, merged over partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// Freshness.
    pub read: ReadOptions<'a>,
    /// Only keys that begin with this. Empty: all.
    pub prefix: &'a [u8],
    /// First key wanted (inclusive). Empty: from the start.
    pub start: &'a [u8],
    /// First key not wanted. Empty: to the end.
    pub end: &'a [u8],
    /// From the highest key down.
    pub reverse: bool,
    /// Keys only: values come back empty.
    pub keys_only: bool,
    /// Rows wanted, 1..=the server's limit; 0 for the server's default.
    pub limit: u32,
    /// The cursor of the page before. Empty: the first page.
    pub cursor: &'a [u8],
}

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// The first message of every connection.
    Hello {
        /// Oldest protocol version the client speaks.
        version_min: u16,
        /// Newest protocol version the client speaks.
        version_max: u16,
        /// The core that should serve this connection; `None` for whichever accepted it.
        core: Option<u16>,
        /// The client's name and version, for people (at most 64 bytes are kept).
        agent: &'a [u8],
    },
    /// Answers [`Response::Done`].
    Ping,
    /// Answers [`Response::Topology`].
    Topology,
    /// Answers [`Response::Stats`]: the server's counters, summed over cores.
    Stats,
    /// Answers [`Response::Status`]: the node's replicas.
    Status,
    /// Makes a node the one that leads a partition whenever it can: [`Response::Done`] once that is
    /// written in the cluster map. Who leads then hands over by itself.
    Prefer {
        /// The partition.
        partition: PartitionId,
        /// A node that holds it.
        node: NodeId,
    },
    /// Makes a node give away what it leads and take nothing more, until it is undone or restarted:
    /// [`Response::Done`] at once. [`Request::Status`] shows how far it is.
    Drain {
        /// The node, which must be the one that is asked.
        node: NodeId,
        /// Whether it may lead again instead.
        undo: bool,
    },
    /// Reads one key: [`Response::Value`] or [`Response::NotFound`].
    Get {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// Freshness.
        read: ReadOptions<'a>,
        /// The key.
        key: &'a [u8],
    },
    /// Reads one key's version, times and size without its value, `created` exactly:
    /// [`Response::Stat`] or [`Response::NotFound`].
    Stat {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// Freshness.
        read: ReadOptions<'a>,
        /// The key.
        key: &'a [u8],
    },
    /// Reads many keys of any partitions: [`Response::Values`], in the order asked.
    MultiGet {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// Freshness.
        read: ReadOptions<'a>,
        /// The keys.
        keys: Keys<'a>,
    },
    /// One write: [`Response::Written`], or [`Response::Counter`] for an increment.
    Write {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// Acknowledgement and identity.
        options: WriteOptions,
        /// The write.
        op: WriteOp<'a>,
    },
    /// Many writes to keys of one partition, all or none; a key occurs at most once:
    /// [`Response::BatchWritten`].
    Batch {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// Acknowledgement and identity.
        options: WriteOptions,
        /// The writes.
        ops: WriteOps<'a>,
    },
    /// Removes every record of a keyspace in one partition, durably on a majority:
    /// [`Response::Written`].
    Clear {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The partition.
        partition: PartitionId,
    },
    /// A page of rows: [`Response::Rows`].
    Scan(Scan<'a>),
    /// Creates a keyspace: [`Response::Keyspaces`] with the one created.
    KeyspaceCreate {
        /// 1–64 bytes of `[A-Za-z0-9_.-]`, not starting with `.` or `-`.
        name: &'a str,
        /// Its options.
        options: KeyspaceOptions,
    },
    /// Drops a keyspace and everything in it: [`Response::Done`].
    KeyspaceDrop {
        /// Its name.
        name: &'a str,
    },
    /// Lists keyspaces: [`Response::Keyspaces`].
    KeyspaceList,
}

/// A list of keys in wire form: u32 length and bytes each, already checked. Built by
/// [`KeysBuf`](crate::list::KeysBuf).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys<'a> {
    pub(crate) count: u32,
    pub(crate) bytes: &'a [u8],
}

/// A list of writes in wire form, already checked. Built by
/// [`WriteOpsBuf`](crate::list::WriteOpsBuf).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOps<'a> {
    pub(crate) count: u32,
    pub(crate) bytes: &'a [u8],
}

/// Options of a keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyspaceOptions {
    /// Expiry of records written with [`Ttl::Default`], in milliseconds; 0 for never.
    pub default_ttl_ms: u64,
}

/// A keyspace as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyspace {
    /// Its number.
    pub id: KeyspaceId,
    /// Its name.
    pub name: String,
    /// Its options.
    pub options: KeyspaceOptions,
}

/// What is known of a record beside its value. Times are milliseconds since the Unix epoch, by the
/// partition's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// The index of the entry that wrote it.
    pub version: u64,
    /// When it was last written.
    pub updated_ms: u64,
    /// When it was created; 0 if not known without searching (`Stat` always knows).
    pub created_ms: u64,
    /// When it expires; 0 for never.
    pub expires_ms: u64,
}

/// Limits a server tells in its handshake. Over a limit: a typed error, and the connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest key, in bytes.
    pub key_bytes_max: u32,
    /// Largest value, in bytes.
    pub value_bytes_max: u32,
    /// Largest frame, in bytes, header included.
    pub frame_bytes_max: u32,
    /// Requests a connection may have unanswered.
    pub inflight_requests_max: u32,
    /// Rows a scan page may have.
    pub scan_rows_max: u32,
}

/// What a server answers. Borrowed where it carries user data.
#[derive(Debug, Clone, PartialEq)]
pub enum Response<'a> {
    /// To `Hello`.
    Welcome {
        /// The version both will speak.
        version: u16,
        /// The core that serves this connection from now on.
        core: u16,
        /// The server's version, for people.
        server: &'a str,
        /// Its limits.
        limits: Limits,
        /// Where partitions live.
        topology: Topology,
    },
    /// Done; nothing to tell.
    Done,
    /// To `Topology`.
    Topology(Topology),
    /// To `Stats`: names and numbers.
    Stats(Vec<(String, u64)>),
    /// To `Status`.
    Status(NodeStatus),
    /// The key does not exist. As of `token`.
    NotFound {
        /// What this reply saw.
        token: Token,
    },
    /// To `Get`.
    Value {
        /// What this reply saw.
        token: Token,
        /// Version and times.
        meta: Meta,
        /// The value.
        value: &'a [u8],
    },
    /// To `Stat`.
    Stat {
        /// What this reply saw.
        token: Token,
        /// Version and times; `created_ms` is exact.
        meta: Meta,
        /// The value's length in bytes.
        value_bytes: u64,
    },
    /// To `MultiGet`: one per key, in order.
    Values {
        /// What this reply saw, one per partition read.
        tokens: Vec<Token>,
        /// `None` where the key does not exist.
        values: Vec<Option<(Meta, &'a [u8])>>,
    },
    /// To a put, delete, touch or clear.
    Written {
        /// Where the write stands; its index is the record's new version.
        token: Token,
        /// For a delete or touch with [`Response::Written`]: whether the key existed, when that
        /// was known without paying for it (conditional writes and touches); else `None`.
        existed: Option<bool>,
    },
    /// To an increment.
    Counter {
        /// Where the write stands.
        token: Token,
        /// The new number.
        value: i64,
    },
    /// To `Batch`.
    BatchWritten {
        /// Where the batch stands.
        token: Token,
        /// One per write, in order: the new number for an increment.
        counters: Vec<Option<i64>>,
    },
    /// To `Scan`.
    Rows {
        /// What this page saw, one per partition read.
        tokens: Vec<Token>,
        /// Key, version and times, value.
        rows: Vec<(&'a [u8], Meta, &'a [u8])>,
        /// Give it back for the next page. Empty: this was the last.
        cursor: &'a [u8],
    },
    /// To the keyspace requests.
    Keyspaces(Vec<Keyspace>),
    /// It was not done, or not wholly: see the code.
    Error(ErrorReply<'a>),
}

/// A typed failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorReply<'a> {
    /// What the caller must do.
    pub code: ErrorCode,
    /// When to try again, in milliseconds; 0 where trying again does not help.
    pub retry_after_ms: u32,
    /// A number that belongs to the code: the current version for `ConditionFailed` (0: absent),
    /// the limit for `TooLarge`, the leader's [`NodeId`] for `NotLeader` (0: not known), and so on;
    /// else 0. `docs/protocol.md` lists them.
    pub detail: u64,
    /// What was wrong and what to do, in words.
    pub message: &'a str,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// Errors, grouped by what the caller must do: see [`ErrorCode::class`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $value,)*
        }

        impl ErrorCode {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            fn known(code: u16) -> Option<ErrorCode> {
                match code {
                    $($value => Some(ErrorCode::$name),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    // Fix the request: it will never succeed as it is. 0x01xx.
    /// The message is malformed or contradicts itself.
    BadRequest = 0x0101,
    /// A key, value, batch, frame or reply is over a limit.
    TooLarge = 0x0102,
    /// The server does not know this operation or version.
    Unsupported = 0x0103,
    /// There is no keyspace of this number or name.
    NoSuchKeyspace = 0x0104,
    /// There is a keyspace of this name already.
    KeyspaceExists = 0x0105,
    /// A batch's keys belong to different partitions: give them a common `{tag}`.
    CrossPartition = 0x0106,
    /// An increment met a value that is no decimal i64, or would overflow.
    NotANumber = 0x0107,
    /// The first message was not `Hello`, or it came twice.
    Handshake = 0x0108,
    /// Between nodes: the dialer belongs to another cluster.
    WrongCluster = 0x0109,
    /// Between nodes: the dialer wanted another node, or is no node that is known here.
    WrongNode = 0x010A,
    /// Between nodes: the dialer's boot counter was used before. Its disk was rolled back.
    BootReused = 0x010B,

    // Decide again: the data is not as the request supposed. 0x02xx.
    /// The condition did not hold.
    ConditionFailed = 0x0201,
    /// The entry a token names was discarded: what the client had read was never committed.
    Lost = 0x0202,

    // Try again after `retry_after_ms`: nothing was done. 0x03xx.
    /// A limit on requests or bytes in flight was reached.
    Overloaded = 0x0301,
    /// The disk is full, or nearly: deletes and reads go on.
    NoSpace = 0x0302,
    /// The deadline passed before anything was done.
    DeadlineExceeded = 0x0303,
    /// No replica that can serve this was at the token by the deadline.
    Stale = 0x0304,
    /// The server is starting or stopping.
    Unavailable = 0x0305,
    /// This node does not lead the partition. The detail is the leader's node number, 0 if it is
    /// not known.
    NotLeader = 0x0306,

    // Find out: it may or may not have been done. 0x04xx.
    /// The deadline passed, or the shard failed, while the write was under way.
    InDoubt = 0x0401,
    /// Committed and safe on a majority, but not on every voter by the deadline.
    CommittedNotAll = 0x0402,

    // Call the operator. 0x05xx.
    /// Damaged data was found on disk and is not served.
    Corrupt = 0x0501,
    /// The shard has stopped. A write that was under way is answered [`ErrorCode::InDoubt`].
    ShardFailed = 0x0502,
}

/// What the caller must do about an error: the high byte of its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// 0x01: fix the request; it will never succeed as it is. Nothing was done.
    FixRequest,
    /// 0x02: read again and decide again; the data is not as supposed. Nothing was done.
    DecideAgain,
    /// 0x03: try again after `retry_after_ms`. Nothing was done.
    TryAgain,
    /// 0x04: find out; it may or may not have been done.
    FindOut,
    /// 0x05: call the operator; trying again does not help. Nothing was done.
    CallOperator,
}

impl ErrorCode {
    /// The code of this number. One that this version does not know becomes the most general of
    /// its class (`BadRequest`, `ConditionFailed`, `Unavailable`, `InDoubt`, `ShardFailed`), and
    /// one of an unknown class `InDoubt`: the only one that promises nothing.
    pub fn from_u16(code: u16) -> ErrorCode {
        ErrorCode::known(code).unwrap_or(match code >> 8 {
            0x01 => ErrorCode::BadRequest,
            0x02 => ErrorCode::ConditionFailed,
            0x03 => ErrorCode::Unavailable,
            0x05 => ErrorCode::ShardFailed,
            _ => ErrorCode::InDoubt,
        })
    }

    /// What the caller must do.
    pub fn class(self) -> ErrorClass {
        match self as u16 >> 8 {
            0x01 => ErrorClass::FixRequest,
            0x02 => ErrorClass::DecideAgain,
            0x03 => ErrorClass::TryAgain,
            0x04 => ErrorClass::FindOut,
            _ => ErrorClass::CallOperator,
        }
    }
}
