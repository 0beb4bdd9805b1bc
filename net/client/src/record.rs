use bytes::Bytes;
use ringbolt_wire::message::{Meta, Token};

/// A value and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The value.
    pub value: Bytes,
    /// Version and times.
    pub meta: Meta,
}

/// A row of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: Bytes,
    /// The value; empty if only keys were asked for.
    pub value: Bytes,
    /// Version and times.
    pub meta: Meta,
}

/// What is known of a record, without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Version and times; when it was created is exact.
    pub meta: Meta,
    /// The value's length in bytes.
    pub value_bytes: u64,
}

/// A write that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Where it stands in its partition's history. Its index is the record's new version.
    pub token: Token,
    /// Whether the key existed before, where the server looked: for conditional writes and touches.
    pub existed: Option<bool>,
}

impl Written {
    /// The record's new version.
    pub fn version(&self) -> u64 {
        self.token.index
    }
}

/// An increment that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// Where it stands in its partition's history. Its index is the record's new version.
    pub token: Token,
    /// The new number.
    pub value: i64,
}

/// A batch that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchWritten {
    /// Where it stands in its partition's history. Its index is every written record's new version.
    pub token: Token,
    /// For each write in order the new number, if it was an increment.
    pub counters: Vec<Option<i64>>,
}
