//! Dying with a full log, and coming back.

use std::time::Duration;

use ringbolt::runtime::RealEnv;
use ringbolt_engine::env::Env as _;
use serde::{Deserialize, Serialize};

use super::Args;
use super::store::Store;
use super::write::{self, WriteResult};

/// What opening came to.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct ReplayResult {
    /// Entries of the log applied again.
    pub replayed: u64,
    /// How long opening took, in seconds.
    pub seconds: f64,
}

/// Writes every record, tells so, and waits to be killed.
pub(super) async fn die(env: RealEnv, args: &Args) -> Result<WriteResult, String> {
    let mut store = Store::open(env.clone(), args).await?;
    let result = write::each_once(&env, &mut store, args).await?;
    println!(
        "{}",
        serde_json::to_string(&result).map_err(|error| error.to_string())?
    );
    loop {
        env.sleep(Duration::from_secs(1)).await;
    }
}

/// Opens what [`die`] left.
pub(super) async fn reopen(env: RealEnv, args: &Args) -> Result<ReplayResult, String> {
    let store = Store::open(env, args).await?;
    let stats = store.stats();
    store.close().await?;
    Ok(ReplayResult {
        replayed: stats.replayed,
        seconds: stats.opened_in.as_secs_f64(),
    })
}
