//! Why a write is refused before it is decided: its own faults, who leads, what there is no room for.

use ringbolt_engine::entry::{KeyspaceId, PartitionId};
use ringbolt_engine::env::Env;
use ringbolt_engine::log::AppendError;
use ringbolt_wire::message::{Ack, ErrorCode, KEYSPACE_SYSTEM, WriteOp, WriteOps, WriteOptions};
use ringbolt_wire::partition_of;

use super::Inner;
use super::reply::Refusal;
use crate::replica::{Replica, node_of};

/// How long a client waits before it asks again who leads, in milliseconds.
const LEADER_RETRY_MS: u32 = 25;

/// How long a client waits while the tree takes no writes, in milliseconds.
const STOP_RETRY_MS: u32 = 50;

/// What to do when background work has stopped.
const TABLES_REMEDY: &str = "; nothing more can be compacted or flushed, so writes to this core are \
                             refused, and reads of what is not damaged go on: stop the server, \
                             restore that file or the data folder from a backup, and start it again";

impl<E: Env> Inner<E> {
    /// Whether the keyspace exists.
    pub(super) fn check_keyspace(&self, keyspace: KeyspaceId) -> Result<(), Refusal> {
        if self.knows_keyspace(keyspace) {
            return Ok(());
        }
        let message = if keyspace == KEYSPACE_SYSTEM {
            "the system keyspace is the server's own".to_owned()
        } else {
            format!("there is no keyspace number {keyspace}: list them, or create one")
        };
        Err(Refusal::new(ErrorCode::NoSuchKeyspace, 0, message))
    }

    /// The one partition of a batch's keys.
    pub(super) fn batch_partition(&self, ops: &WriteOps<'_>) -> Result<PartitionId, Refusal> {
        let partitions = self.config.map.partitions();
        let mut partition = None;
        for op in ops.iter() {
            let this = partition_of(op.key(), partitions);
            if *partition.get_or_insert(this) != this {
                return Err(Refusal::new(
                    ErrorCode::CrossPartition,
                    0,
                    "a batch's keys must belong to one partition: give them a common {tag}",
                ));
            }
        }
        partition.ok_or_else(|| Refusal::new(ErrorCode::BadRequest, 0, "the batch is empty"))
    }

