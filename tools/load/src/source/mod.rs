//! What to ask next, and what to make of the answer.

use crate::LoadError;

pub mod load;
pub mod mix;
mod routing;
pub mod verify;

pub use routing::Routing;

/// What a request is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// A get.
    Read,
    /// A put of a record that may exist.
    Update,
    /// A put of a new record.
    Insert,
    /// A page of rows.
    Scan,
    /// A get and then a put of the same record, timed as one.
    Modify,
    /// A delete.
    Delete,
}

impl OpKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Update,
        Self::Insert,
        Self::Scan,
        Self::Modify,
        Self::Delete,
    ];

    /// For people and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Update => "update",
            Self::Insert => "insert",
            Self::Scan => "scan",
            Self::Modify => "read-modify-write",
            Self::Delete => "delete",
        }
    }

    /// Whether it changes data.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::Scan)
    }
}

/// One request to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// What.
    pub kind: OpKind,
    /// The record.
    pub index: u64,
    /// The write's number (in a verified run), or anything that varies the value.
    pub sequence: u64,
    /// Bytes of the value, or rows of the scan.
    pub size: u32,
    /// Where the source keeps the record's state.
    pub place: u32,
}

/// What a source says when asked for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Make this one.
    Op(Op),
    /// None for this connection right now: ask again soon.
    Wait,
    /// None for this connection any more.
    Done,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// A read: the value.
    Value(&'a [u8]),
    /// A read: no such record.
    Absent,
    /// A write: acknowledged.
    Written,
    /// A scan: how many rows.
    Rows(u32),
    /// It was not done.
    NotDone,
    /// It may have been done, or may be done until its deadline has passed.
    InDoubt,
}

/// Where requests come from. One per thread.
pub trait Source {
    /// The next request for connection `conn` (counted within the thread), which leads to `place`
    /// (`None`: keys need not match).
    fn next(&mut self, conn: usize, place: Option<u16>, now_ns: u64) -> Next;

    /// What came of a request. `key` is its record's key.
    fn done(&mut self, conn: usize, op: &Op, key: &[u8], outcome: Outcome<'_>, now_ns: u64);

    /// Called before requests go out, if [`Source::batched`], and now and then.
    ///
    /// # Errors
    /// End the run.
    fn before_send(&mut self) -> Result<(), LoadError> {
        Ok(())
    }

    /// Whether nothing may be sent before [`Source::before_send`].
    fn batched(&self) -> bool {
        false
    }
}
