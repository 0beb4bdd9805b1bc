//! Slow requests and hot keys, as JSON.

use ringbolt_engine::entry::KeyspaceId;
use serde_json::{Map, Value, json};

use super::State;
use super::look::Sample;
use crate::config::Keys;
use crate::shard::trace::{Slow, Wait};

/// Hot keys told of.
const HOT_MAX: usize = 32;

/// `/api/slow`: the newest slow requests of all cores, newest first.
pub(super) fn slow(state: &State, sample: &Sample) -> Value {
    let mut all: Vec<(u16, &Slow)> = sample
        .seen()
        .flat_map(|core| {
            let records = core.shard.account.slow.iter();
            records.map(|slow| (core.shard.core, slow))
        })
        .collect();
    all.sort_unstable_by_key(|(core, slow)| (std::cmp::Reverse(slow.wall_ms), *core, slow.number));
    let total: u64 = sample
        .seen()
        .map(|core| core.shard.account.slow_total)
        .sum();
    let stages: Vec<&str> = Wait::ALL.iter().map(|wait| wait.name()).collect();
    let requests = all.into_iter().map(|(core, slow)| one(state, core, slow));
    json!({
        "node": state.facts.name,
        "threshold_us": state.facts.slow_threshold.as_micros() as u64,
        "total": total,
        "stages": stages,
        "requests": requests.collect::<Vec<_>>(),
    })
}

fn one(state: &State, core: u16, slow: &Slow) -> Value {
    let stages: Map<String, Value> = Wait::ALL
        .iter()
        .zip(slow.waits)
        .filter(|(_, us)| *us > 0)
        .map(|(wait, us)| (wait.name().to_owned(), us.into()))
        .collect();
    let members = slow.members.iter();
    let members = members.map(|(node, us)| json!({ "node": node, "stored_us": us }));
    json!({
        "core": core,
        "number": slow.number,
        "wall_ms": slow.wall_ms,
        "op": slow.op.name(),
        "outcome": slow.outcome.name(),
        "bytes": slow.bytes,
        "forwarded_by": slow.forwarded_by,
        "partition": slow.partition,
        "keyspace": slow.key.as_ref().map(|(keyspace, _)| keyspace),
        "key": slow.key.as_ref().map(|(keyspace, key)| shown(state, *keyspace, key)),
        "total_us": slow.total_us,
        "stages_us": stages,
        "background_us": slow.background_us,
        "members": members.collect::<Vec<_>>(),
    })
}

/// `/api/hot`: the hottest keys of the last half second, and what each partition has had.
pub(super) fn hot(state: &State, sample: &Sample) -> Value {
    let per_second: f64 = sample.seen().map(|core| core.shard.hot.per_second).sum();
    let all = per_second.max(1e-9);
    let mut keys: Vec<_> = sample
        .seen()
        .flat_map(|core| {
            // A share is of the node's requests, not of the core's alone.
            let part = core.shard.hot.per_second / all;
            let keys = core.shard.hot.keys.iter();
            keys.map(move |key| (core.shard.core, key.share * part, key.error * part, key))
        })
        .collect();
    keys.sort_unstable_by(|a, b| (b.1 - b.2).total_cmp(&(a.1 - a.2)));
    let keys = keys
        .into_iter()
        .take(HOT_MAX)
        .map(|(core, share, error, key)| {
            json!({
                "core": core,
                "partition": key.partition,
                "keyspace": key.keyspace,
                "key": shown(state, key.keyspace, &key.key),
                "per_second": key.per_second,
                "share": share,
                "error": error,
                "writes": key.writes,
            })
        });
    let mut partitions: Vec<Value> = sample
        .seen()
        .flat_map(|core| {
            let counts = core.shard.hot.partitions.iter();
            counts.map(|(partition, requests)| {
                json!({
                    "partition": partition,
                    "core": core.shard.core,
                    "requests_total": requests,
                    "per_second": state.series.partition_rate(*partition),
                })
            })
        })
        .collect();
    partitions.sort_by(|a, b| {
        let rate = |one: &Value| one["per_second"].as_f64().unwrap_or(0.0);
        rate(b).total_cmp(&rate(a))
    });
    json!({
        "node": state.facts.name,
        "per_second": per_second,
        "keys": keys.collect::<Vec<_>>(),
        "partitions": partitions,
    })
}

/// A key as operators see it: escaped, or a hash that holds while the process lives.
pub(super) fn shown(state: &State, keyspace: KeyspaceId, key: &[u8]) -> String {
    match state.facts.keys {
        Keys::Show => key.escape_ascii().to_string(),
        Keys::Hide => {
            let hash = state.key_hasher.hash_one((keyspace, key));
            format!("#{:08x}", hash as u32)
        }
    }
}
