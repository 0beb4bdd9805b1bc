//! Faults as they strike, and as they end.

use std::collections::BTreeSet;

use super::super::clock::{MILLI, SECOND};
use super::super::faults::{Kind, Stroke, cut_between};
use super::super::net::{self, End, Place};
use super::super::node::{Node, State};
use super::{Event, World};

impl World {
    /// A machine loses power, and with it its data.
    fn lose(&mut self, node: u16, kind: Kind) {
        self.let_die(node, true);
        self.take_data(node, kind);
        self.start_later(node, true);
    }

    /// A fault strikes.
    ///
    /// # Errors
    /// What was expected by now has not come.
    pub(super) fn strike(&mut self, stroke: Stroke) -> Result<(), String> {
        self.say(|| format!("{stroke:?}"), 7);
        match stroke {
            Stroke::Kill { node } => self.end_process(node, false),
            Stroke::PowerCut { node } => self.end_process(node, true),
            Stroke::Stop { node } => self.nodes[usize::from(node)].stop(),
            Stroke::Pause { node, core, until } => {
                for core in self.nodes[usize::from(node)].pause(core, until) {
                    self.wake_core(node, core);
                }
            }
            Stroke::Jump { node, by_ms } => {
                self.nodes[usize::from(node)].jump_clock(self.now, by_ms);
            }
            Stroke::Cut {
                ref directions,
                until,
            } => {
                for &(from, to) in directions {
                    self.net.set_cut(from, to, true);
                }
                self.at(until, Event::Relief(stroke));
            }
            Stroke::Slow {
                ref directions,
                until,
            } => {
                for &(from, to) in directions {
                    self.net.set_slow(from, to, true);
                }
                self.at(until, Event::Relief(stroke));
            }
            Stroke::Break { node } => {
                let ends = self.ends_of(node);
                if !ends.is_empty() {
                    let end = ends[self.rng.index(ends.len())];
                    self.break_connection(end);
                }
            }
            Stroke::Wipe { node } => self.lose(node, Kind::Wipe),
            Stroke::RollBack { node } => self.lose(node, Kind::RollBack),
            Stroke::Damage { node } => self.lose(node, Kind::Damage),
            Stroke::WipeMajority { spared } => self.take_majority(spared),
            Stroke::KillFor { node, power, time } => {
                if self.nodes[usize::from(node)].state != State::Down {
                    self.let_die(node, power);
                    let life = self.nodes[usize::from(node)].life;
                    self.at(self.now + time, Event::Start { node, life });
                }
            }
            Stroke::CutOnceElected { node, by, time } => {
                self.cut_once_elected = Some((node, by, time));
            }
            Stroke::Expect { without } => return self.all_led_without(without),
            Stroke::Hush { until } => {
                for client in &mut self.clients {
                    client.hush(until);
                }
            }
            Stroke::Stall { node, until } => self.nodes[usize::from(node)].stall(until),
            Stroke::Split {
                node,
                partition,
                until,
            } => {
                for client in &mut self.clients {
                    client.split(node, partition, until);
                }
            }
            Stroke::Hang { node, until } => {
                self.nodes[usize::from(node)].hang_log();
                self.hangs.push((self.now, until));
                self.at(until, Event::Relief(stroke));
            }
            Stroke::Disk { node, rule, until } => {
                self.nodes[usize::from(node)].break_disk(rule);
                self.at(until, Event::Relief(stroke));
            }
        }
        Ok(())
    }

    /// A node was elected: it may have been waited for.
    pub(super) fn elected(&mut self, elected: u16) -> Result<(), String> {
        let Some((node, by, time)) = self.cut_once_elected else {
            return Ok(());
        };
        if node != elected {
            return Ok(());
        }
        self.cut_once_elected = None;
        if self.now > by {
            return Ok(());
        }
        let others = (0..self.nodes.len() as u16).filter(|&other| other != node);
        for other in others {
            self.strike(cut_between(node, other, self.now + time))?;
        }
        Ok(())
    }

