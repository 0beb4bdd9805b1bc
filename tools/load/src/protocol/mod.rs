//! The two protocols, behind one shape: encode a request, decode the next reply.

use std::borrow::Cow;

pub mod redis;
pub mod ringbolt;

pub use redis::RedisCodec;
pub use ringbolt::RingboltCodec;

/// One request, as the protocols see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Reads one key.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// Sets one key.
    Put {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Removes one key.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Reads up to `rows` rows from `start` on, within the keys that begin with `prefix`.
    Scan {
        /// Where to begin.
        start: &'a [u8],
        /// What keys begin with.
        prefix: &'a [u8],
        /// Most rows.
        rows: u32,
    },
}

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// To a get: the value.
    Value(&'a [u8]),
    /// To a get: no such key.
    Absent,
    /// To a put or delete.
    Written,
    /// To a scan: how many rows.
    Rows(u32),
    /// Refused or failed.
    Error(Failure),
}

/// A typed failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it is counted under: the code's name.
    pub code: Cow<'static, str>,
    /// What became of the request.
    pub effect: Effect,
    /// In words.
    pub message: String,
}

/// What became of a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing was done: try again after this many milliseconds.
    Retry {
        /// When.
        after_ms: u32,
    },
    /// Nothing was done: this node does not lead.
    NotLeader {
        /// The number of the one that does; 0 if it is not known.
        node: u32,
    },
    /// Nothing was done, and trying again does not help.
    None,
    /// It may or may not have been done.
    InDoubt,
    /// It was done, less safely than asked.
    Done,
}

/// A decoded reply and what it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How many bytes it took.
    pub bytes: usize,
    /// The request's id; `None`: it answers the oldest request.
    pub id: Option<u64>,
    /// What it says.
    pub reply: Reply<'a>,
}

/// The server said something that this protocol does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProtocolError(pub String);

/// A protocol.
#[derive(Debug, Clone)]
pub enum Codec {
    /// Ringbolt's own.
    Ringbolt(RingboltCodec),
    /// Redis RESP2.
    Redis(RedisCodec),
}

impl Codec {
    /// Appends one request to `out`.
    ///
    /// # Errors
    /// What the protocol cannot carry.
    pub fn encode(
        &mut self,
        id: u64,
        command: &Command<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        match self {
            Self::Ringbolt(codec) => codec.encode(id, command, out),
            Self::Redis(codec) => codec.encode(command, out),
        }
    }

    /// The first reply in `bytes`; `None` if it is not whole yet.
    ///
    /// # Errors
    /// If `bytes` cannot be the beginning of a reply: the connection is of no more use.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Option<Decoded<'a>>, ProtocolError> {
        match self {
            Self::Ringbolt(codec) => codec.decode(bytes),
            Self::Redis(codec) => codec.decode(bytes),
        }
    }

    /// Whether replies come in the order of the requests.
    pub fn in_order(&self) -> bool {
        matches!(self, Self::Redis(_))
    }
}
