//! What befalls a cluster, drawn from the seed: each run has its own kinds of faults and its own
//! haste.

mod strokes;

pub(super) use strokes::cut_between;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use ringbolt_engine::env::sim::{FaultRule, Rng};

use super::clock::{MILLI, Nanos, SECOND};
use super::net::Place;
use super::node::Node;

/// One in so many runs ends with the loss of most disks, if there are three nodes.
const LAST_ONE_IN: u64 = 16;

/// What a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Theme {
    /// Anything.
    Mixed,
    /// Nodes lose their data, and die.
    Losses,
    /// Leaders are nearly usurped: nothing else.
    Usurped,
    /// Leaders are deposed without their knowledge: nothing else.
    Deposed,
    /// Log writes hang: nothing else.
    Hung,
    /// Leaders die while their groups sleep: nothing else.
    Orphaned,
    /// Leaders are cut off as soon as they are elected: nothing else.
    Fleeting,
}

impl Theme {
    fn draw(rng: &mut Rng, nodes: u16) -> Self {
        match rng.below(20) {
            _ if nodes < 3 => Self::Mixed,
            0..=3 => Self::Losses,
            4 | 5 => Self::Usurped,
            6 => Self::Hung,
            7 | 9 => Self::Deposed,
            8 => Self::Orphaned,
            10 => Self::Fleeting,
            _ => Self::Mixed,
        }
    }
}

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
    /// A machine loses power and comes back with an empty disk.
    Wipe {
        /// Which.
        node: u16,
    },
    /// A machine loses power and comes back with its disk as it was at an earlier time.
    RollBack {
        /// Which.
        node: u16,
    },
    /// A machine loses power, and its files are damaged.
    Damage {
        /// Which.
        node: u16,
    },
    /// Two machines of three come back with empty disks: the cluster is lost, and must know it.
    WipeMajority {
        /// The one that keeps its data.
        spared: u16,
    },
    /// A process dies, and is started again after a set time.
    KillFor {
        /// Whose.
        node: u16,
        /// Whether its machine loses power.
        power: bool,
        /// How long it is gone.
        time: Nanos,
    },
    /// No fault: by now every partition has a leader on another node than this one.
    Expect {
        /// The node that is gone.
        without: u16,
    },
    /// If a node is elected by then, it is cut off from all other nodes at once, for some time.
    CutOnceElected {
        /// Which.
        node: u16,
        /// Until when it may be.
        by: Nanos,
        /// How long it is cut off.
        time: Nanos,
    },
    /// Clients begin nothing for a while.
    Hush {
        /// Until when.
        until: Nanos,
    },
    /// A process stands still in the midst of a turn of each core: later than it looked at the clock.
    Stall {
        /// Whose.
        node: u16,
        /// Until when.
        until: Nanos,
    },
    /// Every other client writes one partition and asks any node but one, the rest read it there and
    /// ask nobody else.
    Split {
        /// The node.
        node: u16,
        /// The partition.
        partition: u16,
        /// Until when.
        until: Nanos,
    },
    /// A write of a log does not come back until the process is ended.
    Hang {
        /// Whose.
        node: u16,
        /// When it is ended.
        until: Nanos,
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
    /// A disk was replaced by an empty one.
    Wipe,
    /// A disk was put back to an earlier time.
    RollBack,
    /// A disk was damaged.
    Damage,
    /// Two disks of three were replaced by empty ones.
    WipeMajority,
    /// A write of a log hung.
    Hang,
    /// A leader was cut off from one follower while the other was killed and back at once: whoever
    /// forgets what he has promised makes another leader before the first one's lease is over.
    Usurp,
    /// A leader stood still, or was cut off from the other nodes, while another was elected and written
    /// to; clients went on asking the first one.
    Depose,
    /// A leader died while its group slept and nobody asked for anything: the others must miss it.
    Orphan,
    /// A leader that had writes which nobody else had died, was elected again, and was cut off before
    /// anybody heard of it: the next leader replaces those writes.
    Fleeting,
}

impl Kind {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 24] = [
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
        (Self::Wipe, "disks wiped"),
        (Self::RollBack, "disks rolled back"),
        (Self::Damage, "disks damaged"),
        (Self::WipeMajority, "majorities wiped"),
        (Self::Hang, "log writes that hung"),
        (Self::Usurp, "leaders nearly usurped"),
        (Self::Depose, "leaders deposed without their knowledge"),
        (Self::Orphan, "leaders that died while their groups slept"),
        (
            Self::Fleeting,
            "leaders cut off as soon as they were elected",
        ),
    ];

    /// How many nodes it needs, at least and at most.
    #[must_use]
    pub fn nodes(self) -> RangeInclusive<u16> {
        match self {
            Self::OneWay | Self::Partial | Self::Isolated | Self::HalfIsolated => 2..=u16::MAX,
            Self::Wipe
            | Self::RollBack
            | Self::Damage
            | Self::Usurp
            | Self::Depose
            | Self::Orphan
            | Self::Fleeting => 3..=u16::MAX,
            Self::WipeMajority => 3..=3,
            _ => 1..=u16::MAX,
        }
    }

    /// Whether it takes a node's data: see [`Faults::draw`].
    fn takes_data(self) -> bool {
        matches!(
            self,
            Self::Wipe | Self::RollBack | Self::Damage | Self::WipeMajority
        )
    }
}

