//! Clients that disagree about who leads a partition: every other one reads it at one node and asks nobody
//! else, the rest write it and ask anybody else. A leader that does not know of its successor is found out
//! by nothing less.

use ringbolt_wire::message::PartitionId;

use super::super::clock::Nanos;
use super::super::history::{Change, Guard, KeyId};
use super::super::workload::{self, Keys, Plan, Use};
use super::Client;

/// A version that nothing ever has.
const NO_VERSION: u64 = u64::MAX;

/// What is read at one node and written at the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    node: u16,
    partition: PartitionId,
    pub(super) until: Nanos,
}

impl Split {
    /// The node to ask, for a client that would ask `node`.
    pub(super) fn node_for(self, clings: bool, node: u16, nodes: u16) -> u16 {
        match clings {
            true => self.node,
            false if node == self.node => (node + 1) % nodes,
            false => node,
        }
    }
}

impl Client {
    /// Until a time: reads a partition, and asks nobody but this node; every other client writes it, and
    /// asks any node but this one.
    pub fn split(&mut self, node: u16, partition: PartitionId, until: Nanos) {
        self.split = Some(Split {
            node,
            partition,
            until,
        });
    }

    /// Whether it is one of those that read.
    pub(super) fn clings(&self) -> bool {
        self.number.is_multiple_of(2)
    }

    /// What it is to read or write while clients are split.
    pub(super) fn split_plan(&mut self, keys: &Keys, fresh: i64) -> Option<Plan> {
        let of = self.split?.partition;
        let here: Vec<KeyId> = (0..keys.len() as KeyId)
            .filter(|&key| self.partitions[usize::from(key)] == of)
            .collect();
        if here.is_empty() {
            return None;
        }
        let key = here[self.rng.index(here.len())];
        let is_register = keys.use_of(key) == Use::Register;
        Some(match self.clings() {
            // A condition that does not hold is a read, too: its answer tells the version.
            true if is_register && self.rng.one_in(2) => {
                let guard = Guard::Is {
                    value: fresh,
                    version: NO_VERSION,
                };
                Plan::Write(vec![(key, guard, Change::Put(fresh))])
            }
            true => Plan::Get(vec![key]),
            false if is_register && self.rng.one_in(3) => {
                Plan::Write(vec![(key, Guard::None, Change::Delete)])
            }
            false => workload::write_of(&mut self.rng, keys, key, fresh),
        })
    }
}
