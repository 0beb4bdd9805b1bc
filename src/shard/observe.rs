//! What a shard's replicas are at, for those who look on.

use ringbolt_engine::entry::{LogId, PartitionId};
use ringbolt_engine::env::Env;

use super::Shard;

/// What one replica is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaState {
    /// The partition.
    pub partition: PartitionId,
    /// The replica's id.
    pub id: u64,
    /// The term it is in.
    pub term: u64,
    /// Whether it leads in that term.
    pub leads: bool,
    /// The last entry it has, applied or not.
    pub last_index: u64,
    /// The last entry it knows to be committed.
    pub commit_index: u64,
    /// The last entry it has applied.
    pub applied: LogId,
    /// Whether it sleeps.
    pub asleep: bool,
    /// The partition's time at that entry, in milliseconds since the Unix epoch.
    pub applied_time_ms: u64,
    /// Whether its group's members are those of the newest cluster map that is known here.
    pub is_settled: bool,
}

impl<E: Env> Shard<E> {
    /// How often entries that stayed uncommitted were logged again.
    #[must_use]
    pub fn carried_forward(&self) -> u64 {
        self.0.counters.carried_forward_total.get()
    }

    /// Shows what each replica of this core is at. `look` must not call back into the shard.
    pub fn each_replica(&self, mut look: impl FnMut(ReplicaState)) {
        let known = self.0.config.cluster.map();
        let replicas = self.0.replicas.borrow();
        for (partition, replica) in replicas.iter().enumerate() {
            if let Some(replica) = replica {
                let partition = partition as PartitionId;
                look(ReplicaState {
                    partition,
                    id: replica.id(),
                    term: replica.term(),
                    leads: replica.leads(),
                    last_index: replica.last_index(),
                    commit_index: replica.commit(),
                    applied: replica.applied_id(),
                    asleep: replica.is_asleep(),
                    applied_time_ms: replica.applied_time_ms(),
                    is_settled: known.as_ref().is_some_and(|known| {
                        let wanted = known.map.replicas(partition);
                        replica.membership().is_settled_as(wanted)
                    }),
                });
            }
        }
    }
}
