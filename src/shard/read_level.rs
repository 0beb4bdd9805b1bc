//! Which state a read sees, by the level that it asks for.
//!
//! A leader's followers may have applied an entry before it has: it is committed once a majority has
//! stored it, and applied here only once this log has stored it, too. So a read of the leader first
//! waits until what was committed when it came is applied. Then what it reads is the newest committed
//! state, if this replica still led when it read: a `Linearizable` read is answered after the value was read
//! and the lease was found to hold then, or a quorum has said so since. A `Strict` read always asks
//! the quorum. `Session` and `Stale` reads are served by any replica: the first waits until what its
//! token names is applied, and gets `STALE` at its deadline; the second is refused at once if this
//! replica cannot say that it is new enough, but for a leader, which then goes by its lease or asks
//! the quorum. A refusal wakes a group that sleeps, in which nobody grows younger.

use std::time::Duration;

use ringbolt_engine::entry::LogId;
use ringbolt_engine::env::Env;
use ringbolt_engine::row::ReadAt;
use ringbolt_wire::message::{ErrorCode, KeyspaceId, PartitionId, ReadLevel, ReadOptions, Token};

use super::Inner;
use super::mail::Origin;
use super::refuse::not_leader;
use super::reply::{Refusal, token};
use crate::planted::{self, Bug};

/// Whether a replica of this age may serve a read that allows so much.
fn is_young(age: Duration, max_age_ms: u32) -> bool {
    age <= Duration::from_millis(u64::from(max_age_ms)) || planted::is(Bug::AgeIgnored)
}

pub(super) fn too_old(partition: PartitionId, age: Duration) -> Refusal {
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let message = format!("this replica of partition {partition} may be {age_ms} ms old");
    Refusal {
        detail: age_ms,
        ..Refusal::retry(ErrorCode::Stale, 50, message)
    }
}

impl<E: Env> Inner<E> {
    /// What a read of a partition sees now: the applied position and time. A refusal if it is not
    /// to be served here or the keyspace is unknown.
    pub(super) fn view(
        &self,
        partition: PartitionId,
        keyspace: KeyspaceId,
        level: ReadLevel,
    ) -> Result<(Token, ReadAt), Refusal> {
        self.check_keyspace(keyspace)?;
        let replicas = self.replicas.borrow();
        let Some(Some(replica)) = replicas.get(usize::from(partition)) else {
            return Err(not_leader(partition, None));
        };
        if replica.is_installing() {
            // From some moment in between the rows are the snapshot's.
            let message = format!("partition {partition} is being brought up to date: try again");
            return Err(Refusal::retry(ErrorCode::Unavailable, 20, message));
        }
        match level {
            ReadLevel::Linearizable | ReadLevel::Strict
                if !replica.serves() && !planted::is(Bug::FollowerReads) =>
            {
                return Err(not_leader(partition, Some(replica)));
            }
            ReadLevel::Stale { max_age_ms } if !replica.serves() => {
                // As for a lease, the clock is read now: the process may have been paused.
                let age = replica.age(self.env.now());
                if !is_young(age, max_age_ms) {
                    drop(replicas);
                    self.rouse(partition);
                    return Err(too_old(partition, age));
                }
            }
            _ => {}
        }
        Ok((
            token(partition, replica.applied_id()),
            ReadAt::newest(replica.applied_time_ms()),
        ))
    }

    /// Whether a read just made may be answered at once: see the module's header.
    pub(super) fn proven_now(&self, partition: PartitionId, level: ReadLevel) -> bool {
        if planted::is(Bug::LeaseIgnored) || planted::is(Bug::FollowerReads) {
            return true;
        }
        let now = || match planted::is(Bug::LeaseByOldClock) {
            true => self.clock.get().now,
            false if planted::is(Bug::LeaseRemembered) => {
                self.env.now().saturating_sub(Duration::from_secs(6))
            }
            false => self.env.now(),
        };
        let replicas = self.replicas.borrow();
        let Some(Some(replica)) = replicas.get(usize::from(partition)) else {
            return false;
        };
        // The clock is read now, not taken from the turn: the process may have been paused since.
        match level {
            ReadLevel::Session => true,
            ReadLevel::Stale { max_age_ms } => is_young(replica.age(self.env.now()), max_age_ms),
            ReadLevel::Linearizable if replica.has_lease(now()) => true,
            _ => replica.is_alone() && replica.serves(),
        }
    }

    /// The index that a read must wait for: what its tokens name, or what a leader knows to be
    /// committed. A refusal if a token names an entry that was discarded.
    pub(super) fn wanted(
        &self,
        origin: &Origin,
        partition: PartitionId,
        read: &ReadOptions<'_>,
        applied: Token,
    ) -> Result<Option<u64>, Refusal> {
        let wanted = match read.level {
            ReadLevel::Session if planted::is(Bug::TokenIgnored) => None,
            ReadLevel::Session => {
                let mut highest = None;
                for token in read.tokens.iter().filter(|t| t.partition == partition) {
                    self.check_not_lost(&token)?;
                    highest = highest.max(Some(token.index));
                }
                highest
            }
            _ if origin.settled || planted::is(Bug::CommitNotAwaited) => None,
            ReadLevel::Linearizable | ReadLevel::Strict => {
                self.with_replica(partition, |replica| replica.commit())
            }
            // A leader passes for up to date, a follower knows its age.
            ReadLevel::Stale { .. } => self
                .with_replica(partition, |replica| {
                    replica.serves().then(|| replica.commit())
                })
                .flatten(),
        };
        Ok(wanted.filter(|&index| index > applied.index))
    }

    /// Whether the entry that a token names stands, or may come yet.
    pub(super) fn check_not_lost(&self, token: &Token) -> Result<(), Refusal> {
        let id = LogId {
            term: token.term,
            index: token.index,
        };
        match self.with_replica(token.partition, |replica| replica.is_lost(id)) {
            Some(true) => Err(Refusal::new(
                ErrorCode::Lost,
                0,
                format!(
                    "entry {} of term {} in partition {} was discarded when its leader failed: \
                     what was read or written with it never came to be",
                    id.index, id.term, token.partition
                ),
            )),
            _ => Ok(()),
        }
    }

    /// What a read of the partition that was begun earlier has seen at most.
    pub(super) fn shown(&self, partition: PartitionId) -> Token {
        let id = self.with_replica(partition, |replica| replica.shown_id());
        token(partition, id.unwrap_or_default())
    }

    /// What the partition has applied.
    pub(super) fn applied(&self, partition: PartitionId) -> Token {
        let replicas = self.replicas.borrow();
        let id = replicas
            .get(usize::from(partition))
            .and_then(Option::as_ref)
            .map(crate::replica::Replica::applied_id)
            .unwrap_or_default();
        token(partition, id)
    }
}
