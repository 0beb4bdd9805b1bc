//! What befalls a cluster, drawn from the seed: each run has its own kinds of faults and its own
//! haste.

use std::collections::{BTreeMap, BTreeSet};

use ringbolt_engine::env::FileClass;
use ringbolt_engine::env::sim::{Fault, FaultRule, Rng};

use super::clock::{MILLI, Nanos, SECOND};
use super::net::Place;
use super::node::{Node, State};

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stroke {
    /// A process is killed.
    Kill {
        /// Whose.
        node: u16,
    },
    /// A machine loses power.
    PowerCut {
        /// Which.
        node: u16,
    },
    /// A process is told to stop in good order.
    Stop {
        /// Whose.
        node: u16,
    },
    /// A process, or one core of it, stands still.
    Pause {
        /// Whose.
        node: u16,
        /// Which core; `None` for all.
        core: Option<u16>,
        /// Until when.
        until: Nanos,
    },
    /// A wall clock jumps.
    Jump {
        /// Whose.
        node: u16,
        /// How far, in milliseconds.
        by_ms: i64,
    },
    /// Directions carry nothing.
    Cut {
        /// Which, from where to where.
        directions: Vec<(Place, Place)>,
        /// Until when.
        until: Nanos,
    },
    /// Directions are very slow.
    Slow {
        /// Which, from where to where.
        directions: Vec<(Place, Place)>,
        /// Until when.
        until: Nanos,
    },
    /// A connection of a node breaks.
    Break {
        /// The node.
        node: u16,
    },
    /// A disk fails now and then.
    Disk {
        /// Whose.
        node: u16,
        /// How.
        rule: FaultRule,
        /// Until when.
        until: Nanos,
    },
}

/// The kinds of faults, as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A process was killed.
    Kill,
    /// A machine lost power.
    PowerCut,
    /// A process was stopped in good order.
    Stop,
    /// A process stood still.
    NodePause,
    /// One core stood still.
    CorePause,
    /// A wall clock jumped forward.
    JumpForward,
    /// A wall clock jumped back.
    JumpBack,
    /// One direction between two nodes was cut.
    OneWay,
    /// Two nodes could not reach each other, others could reach both.
    Partial,
    /// A node was cut off from the other nodes.
    Isolated,
    /// A node could send to nobody, or receive from nobody.
    HalfIsolated,
    /// A client was cut off from a node.
    ClientCut,
    /// A direction was slow.
    Slow,
    /// A connection broke.
    Break,
    /// A disk failed operations: it kept what it had, and said what it did not do.
    Disk,
}

impl Kind {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 15] = [
        (Self::Kill, "processes killed"),
        (Self::PowerCut, "power cuts"),
        (Self::Stop, "processes stopped"),
        (Self::NodePause, "processes paused"),
        (Self::CorePause, "cores paused"),
        (Self::JumpForward, "clocks jumped forward"),
        (Self::JumpBack, "clocks jumped back"),
        (Self::OneWay, "one-way cuts between nodes"),
        (Self::Partial, "partial partitions"),
        (Self::Isolated, "nodes cut off"),
        (Self::HalfIsolated, "nodes cut off one way"),
        (Self::ClientCut, "clients cut off from a node"),
        (Self::Slow, "slow links"),
        (Self::Break, "connections broken"),
        (Self::Disk, "disks that failed operations"),
    ];

    /// Whether it needs more than one node.
    #[must_use]
    pub fn needs_peers(self) -> bool {
        matches!(
            self,
            Self::OneWay | Self::Partial | Self::Isolated | Self::HalfIsolated
        )
    }
}

/// What befalls one cluster.
pub struct Faults {
    rng: Rng,
    /// The kinds of this run.
    kinds: Vec<Kind>,
    /// The usual time between two strokes.
    interval: Nanos,
    nodes: u16,
    clients: u16,
    ended: bool,
    /// Machines without power.
    dark: BTreeSet<u16>,
    /// How often each kind struck.
    pub counts: BTreeMap<Kind, u64>,
}

impl Faults {
    /// Draws the kinds and the haste of a run. None at all for `calm`.
    #[must_use]
    pub fn new(mut rng: Rng, nodes: u16, clients: u16, calm: bool) -> Self {
        let of_size = Kind::ALL
            .iter()
            .map(|(kind, _)| *kind)
            .filter(|kind| nodes > 1 || !kind.needs_peers());
        let kinds: Vec<Kind> = of_size.filter(|_| !rng.one_in(3)).collect();
        let interval = [200, 700, 2000, 5000][rng.index(4)] * MILLI;
        Self {
            ended: calm || kinds.is_empty(),
            rng,
            kinds,
            interval,
            nodes,
            clients,
            dark: BTreeSet::new(),
            counts: BTreeMap::new(),
        }
    }

    /// When the first stroke comes.
    #[must_use]
    pub fn first_at(&self) -> Nanos {
        2 * SECOND
    }

    /// No more strokes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether a machine is without power, so that it does not even refuse.
    #[must_use]
    pub fn is_dark(&self, node: u16) -> bool {
        self.dark.contains(&node)
    }

    /// A machine lost its power, or has it again.
    pub fn set_dark(&mut self, node: u16, dark: bool) {
        match dark {
            true => self.dark.insert(node),
            false => self.dark.remove(&node),
        };
    }

    /// Draws the stroke of this moment, if any, and when the next one comes, if ever.
    pub fn draw(&mut self, now: Nanos, nodes: &[Node]) -> (Option<Stroke>, Option<Nanos>) {
        if self.ended {
            return (None, None);
        }
        let next = now + self.rng.between(self.interval / 4, self.interval * 2);
        let kind = self.kinds[self.rng.index(self.kinds.len())];
        let node = self.rng.below(u64::from(self.nodes)) as u16;
        let stroke = self.stroke(now, kind, node, nodes);
        if stroke.is_some() {
            *self.counts.entry(kind).or_default() += 1;
        }
        (stroke, Some(next))
    }

    fn stroke(&mut self, now: Nanos, kind: Kind, node: u16, nodes: &[Node]) -> Option<Stroke> {
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
            Kind::Disk => Some(Stroke::Disk {
                node,
                rule: self.disk_rule(),
                until,
            }),
        }
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
