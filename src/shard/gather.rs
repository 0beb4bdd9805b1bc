//! Requests that need several cores, of this node or others: asked of each, gathered, answered once.
//!
//! The core that took the request up sends each core concerned (itself among them) a frame: the
//! very one with [`Scope::Share`], to be answered for the partitions that core serves, or one of its
//! own with [`Scope::Whole`]. A task waits for all parts.

use std::rc::Rc;

use ringbolt_engine::entry::PartitionId;
use ringbolt_engine::env::Env;

use super::Inner;
use super::mail::{KeyspaceChange, Origin, Scope, SessionKey, Ticket};
use super::signal::Signal;
use crate::cluster::NodeId;

/// A core of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) node: NodeId,
    pub(super) core: u16,
}

struct Gather {
    generation: u32,
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
    done: Signal<Vec<Vec<u8>>>,
}

/// The gathers of one core. Bounded by the requests in flight.
#[derive(Default)]
pub(super) struct Gathers {
    slab: slab::Slab<Gather>,
    generation: u32,
}

impl Gathers {
    fn begin(&mut self, parts: usize) -> (SessionKey, Signal<Vec<Vec<u8>>>) {
        self.generation = self.generation.wrapping_add(1);
        let done = Signal::new();
        let slot = self.slab.insert(Gather {
            generation: self.generation,
            parts: vec![None; parts],
            missing: parts,
            done: done.clone(),
        });
        let key = SessionKey {
            slot: slot as u32,
            generation: self.generation,
        };
        (key, done)
    }

    /// One part has come; the last one wakes the task that waits.
    pub(super) fn part(&mut self, key: SessionKey, part: u16, bytes: Vec<u8>) {
        let slot = key.slot as usize;
        let Some(gather) = self
            .slab
            .get_mut(slot)
            .filter(|gather| gather.generation == key.generation)
        else {
            return;
        };
        let Some(place @ None) = gather.parts.get_mut(usize::from(part)) else {
            return;
        };
        *place = Some(bytes);
        gather.missing -= 1;
        if gather.missing == 0 {
            let gather = self.slab.remove(slot);
            gather
                .done
                .set(gather.parts.into_iter().flatten().collect());
        }
    }
}

impl<E: Env> Inner<E> {
    /// Where a partition is to be read: at its leader, or wherever it is held.
    pub(super) fn target_of(&self, partition: PartitionId, by_leader: bool) -> Target {
        let cluster = &self.config.cluster;
        let here = cluster.here();
        let node = if by_leader || !cluster.holders(partition).contains(&here) {
            cluster.leader(partition)
        } else {
            here
        };
        let core = self.core_on(node, partition).unwrap_or_default();
        Target { node, core }
    }

    /// Asks each core for its answer to a frame; the reply frames come in the same order.
    pub(super) async fn ask(
        self: &Rc<Self>,
        asked: &[(Target, &[u8])],
        scope: Scope,
        origin: &Origin,
    ) -> Vec<Vec<u8>> {
        self.ask_each(asked, origin, |this, (target, frame), origin| {
            if target.node != this.config.cluster.here() {
                this.forward(target.node, target.core, origin, scope, frame);
            } else if target.core == this.config.core {
                this.execute_frame(origin, scope, frame);
            } else {
                let mut parcels = this.parcels.borrow_mut();
                parcels[usize::from(target.core)].request(origin, scope, frame);
            }
        })
        .await
    }

    /// Has a request executed by whoever must, and waits for the answer: one frame.
    pub(super) async fn request(
        self: &Rc<Self>,
        frame: &[u8],
        scope: Scope,
        origin: &Origin,
    ) -> Vec<u8> {
        let mut replies = self
            .ask_each(&[frame], origin, |this, frame, origin| {
                this.execute_frame(origin, scope, frame);
            })
            .await;
        replies.pop().unwrap_or_default()
    }

    /// This core.
    pub(super) fn target_here(&self) -> Target {
        Target {
            node: self.config.cluster.here(),
            core: self.config.core,
        }
    }

    /// The cores of this node.
    pub(super) fn cores_here(&self) -> Vec<Target> {
        let node = self.config.cluster.here();
        (0..self.config.map.cores())
            .map(|core| Target { node, core })
            .collect()
    }

    /// Tells every core of a change of the keyspaces, and waits until all have taken it.
    pub(super) async fn tell_all(self: &Rc<Self>, origin: &Origin, change: &KeyspaceChange) {
        let cores: Vec<u16> = (0..self.config.map.cores()).collect();
        self.ask_each(&cores, origin, |this, &core, origin| {
            if core == this.config.core {
                this.keyspace_changed(origin, change.clone());
            } else {
                this.parcels.borrow_mut()[usize::from(core)].keyspace(origin, change.clone());
            }
        })
        .await;
    }

    /// Asks every core of this node who is connected to it; the texts come in the order of the cores.
    pub(super) async fn ask_clients(self: &Rc<Self>, origin: &Origin) -> Vec<Vec<u8>> {
        let cores: Vec<u16> = (0..self.config.map.cores()).collect();
        self.ask_each(&cores, origin, |this, &core, origin| {
            if core == this.config.core {
                this.tell_clients(origin);
            } else {
                this.parcels.borrow_mut()[usize::from(core)].clients(origin);
            }
        })
        .await
    }

    /// Asks in turn by `ask`, and waits for all answers.
    pub(super) async fn ask_each<T>(
        self: &Rc<Self>,
        asked: &[T],
        origin: &Origin,
        mut ask: impl FnMut(&Rc<Self>, &T, Origin),
    ) -> Vec<Vec<u8>> {
        if asked.is_empty() {
            // Nobody's answer would be the last.
            return Vec::new();
        }
        let (key, done) = self.gathers.borrow_mut().begin(asked.len());
        for (part, one) in asked.iter().enumerate() {
            let origin = Origin {
                core: self.config.core,
                ticket: Ticket::Gather {
                    key,
                    part: part as u16,
                },
                cost: 0,
                ..*origin
            };
            ask(self, one, origin);
        }
        done.wait().await
    }
}