/// What befalls one cluster.
pub struct Faults {
    rng: Rng,
    theme: Theme,
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
        // These have a theme of their own.
        let is_mixed = |kind: &Kind| !matches!(kind, Kind::Orphan | Kind::Fleeting);
        let of_size = Kind::ALL
            .iter()
            .map(|(kind, _)| *kind)
            .filter(|kind| kind.nodes().contains(&nodes) && is_mixed(kind));
        let theme = Theme::draw(&mut rng, nodes);
        let mut kinds: Vec<Kind> = of_size.filter(|_| !rng.one_in(3)).collect();
        match theme {
            // Too rare for its purpose among all others.
            Theme::Mixed => kinds.retain(|kind| !matches!(kind, Kind::Usurp | Kind::Depose)),
            Theme::Losses => {
                kinds.retain(|kind| kind.takes_data());
                kinds.extend([Kind::RollBack, Kind::Damage, Kind::Kill, Kind::PowerCut]);
            }
            Theme::Usurped => kinds = vec![Kind::Usurp],
            Theme::Deposed => kinds = vec![Kind::Depose],
            Theme::Hung => kinds = vec![Kind::Hang],
            Theme::Orphaned => kinds = vec![Kind::Orphan],
            Theme::Fleeting => kinds = vec![Kind::Fleeting],
        }
        // After that no other data can be given back.
        let is_last = rng.one_in(LAST_ONE_IN);
        kinds.retain(|kind| match kind {
            Kind::WipeMajority => is_last,
            kind => !(is_last && kind.takes_data()),
        });
        let interval = match theme {
            Theme::Mixed => [200, 700, 2000, 5000][rng.index(4)],
            Theme::Losses => 500,
            Theme::Usurped => 1_500,
            Theme::Deposed | Theme::Fleeting => 2_500,
            Theme::Hung => 7_000,
            // Never another one before all that the last one did is over: of a node that lost power the others'
            // connections end up to 10 s later.
            Theme::Orphaned => 50_000,
        } * MILLI;
        Self {
            ended: calm && theme == Theme::Mixed || kinds.is_empty(),
            theme,
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

    /// Whether everything else is to be quick and quiet.
    #[must_use]
    pub fn is_directed(&self) -> bool {
        matches!(
            self.theme,
            Theme::Usurped | Theme::Deposed | Theme::Hung | Theme::Orphaned | Theme::Fleeting
        )
    }

    /// Whether nothing happens in this run but that log writes hang.
    #[must_use]
    pub fn only_hang(&self) -> bool {
        self.theme == Theme::Hung
    }

    /// Whether disks are put back to earlier times in this run.
    #[must_use]
    pub fn roll_back(&self) -> bool {
        self.kinds.contains(&Kind::RollBack)
    }

    /// Counts a stroke whose success only shows when it strikes.
    pub fn count(&mut self, kind: Kind) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// Draws what strikes now, or that much later, and when to draw again, if ever. Data is taken only
    /// where `is_whole`: each node has all its data and no group changes its members.
    pub fn draw(
        &mut self,
        now: Nanos,
        nodes: &[Node],
        is_whole: bool,
    ) -> (Vec<(Nanos, Stroke)>, Option<Nanos>) {
        if self.ended {
            return (Vec::new(), None);
        }
        let next = now + self.rng.between(self.interval / 4, self.interval * 2);
        if self.kinds.is_empty() {
            return (Vec::new(), None);
        }
        let kind = self.kinds[self.rng.index(self.kinds.len())];
        let node = self.rng.below(u64::from(self.nodes)) as u16;
        let strokes = match kind {
            Kind::Usurp => self.usurp(now, nodes),
            Kind::Depose => self.depose(now, nodes),
            Kind::Orphan => self.orphan(now, nodes),
            Kind::Fleeting => self.fleeting(now, nodes),
            kind if kind.takes_data() && !is_whole => Vec::new(),
            kind => {
                let stroke = self.stroke(now, kind, node, nodes);
                stroke.map(|stroke| (0, stroke)).into_iter().collect()
            }
        };
        // Whether damage was done is not known yet.
        if !strokes.is_empty() && kind != Kind::Damage {
            self.count(kind);
        }
        (strokes, Some(next))
    }
}
