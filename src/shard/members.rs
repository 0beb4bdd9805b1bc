//! Keeps the groups' members as the cluster map has them.
//!
//! The map is a row of the system keyspace in the home partition: replicated like any other, so it
//! outlives the node that leads there, and there is one history of it. Every node with a replica of the
//! home partition takes it as that applies it; the home leader tells the others from time to time.
//!
//! A node that comes without its data asks all its peers, and says which folder it has now
//! ([`crate::cluster::bootstrap`]). What follows is done by leaders, each from what is replicated, so
//! whoever leads after a crash goes on where the last one was:
//!
//! ```text
//!   the node:    none of its peers hears its earlier life, nor does that answer at its address
//!   home leader: nothing heard of the node's earlier life for a while
//!                map: the node's new folder, a new replica id in each of its partitions
//!   the node:    is told the map, finds its folder in it, starts with blank replicas
//!   each leader: add the new replica without a vote
//!                bring it a snapshot, then the log
//!                one joint change: the new one votes, the old one is no member any more
//! ```
//!
//! While less than a majority of a group is left nothing of this happens in it: its leader is gone,
//! and with it whoever could change its members. Where that is the home partition, no map is written.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::entry::Effect;
use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::log::Effects;
use ringbolt_engine::row::{ReadAt, RowKeyBuf};
use ringbolt_wire::message::{ErrorCode, KEYSPACE_SYSTEM, PartitionId, Response};
use ringbolt_wire::peer::PeerItem;

use super::Inner;
use super::keyspaces::HOME;
use super::mail::Origin;
use super::reply::Refusal;
use crate::cluster::map::{ClusterMap, MapError};
use crate::cluster::{KnownMap, NodeId};
use crate::replica::node_of;

/// The row of the cluster map.
const MAP_KEY: &[u8] = b"\0map";
/// How long nothing must have been heard of a node's earlier life before another one takes its place.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(3);
/// How lately a node must have been heard of to count as there.
const HEARD_WITHIN: Duration = Duration::from_millis(1500);
/// How long a claim lasts: a node that wants in asks several times a second.
const CLAIM_LASTS: Duration = Duration::from_secs(2);
/// How often the map is told to nodes that have no replica of the home partition.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// The pause before a change of the map is tried again that the log had no room for.
const RETRY: Duration = Duration::from_millis(50);

impl<E: Env> Inner<E> {
    /// Has a look at the members of every group that this core leads, and at the map if it leads there.
    pub(super) fn look_after_members(self: &Rc<Self>) {
        self.note_heard();
        self.tell_state();
        let Some(known) = self.config.cluster.map() else {
            return;
        };
        if self.with_replica(HOME, |home| home.serves()) == Some(true) {
            self.take_in_claims();
            self.tell_map(&known);
        }
        self.tell_clock();
        let cluster = &self.config.cluster;
        let newest = (known.map.version(), cluster.draining_changes());
        let is_new = self.map_taken.replace(newest) != newest;
        let wall_ms = self.clock.get().wall_ms;
        let mut changed = 0;
        let mut settled = self.could_go();
        for partition in self.config.map.owned_by(self.config.core) {
            let wanted = known.map.replicas(partition);
            let proposed = self.with_replica(partition, |replica| {
                settled &= replica.membership().is_settled_as(wanted);
                if is_new {
                    let first = wanted.first().copied().filter(|_| wanted.len() > 1);
                    replica.set_preferred(first.filter(|id| cluster.may_lead(node_of(*id))));
                }
                let change = replica.next_change(wanted)?;
                replica.propose_change(&change, wall_ms)
            });
            if let Some(Some(_)) = proposed {
                changed += 1;
                self.to_drive(partition);
            }
        }
        cluster.note_settled(self.config.core, settled);
        if changed > 0 {
            let core = self.config.core;
            tracing::info!(
                core,
                groups = changed,
                "members change, as the cluster map wants it"
            );
        }
    }

    /// Whether all other nodes were heard of just now, and none of a lower number wants to go.
    pub(super) fn could_go(&self) -> bool {
        let cluster = &self.config.cluster;
        let now = self.clock.get().now;
        let mut others = cluster.nodes().iter().map(|node| node.id);
        others.all(|node| {
            let is_there = || now.saturating_sub(cluster.heard(node)) < HEARD_WITHIN;
            let stays = node > cluster.here() || cluster.may_lead(node);
            node == cluster.here() || is_there() && stays
        })
    }

