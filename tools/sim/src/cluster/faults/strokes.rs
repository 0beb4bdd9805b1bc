//! What a fault of each kind does, drawn from the seed.

use ringbolt_engine::env::FileClass;
use ringbolt_engine::env::sim::{Fault, FaultRule};

use super::super::clock::{MILLI, Nanos, SECOND};
use super::super::net::Place;
use super::super::node::{Node, State};
use super::{Faults, Kind, Stroke};

/// How soon a group has another leader, though it slept when its own died: four ticks without a
/// pulse, then an election, and some more if two stand at once.
const ORPHANED_MAX: Nanos = 2_500 * MILLI;

impl Faults {
    /// One fault of a kind, if it can strike now.
    pub(super) fn stroke(
        &mut self,
        now: Nanos,
        kind: Kind,
        node: u16,
        nodes: &[Node],
    ) -> Option<Stroke> {
        let up = nodes[usize::from(node)].state != State::Down;
        let long = [100, 500, 2_000, 10_000][self.rng.index(4)] * MILLI;
        let until = now + self.rng.between(long / 2, long);
        let here = Place::Node(node);
        let others: Vec<Place> = (0..self.nodes)
            .filter(|&other| other != node)
            .map(Place::Node)
            .collect();
        let cut = |directions| Some(Stroke::Cut { directions, until });
        match kind {
            Kind::Kill => up.then_some(Stroke::Kill { node }),
            Kind::PowerCut => up.then_some(Stroke::PowerCut { node }),
            Kind::Stop => {
                (nodes[usize::from(node)].state == State::Up).then_some(Stroke::Stop { node })
            }
            Kind::NodePause => up.then_some(Stroke::Pause {
                node,
                core: None,
                until: now + self.rng.below(5 * SECOND),
            }),
            Kind::CorePause => up.then(|| Stroke::Pause {
                node,
                core: Some(self.rng.below(u64::from(nodes[usize::from(node)].cores())) as u16),
                until: now + self.rng.below(3 * SECOND),
            }),
            Kind::JumpForward | Kind::JumpBack => {
                let far = [20, 1_000, 30_000][self.rng.index(3)];
                let by_ms = self.rng.between(1, far) as i64;
                let by_ms = if kind == Kind::JumpBack {
                    -by_ms
                } else {
                    by_ms
                };
                Some(Stroke::Jump { node, by_ms })
            }
            Kind::OneWay => {
                let other = others[self.rng.index(others.len())];
                cut(vec![(here, other)])
            }
            Kind::Partial => {
                let other = others[self.rng.index(others.len())];
                cut(vec![(here, other), (other, here)])
            }
            Kind::Isolated => cut(others
                .iter()
                .flat_map(|&other| [(here, other), (other, here)])
                .collect()),
            Kind::HalfIsolated => {
                let deaf = self.rng.one_in(2);
                let direction = |&other: &Place| match deaf {
                    true => (other, here),
                    false => (here, other),
                };
                cut(others.iter().map(direction).collect())
            }
            Kind::ClientCut => {
                let client = Place::Client(self.rng.below(u64::from(self.clients)) as u16);
                let both = [(here, client), (client, here)];
                match self.rng.below(3) {
                    0 => cut(both.to_vec()),
                    way => cut(vec![both[way as usize - 1]]),
                }
            }
            Kind::Slow => {
                let other = match others.is_empty() || self.rng.one_in(3) {
                    true => Place::Client(self.rng.below(u64::from(self.clients)) as u16),
                    false => others[self.rng.index(others.len())],
                };
                Some(Stroke::Slow {
                    directions: vec![(here, other), (other, here)],
                    until,
                })
            }
            Kind::Break => up.then_some(Stroke::Break { node }),
            Kind::Wipe => Some(Stroke::Wipe { node }),
            Kind::RollBack => {
                let mut able = nodes.iter().filter(|node| node.can_roll_back(nodes));
                able.next()
                    .map(|node| Stroke::RollBack { node: node.number })
            }
            Kind::Damage => Some(Stroke::Damage { node }),
            Kind::Hang => {
                let is_well = |node: &Node| node.state == State::Up && !node.log_hangs();
                nodes.iter().all(is_well).then(|| Stroke::Hang {
                    node,
                    until: now + self.rng.between(3 * SECOND, 9 * SECOND),
                })
            }
            // Several strokes: see there.
            Kind::Usurp | Kind::Depose | Kind::Orphan | Kind::Fleeting => None,
            Kind::WipeMajority => {
                self.kinds.retain(|kind| *kind != Kind::WipeMajority);
                Some(Stroke::WipeMajority { spared: node })
            }
            Kind::Disk => Some(Stroke::Disk {
                node,
                rule: self.disk_rule(),
                until,
            }),
        }
    }

