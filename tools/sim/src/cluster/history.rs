//! What clients asked, when, and what they were told: all that the checkers may look at.
//!
//! Times are nanoseconds of the simulation's true time, which no node knows.

use ringbolt_wire::message::{PartitionId, ReadLevel, Token};

/// A key's number in [`Keys`](super::workload::Keys).
pub type KeyId = u16;

/// The time of completion of what never completed.
pub const NEVER: u64 = u64::MAX;

/// A record as a read saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Its content: a number that no other put ever wrote, or a counter.
    pub value: i64,
    /// The index of the entry that wrote it.
    pub version: u64,
    /// The partition's time at that entry.
    pub updated_ms: u64,
}

/// What must hold for a write to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// Nothing.
    None,
    /// The key does not exist.
    Absent,
    /// The key exists.
    Present,
    /// The key has this content, which the client knew by this version.
    Is {
        /// The content.
        value: i64,
        /// The version sent.
        version: u64,
    },
}

/// What a write does to one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Sets it.
    Put(i64),
    /// Removes it.
    Delete,
    /// Adds to it; a missing key counts as 0.
    Add(i64),
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A write of one key, or a batch.
    Write {
        /// Each key with what is done to it.
        changes: Vec<(KeyId, Guard, Change)>,
        /// Whether it is acknowledged before a quorum has it.
        leader_only: bool,
    },
    /// A read of some keys.
    Read {
        /// The keys.
        keys: Vec<KeyId>,
        /// How fresh.
        level: ReadLevel,
        /// What the client's session had seen before.
        tokens: Vec<Token>,
        /// Whether it is one page, which shows each partition at one moment.
        page: bool,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The write is done.
    Written {
        /// Where it stands.
        token: Token,
        /// For each change: the counter's new number.
        numbers: Vec<Option<i64>>,
    },
    /// A guard did not hold; nothing was done.
    GuardFailed {
        /// The version that the key of the guard has; 0 if there is none.
        version: u64,
    },
    /// The read saw this.
    Seen {
        /// The positions it saw, one for each partition read.
        tokens: Vec<Token>,
        /// For each key.
        cells: Vec<Option<Cell>>,
    },
    /// Nothing was done.
    Failed,
    /// Nobody knows: it may have been done, or will be, or never.
    InDoubt,
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// When it was asked.
    pub invoked: u64,
    /// When the answer came; [`NEVER`] if none did.
    pub completed: u64,
    /// What was asked.
    pub call: Call,
    /// What came of it.
    pub outcome: Outcome,
}

/// Every operation of a run, in the order of their ends.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The operations.
    pub operations: Vec<Operation>,
    /// The partition of each key.
    pub partitions: Vec<PartitionId>,
    /// The group of each key: the keys of a group are only ever written together.
    pub groups: Vec<Option<u16>>,
}

impl History {
    /// The partition of a key.
    #[must_use]
    pub fn partition(&self, key: KeyId) -> PartitionId {
        self.partitions[usize::from(key)]
    }
}
