//! The pulse: one sign of life from core to core for all groups between them that sleep.
//!
//! At each tick a core looks which of its replicas sleep, and whom they must tell of it: a leader each
//! follower, a follower its leader ([`crate::replica`], sleep). Each core of another node with any of
//! them gets one small item, a bit for each partition. Where nothing sleeps nothing is sent: groups that
//! are awake have their heartbeats.

use std::collections::BTreeMap;

use ringbolt_engine::entry::PartitionId;
use ringbolt_engine::env::Env;
use ringbolt_wire::peer::{PeerItem, Pulse, Sleep, SleepWord as Said};

use super::Inner;
use super::peers::PeerId;
use crate::cluster::NodeId;
use crate::replica::{Replica, SleepNote, SleepWord, node_of};

/// A set of partitions, to which they are added in ascending order.
struct Bits {
    first: PartitionId,
    bits: Vec<u8>,
}

impl Bits {
    fn from(first: PartitionId) -> Self {
        Self {
            first,
            bits: Vec::new(),
        }
    }

    fn add(&mut self, partition: PartitionId) {
        let at = usize::from(partition - self.first);
        if self.bits.len() <= at / 8 {
            self.bits.resize(at / 8 + 1, 0);
        }
        self.bits[at / 8] |= 1 << (at % 8);
    }
}

impl<E: Env> Inner<E> {
    /// Tells every core that has the other side of a sleeping group.
    pub(super) fn send_pulses(&self) {
        let mut asleep = 0;
        let mut sleeps = 0;
        let mut told: BTreeMap<PeerId, Bits> = BTreeMap::new();
        for (replica, partition) in self.replicas.borrow().iter().zip(0..) {
            let Some(replica) = replica else {
                continue;
            };
            sleeps += replica.sleeps();
            asleep += u64::from(replica.is_asleep());
            for node in replica.pulses_to().map(node_of) {
                // Whole bytes: a pulse names no partition past the last there can be.
                let first = partition & !7;
                if let Some(core) = self.core_on(node, partition) {
                    let bits = told.entry(PeerId { node, core });
                    bits.or_insert_with(|| Bits::from(first)).add(partition);
                }
            }
        }
        self.counters.replicas_asleep.set(asleep);
        self.counters.sleeps_total.set(sleeps);
        for (to, Bits { first, bits }) in told {
            let pulse = PeerItem::Pulse(Pulse { first, bits: &bits });
            // One that is lost is followed by another.
            let _sent = self.peer_send(to.node, to.core, &pulse);
        }
    }

    /// A core of another node is there, and these partitions sleep there.
    pub(super) fn pulse_received(&self, node: NodeId, pulse: &Pulse<'_>) {
        let mut replicas = self.replicas.borrow_mut();
        for partition in pulse.partitions() {
            if let Some(Some(replica)) = replicas.get_mut(usize::from(partition)) {
                replica.pulse_of(node);
            }
        }
    }

    /// Says what a replica has to say about sleep.
    pub(super) fn send_sleep_notes(&self, partition: PartitionId) {
        let notes = self.with_replica(partition, Replica::take_notes);
        for note in notes.unwrap_or_default() {
            let node = node_of(note.to);
            let Some(core) = self.core_on(node, partition) else {
                continue;
            };
            let item = PeerItem::Sleep(Sleep {
                partition,
                from: note.from,
                to: note.to,
                term: note.term,
                index: note.index,
                word: match note.word {
                    SleepWord::Ask => Said::Ask,
                    SleepWord::Agree => Said::Agree,
                    SleepWord::Wake => Said::Wake,
                },
            });
            // What is lost is said again, or the pulses tell.
            let _sent = self.peer_send(node, core, &item);
        }
    }

    /// Another replica of a group says something about sleep.
    pub(super) fn sleep_note_received(&self, said: &Sleep) {
        let note = SleepNote {
            from: said.from,
            to: said.to,
            term: said.term,
            index: said.index,
            word: match said.word {
                Said::Ask => SleepWord::Ask,
                Said::Agree => SleepWord::Agree,
                Said::Wake => SleepWord::Wake,
            },
        };
        let taken = self.with_replica(said.partition, |replica| replica.note_received(&note));
        if taken.is_some() {
            self.to_drive(said.partition);
        }
    }

    /// Has a sleeping group woken, because something here needs heartbeats.
    pub(super) fn rouse(&self, partition: PartitionId) {
        self.with_replica(partition, Replica::rouse);
        self.to_drive(partition);
    }
}
