//! Nodes that lose their data, and how the cluster becomes whole again.
//!
//! One node at a time loses its data, and the next one not before the first has it all again: of two at
//! once, the cluster could only refuse. That is tried too, as the last thing that befalls a cluster.

use ringbolt::cluster::map::ClusterMap;

use super::super::clock::{MILLI, Nanos};
use super::super::faults::Kind;
use super::super::node::{Ending, HUNG_MAX, State};
use super::{Event, World};

/// How often a node's main thread looks around.
const WATCH_EVERY: Nanos = 50 * MILLI;

/// A node whose data was taken.
#[derive(Debug)]
pub(super) struct Loss {
    node: u16,
    /// The identity of the folder whose data it was.
    folder: String,
    kind: Kind,
}

impl World {
    /// A node's main thread looks around.
    ///
    /// # Errors
    /// A core leads although its log hangs, in a run in which others could.
    pub(super) fn watch(&mut self, node: u16, life: u64) -> Result<(), String> {
        let only_hang = self.faults.only_hang();
        let found = &mut self.nodes[usize::from(node)];
        if found.life != life || found.state != State::Up {
            return Ok(());
        }
        if only_hang && let Some(partition) = found.leads_hung() {
            let node = node + 1;
            return Err(format!(
                "node {node} leads partition {partition} though its log has hung for {HUNG_MAX:?}"
            ));
        }
        match found.watch(self.now) {
            Some(why) => self.give_up_data(node, &why),
            None => self.at(self.now + WATCH_EVERY, Event::Watch { node, life }),
        }
        Ok(())
    }

    /// A node must not use its data any more, and begins anew at once.
    fn give_up_data(&mut self, node: u16, why: &str) {
        self.say(|| format!("node {} begins anew: {why}", node + 1), 11);
        self.nodes[usize::from(node)].folder.lose(why);
        self.end_process(node, false);
    }

    /// A process has ended by itself.
    ///
    /// # Errors
    /// If it had no reason to.
    pub(super) fn ended_by_itself(&mut self, node: u16, ending: Ending) -> Result<(), String> {
        self.say(|| format!("node {} ends: {ending:?}", node + 1), 0);
        let is_hurt = self.loss.as_ref().is_some_and(|loss| loss.node == node);
        match ending {
            Ending::Damaged(why) if is_hurt => self.give_up_data(node, &why),
            Ending::Damaged(why) | Ending::Failed(why) => {
                if !self.nodes[usize::from(node)].has_reason_to_end() {
                    return Err(format!("node {} ended by itself: {why}", node + 1));
                }
                self.ended_by_disk += 1;
                self.end_process(node, false);
            }
        }
        Ok(())
    }

    /// The data of a node is taken, whose process has just died.
    pub(super) fn take_data(&mut self, node: u16, kind: Kind) {
        let found = &mut self.nodes[usize::from(node)];
        match kind {
            Kind::Wipe => found.wipe(),
            Kind::RollBack => found.roll_back(),
            _ if found.damage() => self.faults.count(kind),
            _ => return,
        }
        // What is wiped has a new folder, which the cluster must come to know.
        let folder = match kind {
            Kind::Wipe => String::new(),
            _ => found.folder.id.clone(),
        };
        self.loss = Some(Loss { node, folder, kind });
    }

    /// Two disks of three are lost.
    pub(super) fn take_majority(&mut self, spared: u16) {
        if self.nodes[usize::from(spared)].folder.belongs.is_none() {
            // It has not heard of the cluster: nobody is left who could know that there was one.
            return;
        }
        let version = self.newest_map().map_or(0, |map| map.version());
        for node in (0..self.nodes.len() as u16).filter(|node| *node != spared) {
            self.let_die(node, true);
            self.nodes[usize::from(node)].wipe();
            self.start_later(node, true);
        }
        self.majority_lost = Some((self.now, version));
    }

    fn newest_map(&self) -> Option<ClusterMap> {
        let kept = self.nodes.iter().filter_map(|node| {
            let kept = node.folder.belongs.as_ref().map(|(map, _)| map.clone());
            let known = node.cluster().and_then(|cluster| cluster.map());
            let known = known.map(|known| known.map.clone());
            kept.into_iter()
                .chain(known)
                .max_by_key(ClusterMap::version)
        });
        kept.max_by_key(ClusterMap::version)
    }

    /// Whether every node has the data that the cluster believes it has, and the leaders of all groups
    /// say that their members are as the newest map wants them.
    pub fn is_whole(&mut self) -> bool {
        if self.majority_lost.is_some() {
            return false;
        }
        let Some(map) = self.newest_map() else {
            return false;
        };
        let knows = |number: u16| {
            let node = map.node(u32::from(number) + 1);
            node.map(|node| &node.facts.folder) == Some(&self.nodes[usize::from(number)].folder.id)
        };
        if !(0..self.nodes.len() as u16).all(knows) {
            return false;
        }
        let mut settled = vec![false; usize::from(map.partitions())];
        for node in &self.nodes {
            let version = node.cluster().map(|cluster| cluster.map_version());
            for state in node.replicas() {
                settled[usize::from(state.partition)] |=
                    version == Some(map.version()) && state.leads && state.is_settled;
            }
        }
        if settled.contains(&false) {
            return false;
        }
        let Some(loss) = &self.loss else {
            return true;
        };
        let node = &self.nodes[usize::from(loss.node)];
        let is_new = node.folder.id != loss.folder;
        // What was damaged may have been written again, or mended.
        let is_mended = loss.kind == Kind::Damage
            && !node.is_damaged()
            && node.state == State::Up
            && node
                .cluster()
                .is_some_and(|cluster| cluster.damage().is_none());
        if is_new {
            self.rejoined += 1;
        }
        if is_new || is_mended {
            self.loss = None;
        }
        is_new || is_mended
    }
}
