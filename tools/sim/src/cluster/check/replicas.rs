//! Replicas that have applied the same entries hold the same rows, and know the same of writes.
//!
//! What became of writes is compared as it is in memory: each replica puts it down in a row when it
//! closes a memtable.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ringbolt::shard::Shard;
use ringbolt_engine::env::sim::SimEnv;
use ringbolt_engine::row::{ReadAt, RowKeyBuf, partition_range};
use ringbolt_engine::writers;
use ringbolt_wire::message::KEYSPACE_SYSTEM;

/// What a replica's rows come to: how many, and a digest of keys, versions, times and values, and of
/// what became of writes.
type Digest = (u64, u64);

/// The digests taken so far: by partition and applied index, of each node.
pub type Digests = Rc<RefCell<BTreeMap<(u16, u64), Vec<(u16, Result<Digest, String>)>>>>;

/// Takes the digest of every replica of a shard.
pub async fn take(node: u16, shard: Shard<SimEnv>, digests: Digests) {
    let mut states = Vec::new();
    shard.each_replica(|state| {
        let results = of_results(&shard, state.partition);
        states.push((state, results));
    });
    for (state, results) in states {
        let at = ReadAt {
            version: state.applied.index,
            time_ms: state.applied_time_ms,
        };
        let digest = digest(&shard, state.partition, at, results).await;
        digests
            .borrow_mut()
            .entry((state.partition, state.applied.index))
            .or_default()
            .push((node, digest));
    }
}

fn of_results(shard: &Shard<SimEnv>, partition: u16) -> u64 {
    let writers = shard.engine().tree().writers(partition);
    let mut hash = 0;
    for (write, id, outcome) in writers.results() {
        for number in [write.client, write.sequence, id.term, id.index] {
            hash = fold(hash, &number.to_le_bytes());
        }
        hash = fold(hash, outcome);
    }
    hash
}

async fn digest(
    shard: &Shard<SimEnv>,
    partition: u16,
    at: ReadAt,
    results: u64,
) -> Result<Digest, String> {
    let (from, to) = partition_range(partition);
    let mut cursor = shard.engine().tree().cursor(&from, &to, false, at);
    let own = RowKeyBuf::of(partition, KEYSPACE_SYSTEM, &writers::row::KEY);
    let (mut rows, mut hash) = (0, results);
    loop {
        match cursor.next().await {
            Ok(Some((key, ..))) if *key == *own => {}
            Ok(Some((key, meta, value))) => {
                rows += 1;
                // When a row was created is not known everywhere without searching.
                let numbers = [meta.version, meta.updated_ms, meta.expires_ms];
                hash = fold(hash, key);
                for number in numbers {
                    hash = fold(hash, &number.to_le_bytes());
                }
                hash = fold(hash, value);
            }
            Ok(None) => return Ok((rows, hash)),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// FNV-1a.
fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    })
}

/// Compares what was taken. Returns how many replicas agreed with another one.
///
/// # Errors
/// Which differ.
pub fn compare(digests: &Digests) -> Result<u64, String> {
    let mut agreed = 0;
    for ((partition, index), replicas) in digests.borrow().iter() {
        let Some((first, expected)) = replicas.first() else {
            continue;
        };
        for (node, digest) in replicas {
            if digest != expected || digest.is_err() {
                return Err(format!(
                    "partition {partition} at entry {index}: node {} has {digest:?}, node {} \
                     {expected:?}",
                    node + 1,
                    first + 1
                ));
            }
        }
        agreed += replicas.len() as u64 - 1;
    }
    Ok(agreed)
}
