//! The rows that a partition keeps for the server's own use, and what a replica takes over from
//! them when it begins and when it has installed a snapshot.
//!
//! They stand in the system keyspace, which no client reads or writes, under keys that begin with a
//! zero byte, which no keyspace's name does:
//!
//! | key | what |
//! |---|---|
//! | `\0t`… | where a term begins: [`ringbolt_engine::terms`] |
//! | `\0w` | what became of the newest writes: [`ringbolt_engine::writers`] |
//! | `\0map` | the cluster map, in the home partition: [`super::members`] |
//! | `\0next` | the next keyspace's number, in the home partition: [`super::keyspaces`] |

use ringbolt_engine::entry::{LogId, PartitionId};
use ringbolt_engine::env::Env;
use ringbolt_engine::error::EngineError;
use ringbolt_engine::row::{ReadAt, keyspace_range, split_row_key};
use ringbolt_engine::terms::{self, Terms};
use ringbolt_wire::message::KEYSPACE_SYSTEM;

use super::Inner;

/// The first key behind all of them: the lowest that may name a keyspace.
pub(super) const END: &[u8] = &[1];

impl<E: Env> Inner<E> {
    /// Reads where the partition's terms begin.
    pub(super) async fn load_terms(&self, partition: PartitionId) -> Result<Terms, EngineError> {
        let (from, to) = keyspace_range(partition, KEYSPACE_SYSTEM, b"", END);
        let tree = self.engine.tree();
        let mut cursor = tree.cursor(&from, &to, false, ReadAt::newest(0));
        let mut firsts = Vec::new();
        while let Some((row_key, meta, value)) = cursor.next().await? {
            let key = split_row_key(row_key).map_or(&[][..], |parts| parts.key);
            firsts.extend(terms::decode(key, value).map(|term| LogId {
                term,
                index: meta.version,
            }));
        }
        Ok(Terms::of(firsts))
    }
}