    /// Takes nodes in again that came without their data, one change of the map at a time.
    fn take_in_claims(self: &Rc<Self>) {
        let cluster = &self.config.cluster;
        let now = self.clock.get().now;
        if self.map_busy.get() || now.saturating_sub(self.began) < GONE_AFTER {
            return;
        }
        let is_gone = |name: &str| {
            let known = cluster.map()?;
            let heard = cluster.heard(known.map.node_named(name)?.id);
            Some(now.saturating_sub(heard) >= GONE_AFTER)
        };
        // What is not taken in now is claimed again.
        let claims = cluster.take_claims(now.saturating_sub(CLAIM_LASTS));
        let claims = claims.into_iter();
        let Some((name, folder)) = claims
            .into_iter()
            .find(|(name, _)| is_gone(name) == Some(true))
        else {
            return;
        };
        self.map_busy.set(true);
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let change = |map: &ClusterMap| map.rejoin(&name, &folder);
            match this.change_map(change).await {
                Ok(()) => tracing::warn!(
                    node = name,
                    "a node came without its data and is taken in under new replica ids"
                ),
                Err(refusal) => tracing::warn!(node = name, "not taken in: {}", refusal.message),
            }
            this.map_busy.set(false);
        });
    }

    /// Makes a node the preferred leader of a partition: on the core that leads the home partition.
    pub(super) fn prefer(self: &Rc<Self>, origin: Origin, partition: PartitionId, node: NodeId) {
        if self.map_busy.replace(true) {
            let message = "the cluster map is being changed: try again";
            return self.refuse(&origin, &Refusal::retry(ErrorCode::Overloaded, 50, message));
        }
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let answer = this.change_map(|map| map.prefer(partition, node)).await;
            this.map_busy.set(false);
            match answer {
                Ok(()) => this.answer(&origin, &Response::Done),
                Err(refusal) => this.refuse(&origin, &refusal),
            }
        });
    }

    /// Writes the map that a change makes of the newest one. One at a time (`map_busy`).
    async fn change_map(
        &self,
        change: impl Fn(&ClusterMap) -> Result<ClusterMap, MapError>,
    ) -> Result<(), Refusal> {
        let refused = |error: MapError| Refusal::new(ErrorCode::BadRequest, 0, error.to_string());
        loop {
            // A leader that serves has applied every map that was ever written; no other change is
            // under way, and the proposal follows at once.
            let Some(known) = self.config.cluster.map() else {
                let message = "this node has no cluster map";
                return Err(Refusal::new(ErrorCode::Unsupported, 0, message));
            };
            let next = change(&known.map).and_then(|map| map.encode());
            let encoded = next.map_err(refused)?;
            let put = Effect::Put {
                keyspace: KEYSPACE_SYSTEM,
                key: MAP_KEY,
                value: &encoded,
                expires_ms: 0,
                created_ms: 0,
            };
            match self.own_proposal(HOME, &[put]) {
                Ok(committed) => {
                    let done = committed.wait().await;
                    return done.map(|_| ()).ok_or_else(|| {
                        let message = "partition 0 changed its leader: try again";
                        Refusal::retry(ErrorCode::Unavailable, 50, message)
                    });
                }
                Err(refusal) if refusal.code == ErrorCode::Overloaded => {
                    self.env.sleep(RETRY).await;
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Tells the map to the nodes that have no replica of the home partition.
    fn tell_map(&self, known: &KnownMap) {
        let now = self.clock.get().now;
        if now < self.next_telling.get() {
            return;
        }
        self.next_telling.set(now + TELL_EVERY);
        let cluster = &self.config.cluster;
        let item = PeerItem::Map {
            version: known.map.version(),
            bytes: &known.encoded,
        };
        let holders = cluster.holders(HOME);
        for node in cluster
            .nodes()
            .iter()
            .filter(|node| !holders.contains(&node.id))
        {
            // One that is lost is told again.
            let _sent = self.peer_send(node.id, 0, &item);
        }
    }

    /// The home partition has applied an entry.
    pub(super) fn map_applied(&self, effects: Effects<'_>) {
        for effect in effects {
            if let Effect::Put {
                keyspace: KEYSPACE_SYSTEM,
                key: MAP_KEY,
                value,
                ..
            } = effect
            {
                self.map_told(value);
            }
        }
    }

    /// Takes the map over from the home partition's rows.
    pub(super) async fn load_map(&self) -> Result<(), Refusal> {
        let row_key = RowKeyBuf::of(HOME, KEYSPACE_SYSTEM, MAP_KEY);
        let row = self.engine.tree().get(&row_key, ReadAt::newest(0)).await?;
        if let Some(row) = row {
            self.map_told(&row.value);
        }
        Ok(())
    }

    /// Takes a map, if it is a newer one.
    pub(super) fn map_told(&self, encoded: &[u8]) {
        if let Err(error) = self.config.cluster.learn(encoded) {
            tracing::warn!(core = self.config.core, %error, "a cluster map is not taken");
        }
    }
}
