//! Asking the cores, and what a scrape found.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::process::{self, NodeView};
use super::{Look, Running, Stage, State};
use crate::admin::CoreView;
use crate::shard::view::Depth;

/// How long a core may take to answer. It looks into its mailbox every 5 ms, however idle.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What the node was at, at about one moment.
pub(super) struct Sample {
    /// By core; `None` for one that did not answer in time.
    pub(super) cores: Vec<Option<CoreView>>,
    pub(super) node: NodeView,
    pub(super) running: Option<Running>,
}

impl Sample {
    /// Asks every core, and the system.
    pub(super) async fn take(state: &Arc<State>, depth: Depth) -> Self {
        let running = match state.stage() {
            Stage::Serving(running) => Some(running),
            Stage::Meeting | Stage::Recovering | Stage::Stopping => None,
        };
        let cores = match &running {
            Some(running) => ask(running, depth).await,
            None => Vec::new(),
        };
        Self {
            cores,
            node: process::look(&state.facts),
            running,
        }
    }

    /// The cores that answered.
    pub(super) fn seen(&self) -> impl Iterator<Item = &CoreView> {
        self.cores.iter().flatten()
    }

    /// The cores that did not.
    pub(super) fn silent(&self) -> Vec<usize> {
        let cores = self.cores.iter().enumerate();
        cores
            .filter_map(|(core, seen)| seen.is_none().then_some(core))
            .collect()
    }
}

async fn ask(running: &Running, depth: Depth) -> Vec<Option<CoreView>> {
    let answers: Vec<_> = (0..running.cores.count())
        .map(|core| {
            let (tell, told) = oneshot::channel();
            let look = Look {
                depth,
                // Nobody listens any more once the time is over.
                answer: Box::new(move |view| drop(tell.send(view))),
            };
            running.cores.post(core, look);
            told
        })
        .collect();
    let deadline = tokio::time::Instant::now() + ANSWER_WITHIN;
    let mut cores = Vec::with_capacity(answers.len());
    for told in answers {
        let told = tokio::time::timeout_at(deadline, told).await;
        cores.push(told.ok().and_then(Result::ok));
    }
    cores
}
