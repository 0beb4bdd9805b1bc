//! A shard's start: every partition is opened for serving, and keyspaces are made known.

use ringbolt_engine::env::Env;
use ringbolt_engine::log::{HardState, RecoveredReplica};

use super::Shard;
use super::keyspaces::HOME;
use super::pending::{KeyHashes, Outcome, Pending};
use super::reply::Refusal;
use super::signal::Signal;
use crate::replica::{Replica, Vote};

/// The replica id of a partition's first replica.
const FIRST_REPLICA: u64 = 1;

/// A shard could not begin to serve.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the shard could not start: {0}")]
pub struct ShardStartError(String);

impl From<Refusal> for ShardStartError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.message)
    }
}

impl<E: Env> Shard<E> {
    /// Opens every partition this core owns: each stands for election, logs its vote and the empty
    /// entry of its term, and serves once that is committed. The loop must be turning already.
    ///
    /// # Errors
    /// If the log takes no records.
    pub async fn start(&self, recovered: Vec<RecoveredReplica>) -> Result<(), ShardStartError> {
        let inner = &self.0;
        inner.read_clock();
        let mut openings = Vec::new();
        for partition in inner.config.map.owned_by(inner.config.core) {
            let found = recovered.iter().find(|r| r.partition == partition);
            let mut replica = match found {
                Some(found) => Replica::recover(
                    partition,
                    found.hard.replica_id.max(FIRST_REPLICA),
                    Vote {
                        term: found.hard.term,
                        vote: found.hard.vote,
                        commit: found.hard.commit,
                    },
                    found.last,
                    found.last,
                    found.time_ms,
                ),
                None => Replica::recover(
                    partition,
                    FIRST_REPLICA,
                    Vote::default(),
                    Default::default(),
                    Default::default(),
                    0,
                ),
            };
            let vote = replica.campaign();
            let hard = HardState {
                replica_id: replica.id(),
                term: vote.term,
                vote: vote.vote,
                commit: vote.commit,
            };
            inner
                .engine
                .append_hard_state(partition, hard)
                .map_err(|error| ShardStartError(error.to_string()))?;
            inner.replicas.borrow_mut()[usize::from(partition)] = Some(replica);
            let (record, _) = inner.log(partition, 0, 0, &[])?;
            let opened = Signal::new();
            inner.pending.borrow_mut().push(Pending {
                partition,
                record: Some(record),
                keys: KeyHashes::None,
                outcome: Outcome::Own(Some(opened.clone())),
                bytes: 0,
            });
            openings.push(opened);
        }
        for opened in openings {
            opened.wait().await;
        }
        inner.watch_space();
        if inner.config.map.core_of(HOME) == inner.config.core {
            inner.load_keyspaces().await?;
        }
        Ok(())
    }
}
