//! Requests that need several cores: asked of each, gathered, answered once.
//!
//! The core that took the request up sends the very frame to the cores concerned (itself among
//! them) with [`Scope::Share`]; each answers for its own partitions. A task waits for all parts.

use std::rc::Rc;

use ringbolt_engine::env::Env;

use super::Inner;
use super::mail::{KeyspaceChange, Origin, Scope, SessionKey, Ticket};
use super::signal::Signal;

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
    /// Asks `cores` for their share of a request; the reply frames come in the same order.
    pub(super) async fn ask(
        self: &Rc<Self>,
        cores: &[u16],
        origin: &Origin,
        frame: &[u8],
    ) -> Vec<Vec<u8>> {
        self.ask_each(cores, origin, |this, core, origin| {
            if core == this.config.core {
                this.execute_frame(origin, Scope::Share, frame);
            } else {
                this.parcels.borrow_mut()[usize::from(core)].request(origin, Scope::Share, frame);
            }
        })
        .await
    }

    /// Tells every core of a change of the keyspaces, and waits until all have taken it.
    pub(super) async fn tell_all(self: &Rc<Self>, origin: &Origin, change: &KeyspaceChange) {
        let cores: Vec<u16> = (0..self.config.map.cores()).collect();
        self.ask_each(&cores, origin, |this, core, origin| {
            if core == this.config.core {
                this.keyspace_changed(origin, change.clone());
            } else {
                this.parcels.borrow_mut()[usize::from(core)].keyspace(origin, change.clone());
            }
        })
        .await;
    }

    async fn ask_each(
        self: &Rc<Self>,
        cores: &[u16],
        origin: &Origin,
        mut ask: impl FnMut(&Rc<Self>, u16, Origin),
    ) -> Vec<Vec<u8>> {
        let (key, done) = self.gathers.borrow_mut().begin(cores.len());
        for (part, &core) in cores.iter().enumerate() {
            let origin = Origin {
                core: self.config.core,
                ticket: Ticket::Gather {
                    key,
                    part: part as u16,
                },
                cost: 0,
                ..*origin
            };
            ask(self, core, origin);
        }
        done.wait().await
    }
}