    /// A leader is cut off from one of its followers, which soon stands for election, while the other one hears
    /// of both: if it forgot what it has promised, there would be another leader, and clients write there,
    /// while the first one has its lease.
    pub(super) fn usurp(&mut self, now: Nanos, nodes: &[Node]) -> Vec<(Nanos, Stroke)> {
        let Some((leader, partition)) = self.any_leader(nodes) else {
            return Vec::new();
        };
        let holders = leader
            .cluster()
            .map_or(&[][..], |known| known.holders(partition));
        let numbers = holders.iter().map(|id| *id as u16 - 1);
        let mut others: Vec<u16> = numbers.filter(|number| *number != leader.number).collect();
        if others.len() < 2 {
            return Vec::new();
        }
        let rival = others.swap_remove(self.rng.index(others.len()));
        let voter = others[self.rng.index(others.len())];
        match self.rng.one_in(2) {
            true => self.usurp_asleep(now, leader.number, partition, (rival, voter)),
            false => self.usurp_restarted(now, leader.number, rival, voter),
        }
    }

    /// All were asleep before. The leader misses the rival and is awake; the voter sleeps on and answers its
    /// heartbeats, which renew the lease, until clients wake it, who read at the leader and write at the
    /// others. From then on it hears of the leader no more.
    fn usurp_asleep(
        &mut self,
        now: Nanos,
        leader: u16,
        partition: u16,
        (rival, voter): (u16, u16),
    ) -> Vec<(Nanos, Stroke)> {
        let cut = self.rng.between(500, 1_000) * MILLI;
        let at = cut + self.rng.between(300, 900) * MILLI;
        let until = now + at + 400 * MILLI;
        let split = Stroke::Split {
            node: leader,
            partition,
            until,
        };
        vec![
            (0, Stroke::Hush { until: now + at }),
            (cut, cut_between(leader, rival, until)),
            (at, cut_between(leader, voter, now + at + 200 * MILLI)),
            (at, split),
        ]
    }

    /// The rival lacks nothing, since no client does anything meanwhile. The voter is killed and back at once,
    /// and hears of nobody but of the one that asks for its vote.
    fn usurp_restarted(
        &mut self,
        now: Nanos,
        leader: u16,
        rival: u16,
        voter: u16,
    ) -> Vec<(Nanos, Stroke)> {
        let at = self.rng.between(250, 600) * MILLI;
        let hush = Stroke::Hush {
            until: now + at + 50 * MILLI,
        };
        vec![
            (0, cut_between(leader, rival, now + at + 400 * MILLI)),
            (0, hush),
            (
                at,
                Stroke::KillFor {
                    node: voter,
                    power: false,
                    time: self.rng.between(MILLI, 10 * MILLI),
                },
            ),
            (at, cut_between(leader, voter, now + at + 200 * MILLI)),
        ]
    }

    /// A leader stands still in the midst of a turn, or is cut off from all other nodes but not from clients, or
    /// both, for longer than it takes to elect another one. Some clients write there, others go on asking
    /// the first: what they asked waits for it when it goes on, before anything else does. Where nobody
    /// asked for anything before, the group sleeps when it begins.
    pub(super) fn depose(&mut self, now: Nanos, nodes: &[Node]) -> Vec<(Nanos, Stroke)> {
        let Some((leader, partition)) = self.any_leader(nodes) else {
            return Vec::new();
        };
        let node = leader.number;
        let quiet = match self.rng.one_in(2) {
            true => self.rng.between(500, 1_000) * MILLI,
            false => 0,
        };
        let until = now + quiet + self.rng.between(450, 900) * MILLI;
        // Which of both: 0 only stands still, 1 is only cut off.
        let how = self.rng.below(4);
        let mut strokes = vec![
            (0, Stroke::Hush { until: now + quiet }),
            (
                quiet,
                Stroke::Split {
                    node,
                    partition,
                    until: until + 100 * MILLI,
                },
            ),
        ];
        if how != 0 {
            let others = (0..self.nodes).filter(|&other| other != node);
            let until = until + 50 * MILLI;
            strokes.extend(others.map(|other| (quiet, cut_between(node, other, until))));
        }
        if how != 1 {
            strokes.push((quiet, Stroke::Stall { node, until }));
        }
        strokes
    }

