//! A shard's start: every partition is opened for serving, and keyspaces are made known.

use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_engine::log::{HardState, RecoveredReplica};
use ringbolt_wire::message::ErrorCode;

use super::Shard;
use super::keyspaces::HOME;
use super::reply::Refusal;
use crate::replica::{Replica, ReplicaError, Start, TICK, replica_id};

/// How often a start looks whether its partitions serve.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A shard could not begin to serve.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the shard could not start: {message}")]
pub struct ShardStartError {
    message: String,
    /// Whether that is because what is on disk is damaged.
    pub is_damage: bool,
}

impl ShardStartError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            is_damage: false,
        }
    }
}

impl From<Refusal> for ShardStartError {
    fn from(refusal: Refusal) -> Self {
        Self {
            is_damage: refusal.code == ErrorCode::Corrupt,
            message: refusal.message,
        }
    }
}

impl From<ReplicaError> for ShardStartError {
    fn from(error: ReplicaError) -> Self {
        Self::new(error.to_string())
    }
}

impl<E: Env> Shard<E> {
    /// Opens the replica of every partition this core owns. One that is alone stands for election
    /// at once; the start waits until it serves. The loop must be turning already.
    ///
    /// # Errors
    /// If the log takes no records, or its replicas cannot be understood.
    pub async fn start(&self, recovered: Vec<RecoveredReplica>) -> Result<(), ShardStartError> {
        let inner = &self.0;
        inner.read_clock();
        let mut alone = Vec::new();
        let cluster = &inner.config.cluster;
        for partition in inner.config.map.owned_by(inner.config.core) {
            let Some(id) = cluster.replica_on(partition, cluster.here()) else {
                continue;
            };
            let holders = cluster.holders(partition);
            // Of a later generation it was never among the first members: it waits for a snapshot.
            let is_first = id == replica_id(cluster.here(), 1);
            let voters = holders.iter().filter(|_| is_first);
            let preferred = cluster.replica_on(partition, cluster.first_holder(partition));
            let start = Start {
                partition,
                id,
                preferred: preferred.filter(|_| holders.len() > 1),
                kept_bytes: inner.config.limits.entries_kept_bytes,
                sleep_after: ticks_of(inner.config.limits.sleep_after),
                voters: voters.map(|&node| replica_id(node, 1)).collect(),
            };
            let found = recovered.iter().find(|r| r.partition == partition);
            let applied = inner.engine.tree().applied(partition);
            let mut replica = Replica::new(&start, found, applied.time_ms)?;
            replica.set_terms(inner.load_terms(partition).await.map_err(Refusal::from)?);
            if found.is_none_or(|found| found.hard.replica_id == 0) {
                // First, so that no replay takes one of several voters for one that commits alone.
                let membership = replica.membership().encode();
                inner
                    .engine
                    .log()
                    .append_membership(partition, &membership)
                    .map_err(|error| ShardStartError::new(error.to_string()))?;
                let hard = HardState {
                    replica_id: replica.id(),
                    ..HardState::default()
                };
                inner
                    .engine
                    .append_hard_state(partition, hard)
                    .map_err(|error| ShardStartError::new(error.to_string()))?;
            }
            if replica.is_alone() {
                replica.campaign();
                alone.push(partition);
            }
            inner.replicas.borrow_mut()[usize::from(partition)] = Some(replica);
            inner.to_drive(partition);
        }
        while !alone.is_empty() {
            if let Some(failure) = self.failure() {
                return Err(ShardStartError::new(failure.to_string()));
            }
            let serves = |partition: &u16| {
                let serving = inner.with_replica(*partition, |replica| replica.serves());
                serving == Some(true)
            };
            alone.retain(|partition| !serves(partition));
            inner.env.sleep(LOOK_EVERY).await;
        }
        inner.watch_space();
        if inner.with_replica(HOME, |_| ()).is_some() {
            inner.load_home().await?;
        }
        Ok(())
    }
}

/// A span in whole ticks.
fn ticks_of(span: Duration) -> u32 {
    u32::try_from(span.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
}
