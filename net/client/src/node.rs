//! One node as its clients know it: its addresses, a lane for each of its cores, how far away it
//! seems, and whether it is suspect.
//!
//! A node is suspect from the moment a connection to it breaks or cannot be made until one is
//! there again. Requests go round a suspect node where another can serve them; meanwhile one
//! attempt at a time is made to reach it, in the background and after growing, jittered pauses.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringbolt_wire::message::NodeId;
use tokio::time::Instant;

use crate::backoff;
use crate::lane::Lane;
use crate::latency::Mean;

/// Most lanes to a node, whatever a topology says.
const LANES_MAX: usize = 4096;

/// When a suspect node is looked for next.
struct Probe {
    not_before: Instant,
    /// Attempts that failed in a row.
    failures: u32,
}

/// One node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// Where it is looked for, in turn.
    pub(crate) addresses: Vec<String>,
    lanes: Vec<Arc<Lane>>,
    lanes_per_core: usize,
    next: AtomicUsize,
    pub(crate) latency: Mean,
    suspect: AtomicBool,
    probe: Mutex<Probe>,
}

impl Node {
    pub(crate) fn new(
        id: NodeId,
        addresses: Vec<String>,
        cores: u16,
        lanes_per_core: usize,
    ) -> Arc<Node> {
        let cores = usize::from(cores.max(1));
        let lanes_per_core = lanes_per_core.clamp(1, (LANES_MAX / cores).max(1));
        Arc::new(Node {
            id,
            addresses,
            lanes: (0..cores * lanes_per_core)
                .map(|lane| Lane::new((lane / lanes_per_core) as u16))
                .collect(),
            lanes_per_core,
            next: AtomicUsize::new(0),
            latency: Mean::default(),
            suspect: AtomicBool::new(false),
            probe: Mutex::new(Probe {
                not_before: Instant::now(),
                failures: 0,
            }),
        })
    }

    /// The lane to send by; with several for a core, each in turn; without a core, all in turn.
    pub(crate) fn lane(&self, core: Option<u16>) -> &Arc<Lane> {
        let turn = if core.is_some() && self.lanes_per_core == 1 {
            0
        } else {
            self.next.fetch_add(1, Ordering::Relaxed)
        };
        let at = match core {
            Some(core) => usize::from(core) * self.lanes_per_core + turn % self.lanes_per_core,
            None => turn,
        };
        &self.lanes[at % self.lanes.len()]
    }

    fn probe(&self) -> MutexGuard<'_, Probe> {
        self.probe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// A connection to it broke, or could not be made.
    pub(crate) fn failed(&self) {
        let mut probe = self.probe();
        probe.failures += 1;
        probe.not_before = Instant::now() + backoff::pause(probe.failures);
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// It answered.
    pub(crate) fn worked(&self) {
        if self.is_suspect() {
            self.probe().failures = 0;
            self.suspect.store(false, Ordering::Relaxed);
        }
    }

    /// Whether it is time to look for it: once for each pause.
    pub(crate) fn is_due(&self) -> bool {
        let mut probe = self.probe();
        let now = Instant::now();
        let due = self.is_suspect() && now >= probe.not_before;
        if due {
            // Until this attempt has ended one way or the other.
            probe.not_before = now + backoff::LONGEST;
        }
        due
    }
}
