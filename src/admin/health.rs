//! Health: is the process alive, and should it get requests?

use serde_json::{Value, json};

use super::look::Sample;
use super::{Stage, State};
use crate::cluster::bootstrap::clock_apart;

/// Partitions named one by one in a reason.
const NAMED_MAX: usize = 16;

/// What a probe is told: whether all is well, and why not.
pub(super) struct Health {
    pub(super) ok: bool,
    pub(super) body: Value,
}

/// Alive while no core that serves has fallen silent.
pub(super) fn live(sample: &Sample) -> Health {
    let silent = sample.silent();
    let reasons: Vec<Value> = silent.iter().map(|core| silence(*core)).collect();
    Health {
        ok: reasons.is_empty(),
        body: json!({ "live": reasons.is_empty(), "reasons": reasons }),
    }
}

/// Ready when every core serves and every partition that this node holds has a leader that it knows.
/// What is merely refused in part, such as puts on a full disk, is a warning.
pub(super) fn ready(state: &State, sample: &Sample) -> Health {
    let mut reasons = Vec::new();
    let mut warnings = Vec::new();
    match state.stage() {
        Stage::Meeting => reasons.push(json!({
            "reason": "meeting",
            "text": "the node waits for its peers, or looks for its place in the cluster",
        })),
        Stage::Recovering => reasons.push(json!({
            "reason": "recovering",
            "text": "the node reads its log and tables",
        })),
        Stage::Stopping => reasons.push(json!({
            "reason": "stopping",
            "text": "the node finishes what is under way and stops",
        })),
        Stage::Serving(_) => {}
    }
    reasons.extend(sample.silent().into_iter().map(silence));
    let mut leaderless = Vec::new();
    for core in sample.seen() {
        let shard = &core.shard;
        if let Some(failure) = &shard.failure {
            reasons.push(json!({
                "reason": "failed",
                "core": shard.core,
                "text": failure,
            }));
        }
        if shard.space_low {
            warnings.push(json!({
                "reason": "no_space",
                "core": shard.core,
                "text": "puts are refused until there is room on the disk again",
            }));
        }
        warnings.extend(shard.clocks.iter().filter_map(|(node, ahead_ms)| {
            let cluster = sample.running.as_ref().map(|running| &running.cluster);
            let name = cluster.and_then(|cluster| cluster.node(*node));
            let name = name.map_or_else(String::new, |node| node.name.clone());
            clock_apart(&name, *ahead_ms)
                .map(|text| json!({ "reason": "clocks_apart", "node": node, "text": text }))
        }));
        leaderless.extend(
            shard
                .replicas
                .iter()
                .filter(|replica| replica.leader == 0)
                .map(|replica| replica.partition),
        );
    }
    if !leaderless.is_empty() {
        leaderless.sort_unstable();
        let named = &leaderless[..leaderless.len().min(NAMED_MAX)];
        reasons.push(json!({
            "reason": "no_leader",
            "count": leaderless.len(),
            "partitions": named,
            "text": format!(
                "{} partitions have no leader: most of their replicas cannot be reached, or they \
                 elect one just now",
                leaderless.len()
            ),
        }));
    }
    Health {
        ok: reasons.is_empty(),
        body: json!({
            "ready": reasons.is_empty(),
            "reasons": reasons,
            "warnings": warnings,
        }),
    }
}

fn silence(core: usize) -> Value {
    json!({
        "reason": "core_silent",
        "core": core,
        "text": format!("core {core} did not answer within a second"),
    })
}