    /// Every partition has a leader on another node than this one.
    fn all_led_without(&self, without: u16) -> Result<(), String> {
        let others = self.nodes.iter().filter(|node| node.number != without);
        let states = others.flat_map(Node::replicas);
        let led: BTreeSet<u16> = states
            .filter(|state| state.leads)
            .map(|state| state.partition)
            .collect();
        let all = 0..self.partitions;
        match all.into_iter().find(|partition| !led.contains(partition)) {
            Some(partition) => {
                let states = self.nodes.iter().flat_map(Node::replicas);
                let states: Vec<_> = states
                    .filter(|state| state.partition == partition)
                    .collect();
                Err(format!(
                    "nobody leads partition {partition}, long after node {} died: {states:?}",
                    without + 1
                ))
            }
            None => Ok(()),
        }
    }

    pub(super) fn relieve(&mut self, stroke: Stroke) {
        self.say(|| format!("over: {stroke:?}"), 8);
        match stroke {
            Stroke::Cut { directions, .. } => {
                for (from, to) in directions {
                    self.net.set_cut(from, to, false);
                }
                self.look_everywhere();
            }
            Stroke::Slow { directions, .. } => {
                for (from, to) in directions {
                    self.net.set_slow(from, to, false);
                }
            }
            Stroke::Disk { node, .. } => self.nodes[usize::from(node)].mend_disk(),
            Stroke::Hang { node, .. } => self.end_hang(node),
            _ => {}
        }
    }

    /// Whoever watches a node finds that its log hangs, and starts it anew.
    fn end_hang(&mut self, node: u16) {
        if self.nodes[usize::from(node)].unhang_log() {
            self.end_process(node, false);
        }
    }

    /// Ends all faults for good.
    pub fn heal(&mut self) {
        self.say(|| "all faults end".to_owned(), 9);
        self.faults.end();
        self.net.mend();
        self.look_everywhere();
        for node in 0..self.nodes.len() as u16 {
            self.end_hang(node);
        }
        for node in &mut self.nodes {
            node.mend_disk_for_good();
            node.set_clock(self.now);
        }
    }

    /// From now on no message is late and no process stands still.
    pub fn calm(&mut self) {
        self.say(|| "nothing is late any more".to_owned(), 11);
        self.net.calm();
        for node in &mut self.nodes {
            node.calm = true;
        }
    }

    /// A process ends, and starts again later. What its disk holds then may come back one day.
    pub(super) fn end_process(&mut self, node: u16, power: bool) {
        self.let_die(node, power);
        if self.faults.roll_back() && self.rng.one_in(2) {
            self.nodes[usize::from(node)].keep_image();
        }
        self.start_later(node, power);
    }

    pub(super) fn let_die(&mut self, node: u16, power: bool) {
        self.nodes[usize::from(node)].die(self.now, power);
        self.cut_off(node, power);
        self.faults.set_dark(node, power);
    }

    pub(super) fn start_later(&mut self, node: u16, power: bool) {
        let wait = match power {
            true => self.rng.between(500 * MILLI, 8 * SECOND),
            false => self.rng.between(10 * MILLI, 3 * SECOND),
        };
        let life = self.nodes[usize::from(node)].life;
        self.at(self.now + wait, Event::Start { node, life });
    }

    /// All connections of a node end. After a power cut the other sides are not told at once.
    pub(super) fn cut_off(&mut self, node: u16, power: bool) {
        let delay = match power {
            true => self.rng.between(SECOND, 10 * SECOND),
            false => 0,
        };
        for end in self.ends_of(node) {
            let lost = power || self.rng.one_in(2);
            let due = self.net.reset(end, self.now + delay, lost);
            self.net.finish(end, self.now);
            if let Some(due) = due {
                self.at(due, Event::Look(net::other(end)));
            }
        }
    }

    pub(super) fn ends_of(&self, node: u16) -> Vec<End> {
        let place = Place::Node(node);
        self.net.ends(|owner| owner.place() == place)
    }

    /// Both sides of a connection find it broken; what was under way is lost or comes late.
    pub(super) fn break_connection(&mut self, end: End) {
        for end in [end, net::other(end)] {
            let lost = self.rng.one_in(2);
            let late = self.rng.below(300 * MILLI);
            if let Some(due) = self.net.reset(end, self.now + late, lost) {
                self.at(due, Event::Look(net::other(end)));
            }
        }
    }
}
