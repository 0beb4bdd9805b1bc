//! Entries: what one client write or batch does to one partition. The log stores them, the tree
//! applies them.

/// A partition's number.
pub type PartitionId = u16;
/// A keyspace's number.
pub type KeyspaceId = u32;

/// Largest key a client may use, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Largest description of a group's membership, or of a change of it, in bytes.
pub const MEMBERSHIP_BYTES_MAX: usize = 4 << 10;
/// Largest outcome of a write, in bytes.
pub const OUTCOME_BYTES_MAX: usize = 1 << 10;

/// Where an entry stands in its partition's history, as in Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LogId {
    /// The leader's term.
    pub term: u64,
    /// Counts from 1, without holes; it never restarts.
    pub index: u64,
}

/// What an entry says of itself, beside its effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryHead {
    /// The partition.
    pub partition: PartitionId,
    /// Term and index.
    pub id: LogId,
    /// The client that wrote it, 0 for none.
    pub client: u64,
    /// The client's number for the write, 0 for none.
    pub sequence: u64,
    /// The partition's time, in milliseconds since the Unix epoch: never less than that of the
    /// entry before.
    pub time_ms: u64,
}

impl EntryHead {
    /// The client's write that it is, if a client has numbered it.
    #[inline]
    #[must_use]
    pub fn write_id(&self) -> Option<WriteId> {
        WriteId::of(self.client, self.sequence)
    }
}

/// A client's write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteId {
    /// The client, not 0.
    pub client: u64,
    /// The client's number for the write, not 0.
    pub sequence: u64,
}

impl WriteId {
    /// Both numbers, unless one of them is 0 and so stands for none.
    #[inline]
    #[must_use]
    pub fn of(client: u64, sequence: u64) -> Option<Self> {
        (client != 0 && sequence != 0).then_some(Self { client, sequence })
    }
}

/// One change. Effects are decided by the leader: applying them needs no look at what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Sets a key.
    Put {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// When it expires, by the partition's time; 0 for never.
        expires_ms: u64,
        /// When it was created; 0 where the leader did not look.
        created_ms: u64,
    },
    /// Removes a key.
    Delete {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The key.
        key: &'a [u8],
    },
    /// Removes every key of a keyspace in `from..to` in this partition.
    DeleteRange {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The first key removed; empty for the keyspace's first.
        from: &'a [u8],
        /// The first key kept; empty for none (to the keyspace's end).
        to: &'a [u8],
    },
    /// Changes who belongs to the partition's group. The tree passes it over: it concerns the
    /// consensus layer, whose bytes it carries.
    Membership {
        /// The change, at most [`MEMBERSHIP_BYTES_MAX`] long.
        change: &'a [u8],
    },
    /// What the write came to, for whoever sends it again ([`crate::writers`]). An entry has at most
    /// one; none stands for an empty one.
    Outcome {
        /// As the owner wrote it, at most [`OUTCOME_BYTES_MAX`] long.
        outcome: &'a [u8],
    },
}