    /// Whether the group has as many replicas as acknowledgements are asked for.
    pub(super) fn check_options(
        &self,
        partition: PartitionId,
        options: &WriteOptions,
    ) -> Result<(), Refusal> {
        self.check_tables()?;
        let Ack::Count(count) = options.ack else {
            return Ok(());
        };
        let replicas = self.replicas.borrow();
        let voters = match replicas.get(usize::from(partition)) {
            Some(Some(replica)) => replica.membership().conf.voters.len(),
            _ => 0,
        };
        if usize::from(count) <= voters {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::BadRequest,
            voters as u64,
            format!("{count} acknowledgements are asked for; this partition has {voters} replicas"),
        ))
    }

    /// Whether this replica may decide writes, and the keyspace exists.
    pub(super) fn check_leads(
        &self,
        partition: PartitionId,
        keyspace: KeyspaceId,
    ) -> Result<(), Refusal> {
        self.check_keyspace(keyspace)?;
        match self.replicas.borrow().get(usize::from(partition)) {
            Some(Some(replica)) if replica.serves() => Ok(()),
            other => Err(not_leader(partition, other.and_then(Option::as_ref))),
        }
    }

    /// Where a request for a partition that is not served here should go.
    pub(super) fn led_elsewhere(&self, partition: PartitionId) -> Refusal {
        let replicas = self.replicas.borrow();
        let replica = replicas.get(usize::from(partition));
        not_leader(partition, replica.and_then(Option::as_ref))
    }

    /// Once background work has met a damaged table nothing more gets into tables: writes would only
    /// fill memory and the log.
    pub(super) fn check_tables(&self) -> Result<(), Refusal> {
        let Some(failure) = self.engine.tree().failure() else {
            return Ok(());
        };
        let mut refusal = Refusal::from(failure);
        refusal.message.push_str(TABLES_REMEDY);
        Err(refusal)
    }

    pub(super) fn check_op(&self, partition: PartitionId, op: &WriteOp<'_>) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let key = op.key();
        if key.is_empty() {
            return Err(Refusal::new(ErrorCode::BadRequest, 0, "the key is empty"));
        }
        if key.len() > limits.key_bytes_max {
            return Err(too_large("the key", key.len(), limits.key_bytes_max));
        }
        match op {
            WriteOp::Delete { .. } => return Ok(()),
            WriteOp::Put { value, .. } if value.len() > limits.value_bytes_max => {
                return Err(too_large("the value", value.len(), limits.value_bytes_max));
            }
            _ => {}
        }
        if self.space_low.get() || self.engine.tree().is_out_of_space() {
            return Err(no_space());
        }
        let cluster = &self.config.cluster;
        if cluster.any_full() {
            let now = self.clock.get().now;
            let has_room = |id| !cluster.is_full(node_of(id), now);
            let could_store = self.with_replica(partition, |replica| {
                replica.membership().has_quorum(has_room)
            });
            if could_store == Some(false) {
                return Err(no_space_elsewhere());
            }
        }
        if self.engine.tree().pressure().stop {
            return Err(Refusal::retry(
                ErrorCode::Overloaded,
                STOP_RETRY_MS,
                "memory for writes is used up until more has reached the disk: try again",
            ));
        }
        Ok(())
    }

    pub(super) fn check_batch(
        &self,
        partition: PartitionId,
        ops: &WriteOps<'_>,
    ) -> Result<(), Refusal> {
        let limit = self.config.limits.batch_ops_max as usize;
        if ops.len() > limit {
            return Err(too_large("the batch's number of writes", ops.len(), limit));
        }
        let mut keys = Vec::with_capacity(ops.len());
        for op in ops.iter() {
            self.check_op(partition, &op)?;
            keys.push(op.key());
        }
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Refusal::new(
                ErrorCode::BadRequest,
                0,
                "a key occurs twice in the batch: a batch may write a key once",
            ));
        }
        Ok(())
    }
}

/// Where a write that this replica may not decide should go.
pub(super) fn not_leader(partition: PartitionId, replica: Option<&Replica>) -> Refusal {
    match replica {
        Some(replica) if replica.leader() != 0 && !replica.leads() => Refusal {
            detail: u64::from(node_of(replica.leader())),
            ..Refusal::retry(
                ErrorCode::NotLeader,
                LEADER_RETRY_MS,
                format!("partition {partition} is led by another node: `detail` is its number"),
            )
        },
        _ => Refusal::retry(
            ErrorCode::Unavailable,
            LEADER_RETRY_MS,
            format!("partition {partition} has no leader that serves yet: try again"),
        ),
    }
}

fn too_large(what: &str, is: usize, limit: usize) -> Refusal {
    Refusal::new(
        ErrorCode::TooLarge,
        limit as u64,
        format!("{what} of {is} bytes is over the limit of {limit}"),
    )
}

fn no_space() -> Refusal {
    Refusal::retry(
        ErrorCode::NoSpace,
        1000,
        "the disk is nearly full: puts are refused, reads and deletes go on; writes resume by \
         themselves once there is room",
    )
}

fn no_space_elsewhere() -> Refusal {
    Refusal::retry(
        ErrorCode::NoSpace,
        1000,
        "the disks of most nodes that hold the partition are nearly full: puts are refused, reads and \
         deletes go on; writes resume by themselves once there is room",
    )
}

pub(super) fn refusal_of(error: AppendError) -> Refusal {
    match error {
        AppendError::Full => Refusal::retry(
            ErrorCode::Overloaded,
            5,
            "the log has too many bytes under way: try again a little later",
        ),
        AppendError::NoSpace => no_space(),
        AppendError::TooLarge => Refusal::new(ErrorCode::TooLarge, 0, error.to_string()),
        AppendError::Gap | AppendError::Failed => Refusal::new(
            ErrorCode::ShardFailed,
            0,
            "the shard has stopped: see the server's log",
        ),
    }
}
