use std::time::Duration;

use ringbolt_wire::message::{Ack, Condition, ReadLevel, Ttl};

/// How to read: how fresh, and by when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReadOptions {
    /// How fresh: linearizable unless told otherwise.
    pub level: ReadLevel,
    /// How long the request may take; `None` for the client's own deadline.
    pub deadline: Option<Duration>,
}

impl ReadOptions {
    /// Linearizable, by the client's own deadline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how fresh.
    pub fn level(self, level: ReadLevel) -> Self {
        ReadOptions { level, ..self }
    }

    /// Sets how long the request may take.
    pub fn deadline(self, deadline: Duration) -> Self {
        ReadOptions {
            deadline: Some(deadline),
            ..self
        }
    }
}

/// How to write: when to acknowledge, on what condition, with what expiry, and by when.
///
/// For a [`Batch`](crate::Batch), whose writes have conditions and expiries of their own, only the
/// acknowledgement and the deadline matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// When to acknowledge: on a quorum unless told otherwise.
    pub ack: Ack,
    /// What must hold: nothing unless told otherwise.
    pub condition: Condition,
    /// When the record expires: by the keyspace's default unless told otherwise. A delete has none.
    pub ttl: Ttl,
    /// How long the request may take; `None` for the client's own deadline.
    pub deadline: Option<Duration>,
}

impl WriteOptions {
    /// On a quorum, without condition, expiring by the keyspace's default, by the client's own
    /// deadline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets when to acknowledge.
    pub fn ack(self, ack: Ack) -> Self {
        WriteOptions { ack, ..self }
    }

    /// Sets what must hold.
    pub fn condition(self, condition: Condition) -> Self {
        WriteOptions { condition, ..self }
    }

    /// Only if the key does not exist.
    pub fn if_absent(self) -> Self {
        self.condition(Condition::Absent)
    }

    /// Only if the key exists.
    pub fn if_present(self) -> Self {
        self.condition(Condition::Present)
    }

    /// Only if the key has this version.
    pub fn if_version(self, version: u64) -> Self {
        self.condition(Condition::Version(version))
    }

    /// Sets when the record expires.
    pub fn ttl(self, ttl: Ttl) -> Self {
        WriteOptions { ttl, ..self }
    }

    /// The record expires this long after the write, rounded up to milliseconds.
    pub fn expires_after(self, after: Duration) -> Self {
        let millis = after.as_nanos().div_ceil(1_000_000);
        self.ttl(Ttl::AfterMs(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    /// Sets how long the request may take.
    pub fn deadline(self, deadline: Duration) -> Self {
        WriteOptions {
            deadline: Some(deadline),
            ..self
        }
    }
}
