//! Seeks: to a live record, and to one that hides behind 100,000 deleted ones.

use ringbolt::runtime::RealEnv;
use ringbolt_engine::env::Env as _;
use serde::{Deserialize, Serialize};

use super::Args;
use super::store::Store;

/// Records deleted in a row.
const DELETED: u64 = 100_000;
/// Live records before and behind them.
const LIVE: u64 = 50_000;
/// Seeks measured.
const SEEKS: usize = 400;
/// Entries that wait for their group.
const DEPTH: u64 = 1024;

/// What seeking came to, in microseconds; medians of 400 seeks to the same key.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct SeekResult {
    /// Before anything was deleted.
    pub fresh_us: f64,
    /// The very first one after the deletes, to the record behind them.
    pub first_deleted_us: f64,
    /// That one and those that follow: the tree notices what it had to step over.
    pub deleted_us: f64,
    /// The same once compaction has settled.
    pub settled_us: f64,
}

fn key(index: u64) -> [u8; 16] {
    let mut key = *b"row:000000000000";
    let mut rest = index;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

async fn each(
    store: &mut Store,
    range: std::ops::Range<u64>,
    mut append: impl FnMut(&mut Store, &[u8]) -> Result<bool, String>,
) -> Result<(), String> {
    let mut next = range.start;
    let mut in_flight = 0;
    while next < range.end || in_flight > 0 {
        while next < range.end && in_flight < DEPTH && append(store, &key(next))? {
            next += 1;
            in_flight += 1;
        }
        let durable = store.turn().await? as u64;
        in_flight -= durable.min(in_flight);
    }
    Ok(())
}

/// The first and the median time of seeks to the first row at or after record `from`, which must be
/// `expected`.
async fn seek(env: &RealEnv, store: &Store, from: u64, expected: u64) -> Result<[f64; 2], String> {
    let start = Store::row_key(&key(from));
    let end = Store::row_key(b"row;");
    let expected = Store::row_key(&key(expected));
    let mut times = Vec::with_capacity(SEEKS);
    for _ in 0..SEEKS {
        let begun = env.now();
        let mut cursor = store
            .tree()
            .cursor(start.as_slice(), end.as_slice(), false, store.at());
        let row = cursor.next().await.map_err(|error| error.to_string())?;
        let took = env.now().saturating_sub(begun);
        if row.is_none_or(|(row_key, ..)| row_key != expected.as_slice()) {
            return Err("a seek found the wrong row".into());
        }
        times.push(took.as_secs_f64() * 1e6);
        env.yield_if_needed().await;
    }
    let first = times[0];
    times.sort_unstable_by(f64::total_cmp);
    Ok([first, times[SEEKS / 2]])
}

pub(super) async fn run(env: RealEnv, args: &Args) -> Result<SeekResult, String> {
    let mut store = Store::open(env.clone(), args).await?;
    let value = vec![7; args.value_bytes as usize];
    let all = LIVE + DELETED + LIVE;
    each(&mut store, 0..all, |store, key| store.put(key, &value)).await?;
    store.settle().await?;
    let [_, fresh_us] = seek(&env, &store, LIVE, LIVE).await?;
    let deleted = LIVE..LIVE + DELETED;
    each(&mut store, deleted.clone(), Store::delete).await?;
    let [first_deleted_us, deleted_us] = seek(&env, &store, LIVE, deleted.end).await?;
    store.settle().await?;
    let [_, settled_us] = seek(&env, &store, LIVE, deleted.end).await?;
    store.close().await?;
    Ok(SeekResult {
        fresh_us,
        first_deleted_us,
        deleted_us,
        settled_us,
    })
}
