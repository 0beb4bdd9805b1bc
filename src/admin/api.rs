//! What the page asks for, as JSON.

use serde_json::{Value, json};

use super::look::Sample;
use super::{Stage, State, health};

/// The node, its cluster as it knows it, its cores and its partitions.
pub(super) fn status(state: &State, sample: &Sample) -> Value {
    let facts = &state.facts;
    let stage = match state.stage() {
        Stage::Meeting => "meeting",
        Stage::Recovering => "recovering",
        Stage::Serving(_) => "serving",
        Stage::Stopping => "stopping",
    };
    let node = &sample.node;
    json!({
        "name": facts.name,
        "version": env!("CARGO_PKG_VERSION"),
        "listen": facts.listen.to_string(),
        "data": facts.data.display().to_string(),
        "stage": stage,
        "uptime_seconds": node.uptime.as_secs_f64(),
        "memory": {
            "budget_bytes": node.memory_budget_bytes,
            "resident_bytes": node.resident_bytes,
        },
        "disk": {
            "free_bytes": node.disk_free_bytes,
            "size_bytes": node.disk_size_bytes,
            "reserve_bytes": node.disk_reserve_bytes,
        },
        "ready": health::ready(state, sample).body,
        "cluster": cluster(sample),
        "cores": cores(sample),
        "partitions": partitions(sample),
    })
}

fn cluster(sample: &Sample) -> Value {
    let Some(running) = &sample.running else {
        return Value::Null;
    };
    let cluster = &running.cluster;
    let here = cluster.here();
    let leads = |node: u32| {
        let partitions = 0..running.partitions;
        partitions
            .filter(|partition| cluster.known_leader(*partition) == node)
            .count()
    };
    // What the leaders of this node know of the others.
    let heard = |node: u32| {
        let mut members = sample
            .seen()
            .flat_map(|core| &core.shard.replicas)
            .flat_map(|replica| {
                let members = replica
                    .members
                    .iter()
                    .filter(|member| member.node() == node);
                members.map(move |member| {
                    let lag = replica.commit.saturating_sub(member.stored);
                    (member.alive, member.stored > 0 || member.alive, lag)
                })
            })
            .filter(|(_, told, _)| *told)
            .peekable();
        members.peek()?;
        let (mut alive, mut lag) = (false, 0);
        for (is_alive, _, behind) in members {
            alive |= is_alive;
            lag = lag.max(behind);
        }
        Some((alive, lag))
    };
    let nodes: Vec<Value> = cluster
        .nodes()
        .iter()
        .map(|node| {
            let told = heard(node.id);
            json!({
                "id": node.id,
                "name": node.name,
                "address": cluster.shown_address(node),
                "zone": node.zone,
                "cores": node.cores,
                "here": node.id == here,
                "leads": leads(node.id),
                "alive": (node.id != here).then_some(told.map(|(alive, _)| alive)).flatten(),
                "lag": told.map(|(_, lag)| lag),
            })
        })
        .collect();
    json!({
        "id": format!("{:016x}", cluster.identity().cluster),
        "here": here,
        "map_version": cluster.map_version(),
        "nodes": nodes,
    })
}

fn cores(sample: &Sample) -> Vec<Value> {
    let cores = sample.cores.iter().enumerate();
    cores
        .map(|(number, core)| {
            let Some(core) = core else {
                return json!({ "core": number, "up": false });
            };
            let (shard, tree) = (&core.shard, &core.shard.engine.tree);
            let cpu = sample
                .node
                .core_cpu_seconds
                .iter()
                .find(|(core, _)| usize::from(*core) == number);
            json!({
                "core": number,
                "up": true,
                "failure": shard.failure,
                "puts_refused": shard.space_low,
                "connections": shard.counters.connections.get(),
                "requests_total": shard.counters.requests_total.get(),
                "cpu_seconds": cpu.map(|(_, seconds)| seconds),
                "memtable_bytes": tree.memtable_bytes,
                "cache_bytes": tree.cache_bytes,
                "table_bytes": tree.table_bytes,
                "debt_bytes": tree.debt_bytes,
                "log_segments": shard.engine.log.segments,
            })
        })
        .collect()
}

/// Every replica of this node, by partition.
fn partitions(sample: &Sample) -> Vec<Value> {
    let mut all: Vec<_> = sample
        .seen()
        .flat_map(|core| {
            let replicas = core.shard.replicas.iter();
            replicas.map(|replica| (replica, core.shard.core))
        })
        .collect();
    all.sort_unstable_by_key(|(replica, _)| replica.partition);
    all.into_iter()
        .map(|(replica, core)| {
            let lag = replica.members.iter().map(|member| {
                let behind = replica.commit.saturating_sub(member.stored);
                json!({ "node": member.node(), "replica": member.replica, "votes": member.votes, "lag": behind, "alive": member.alive })
            });
            json!({
                "partition": replica.partition,
                "core": core,
                "leader": replica.leader,
                "term": replica.term,
                "commit": replica.commit,
                "applied": replica.applied,
                "members": lag.collect::<Vec<_>>(),
            })
        })
        .collect()
}