    /// A leader dies while its groups sleep, if all nodes are well. Nobody asks for anything that could wake
    /// them until others must have missed it.
    pub(super) fn orphan(&mut self, now: Nanos, nodes: &[Node]) -> Vec<(Nanos, Stroke)> {
        if nodes.iter().any(|node| node.state != State::Up) {
            return Vec::new();
        }
        let Some((leader, _)) = self.any_leader(nodes) else {
            return Vec::new();
        };
        let node = leader.number;
        let at = self.rng.between(500, 1_000) * MILLI;
        let missed = at + ORPHANED_MAX;
        let kill = Stroke::KillFor {
            node,
            power: self.rng.one_in(2),
            time: ORPHANED_MAX + 50 * MILLI,
        };
        vec![
            (
                0,
                Stroke::Hush {
                    until: now + missed,
                },
            ),
            (at, kill),
            (missed, Stroke::Expect { without: node }),
        ]
    }

    /// A leader is cut off from all other nodes but not from clients, so that it has writes that nobody else
    /// has. It dies and is back before anybody else stands for election; and once it is elected again it is
    /// cut off before anybody hears of it.
    pub(super) fn fleeting(&mut self, now: Nanos, nodes: &[Node]) -> Vec<(Nanos, Stroke)> {
        let Some((leader, _)) = self.any_leader(nodes) else {
            return Vec::new();
        };
        let node = leader.number;
        let dies = self.rng.between(5, 60) * MILLI;
        let time = self.rng.between(MILLI, 10 * MILLI);
        let others = (0..self.nodes).filter(|&other| other != node);
        let mut strokes: Vec<(Nanos, Stroke)> = others
            .map(|other| (0, cut_between(node, other, now + dies)))
            .collect();
        let kill = Stroke::KillFor {
            node,
            power: false,
            time,
        };
        let cut = Stroke::CutOnceElected {
            node,
            by: now + dies + SECOND,
            time: self.rng.between(600, 1_000) * MILLI,
        };
        strokes.extend([(dies, kill), (dies, cut)]);
        strokes
    }

    /// A leader and what it leads.
    fn any_leader<'n>(&mut self, nodes: &'n [Node]) -> Option<(&'n Node, u16)> {
        let up = nodes.iter().filter(|node| node.state == State::Up);
        let led = up.flat_map(|node| {
            let states = node.replicas().into_iter();
            states
                .filter(|state| state.leads)
                .map(move |state| (node, state.partition))
        });
        let led: Vec<(&Node, u16)> = led.collect();
        (!led.is_empty()).then(|| led[self.rng.index(led.len())])
    }

    /// One kind of failing operation. Each is told to the process; what a disk destroys without a
    /// word is the engine's simulation.
    fn disk_rule(&mut self) -> FaultRule {
        let fault = [
            Fault::ReadError,
            Fault::ReadErrorSticky,
            Fault::WriteError,
            Fault::WriteErrorSticky,
            Fault::SyncError,
            Fault::NameError,
            Fault::NoSpace,
        ][self.rng.index(7)];
        let often = [1, 10, 100][self.rng.index(3)];
        let times = self.rng.between(1, 20);
        let rule = FaultRule::new(fault, often).at_most(times);
        match self.rng.below(4) {
            0 => rule.only(FileClass::Log),
            1 => rule.only(FileClass::Table),
            2 => rule.only(FileClass::Manifest),
            _ => rule,
        }
    }
}

/// Nothing goes between two nodes.
pub fn cut_between(one: u16, other: u16, until: Nanos) -> Stroke {
    let (one, other) = (Place::Node(one), Place::Node(other));
    Stroke::Cut {
        directions: vec![(one, other), (other, one)],
        until,
    }
}
