//! Giving leaderships away: before a node stops, when it is asked to, and while its disk is slow.
//!
//! A node that is to lead nothing says so to the others, so that none hands it leadership, and hands
//! over what it leads to followers that have nearly everything: such a change of leaders costs a few
//! messages, where a node that just goes costs an election timeout. What cannot be given away (nobody
//! else is there) is kept and tried again at each tick.
//!
//! A core whose oldest log write takes too long does the same by itself: its followers' disks may be
//! well. Whoever waits for its log is sent to the new leader (found by freezing a real file system: a write
//! that was under way had waited for its own deadline). If the write does not end, the shard stops: what
//! waits for it would wait for ever.

use std::time::Duration;

use ringbolt_engine::env::Env;
use ringbolt_wire::message::{ErrorCode, NodeId, Response};
use ringbolt_wire::peer::{NodeState, PeerItem};

use super::Inner;
use super::counters::add;
use super::mail::Origin;
use super::reply::Refusal;

/// How long a log write may be under way before the core gives away what it leads.
const SLOW_WRITE: Duration = Duration::from_secs(1);
/// How long before the shard stops, and how many ticks that must have taken: a process that was paused
/// has not waited.
const STUCK_WRITE: Duration = Duration::from_secs(30);
const STUCK_TICKS: u32 = 500;
/// How often the others are told once a node may lead again.
const TELLS: u32 = 10;

impl<E: Env> Inner<E> {
    /// Once a tick: looks whether this core is to lead nothing, and gives away what it leads.
    pub(super) fn tick_drain(&self) {
        let cluster = &self.config.cluster;
        if self.node_state() != self.told_state.get() {
            self.tells_left.set(TELLS);
            self.tell_state();
        }
        let is_slow = self.log_is_slow();
        if !is_slow && !cluster.drains() {
            return;
        }
        for partition in self.config.map.owned_by(self.config.core) {
            let given = self.with_replica(partition, |replica| {
                replica.give_away(|node| cluster.may_lead(node))
            });
            if given == Some(true) {
                add(&self.counters.leaderships_given_total, 1);
                self.to_drive(partition);
            }
            if is_slow && self.with_replica(partition, |replica| replica.leads()) == Some(false) {
                self.let_go(partition);
            }
        }
    }

    /// Whether the log is so slow that others had better lead. Stops the shard if it is stuck.
    fn log_is_slow(&self) -> bool {
        let oldest = self.engine.log().oldest_in_flight();
        if oldest <= SLOW_WRITE {
            self.slow_ticks.set(0);
            return false;
        }
        let ticks = self.slow_ticks.get().saturating_add(1);
        self.slow_ticks.set(ticks);
        if ticks == 1 {
            tracing::warn!(
                core = self.config.core,
                "a log write has been under way for {oldest:?}: this core gives away what it leads"
            );
        }
        if oldest > STUCK_WRITE && ticks > STUCK_TICKS {
            self.stop(&format!("a log write has been under way for {oldest:?}"));
        }
        true
    }

    /// How this node is.
    fn node_state(&self) -> NodeState {
        let cluster = &self.config.cluster;
        NodeState {
            drains: cluster.drains(),
            is_full: self.space_low.get(),
        }
    }

    /// Tells every other node whether this one is to lead nothing and whether its disk is nearly full, if they
    /// might not know, or one of them may wait to hear that this one is there before it goes. One core
    /// does it for all.
    pub(super) fn tell_state(&self) {
        let cluster = &self.config.cluster;
        let state = self.node_state();
        self.told_state.set(state);
        let left = self.tells_left.get();
        let mut others = cluster.nodes().iter().map(|node| node.id);
        let is_waited_for = others.any(|node| node != cluster.here() && !cluster.may_lead(node));
        let is_usual = state == NodeState::default();
        if self.config.core != 0 || left == 0 && is_usual && !is_waited_for {
            return;
        }
        self.tells_left.set(left.saturating_sub(1));
        let state = PeerItem::NodeState(state);
        for node in cluster
            .nodes()
            .iter()
            .filter(|node| node.id != cluster.here())
        {
            // One that is lost is told again; a node that starts anew may lead.
            let _sent = self.peer_send(node.id, 0, &state);
        }
    }

    /// This node is asked to lead nothing, or to lead again.
    pub(super) fn drain_asked(&self, origin: &Origin, node: NodeId, undo: bool) {
        let cluster = &self.config.cluster;
        if node != cluster.here() {
            let message = format!("this is node {}, not {node}: ask that one", cluster.here());
            return self.refuse(origin, &Refusal::new(ErrorCode::BadRequest, 0, message));
        }
        cluster.drain(!undo);
        tracing::info!(undo, "asked to give away what this node leads");
        self.answer(origin, &Response::Done);
    }
}
