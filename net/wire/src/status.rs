//! What a node knows of its replicas: the answer to `Status`.

use crate::message::{NodeId, PartitionId};

/// A node's replicas as it sees them itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeStatus {
    /// The node that tells this.
    pub here: NodeId,
    /// Its wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Its replicas, by partition.
    pub replicas: Vec<ReplicaStatus>,
}

/// What a replica is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// It follows, or stands for election.
    #[default]
    Follower,
    /// It has been elected and does not serve yet.
    Elected,
    /// It leads and serves.
    Leader,
}

/// One replica. Indexes are those of the partition's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaStatus {
    /// The partition.
    pub partition: PartitionId,
    /// What it is doing.
    pub role: Role,
    /// The node it believes to lead; 0 for none.
    pub leader: NodeId,
    /// The newest term it has seen.
    pub term: u64,
    /// The last entry it has, durable or not.
    pub last: u64,
    /// The last entry it knows to be committed.
    pub commit: u64,
    /// The last entry it has applied.
    pub applied: u64,
    /// How often it has seen another leader elected since its node started.
    pub elections: u64,
    /// The members of its group; what a leader alone knows of them is 0 elsewhere.
    pub members: Vec<MemberStatus>,
}

/// A member of a replica's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemberStatus {
    /// Its replica id: `node << 32 | generation`.
    pub replica: u64,
    /// The last entry that it is known to have stored.
    pub stored: u64,
    /// Whether it was heard of lately.
    pub alive: bool,
    /// Whether it votes; one that does not is being caught up.
    pub votes: bool,
}

impl MemberStatus {
    /// The node it is on.
    #[must_use]
    pub fn node(&self) -> NodeId {
        (self.replica >> 32) as NodeId
    }
}
