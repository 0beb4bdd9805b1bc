//! What runs on each core's thread: recovery, serving, and the clean end.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ringbolt_engine::engine::Engine;
use ringbolt_engine::env::Env;
use ringbolt_engine::error::EngineError;

use super::core::Core;
use super::handler::CoreHandler;
use super::mailbox::Mailboxes;
use super::memory::{Governor, STEP_EVERY};
use super::plan::Plan;
use super::{CoreFailure, CoreReport, DRAIN_MAX};
use crate::admin::process::resident_bytes;
use crate::runtime::RealEnv;
use crate::shard::{Shard, ShardConfig};

/// One core's life. Reports when it is ready to serve and when it has ended.
pub(super) async fn run(
    env: RealEnv,
    plan: Arc<Plan>,
    mailboxes: Mailboxes,
    reports: mpsc::Sender<CoreReport>,
) {
    let number = env.core_index() as u16;
    let outcome = live(env, &plan, mailboxes, &reports).await;
    // Nobody listens any more if the main thread is ending the process.
    let _unheard = reports.send(CoreReport::Ended(number, outcome));
}

/// Recovers, serves, stops.
async fn live(
    env: RealEnv,
    plan: &Plan,
    mailboxes: Mailboxes,
    reports: &mpsc::Sender<CoreReport>,
) -> Result<(), CoreFailure> {
    let number = env.core_index() as u16;
    let dir = plan.shard_dir(number);
    let (engine, recovered) = Engine::open(env.clone(), &dir, plan.engine.clone())
        .await
        .map_err(|error| match error {
            EngineError::Corrupt { .. } => CoreFailure::Damaged(error.to_string()),
            error => CoreFailure::Failed(error.to_string()),
        })?;
    let config = ShardConfig {
        core: number,
        map: Arc::clone(&plan.map),
        cluster: Arc::clone(&plan.cluster),
        limits: plan.limits.clone(),
        resp: Arc::clone(&plan.resp),
        dir,
        space_reserve: plan.space_reserve,
    };
    let shard = Shard::new(env.clone(), engine, config);
    let core = Core::new(
        number,
        shard.clone(),
        Arc::clone(&plan.cluster),
        mailboxes,
        env.wakers().to_vec(),
    );
    let handler = Rc::new(RefCell::new(CoreHandler::new(core)));
    env.install(handler.clone());
    shard
        .start(recovered)
        .await
        .map_err(|error| match error.is_damage {
            true => CoreFailure::Damaged(error.to_string()),
            false => CoreFailure::Failed(error.to_string()),
        })?;
    reports
        .send(CoreReport::Ready)
        .map_err(|_| CoreFailure::Failed("the main thread has ended".to_owned()))?;
    let mut told = false;
    let mut memory = Governor::new(
        plan.memory_bytes,
        plan.cores(),
        plan.engine.tree.memory_bytes,
    );
    loop {
        // As often, the core looks whether it is told to stop, or has to.
        env.sleep(STEP_EVERY).await;
        let tree = shard.engine().tree();
        if let Some(budget) = memory.step(resident_bytes, || tree.memory_bytes()) {
            tree.set_budget(budget);
        }
        if let Some(failure) = shard.failure() {
            // Invariant 6: nothing more is acknowledged; what was under way is in doubt.
            return Err(CoreFailure::Failed(format!(
                "the shard has stopped: {failure}; start the server again to recover from disk"
            )));
        }
        if !told && let Some(failure) = shard.engine().tree().failure() {
            told = true;
            tracing::error!(
                core = number,
                "{failure}; nothing more can be compacted or flushed: writes to this core are \
                 refused, reads of what is not damaged go on; a node of several gets its data from \
                 the others, of one alone: stop the server, restore that file or the data folder \
                 from a backup, and start it again"
            );
            if matches!(failure, EngineError::Corrupt { .. }) {
                plan.cluster.note_damage(&failure.to_string());
            }
        }
        if handler.borrow().is_stopping() {
            break;
        }
    }
    let deadline = env.now() + DRAIN_MAX;
    while !shard.is_idle() && env.now() < deadline {
        env.sleep(Duration::from_millis(1)).await;
    }
    let closed = shard.close().await;
    closed.map_err(|error| CoreFailure::Failed(error.to_string()))
}
