//! The core's loop drives a [`Core`] through the runtime's handler.

use ringbolt_ring::{Event, Ring};

use super::core::Core;
use crate::runtime::{Handler, RealEnv, Turn};

/// A core in charge of its ring.
pub struct CoreHandler {
    core: Core<RealEnv>,
    /// Whether this turn has begun: with its first event, or else with its end.
    begun: bool,
}

impl CoreHandler {
    pub fn new(core: Core<RealEnv>) -> Self {
        Self { core, begun: false }
    }

    /// Whether the core was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.core.is_stopping()
    }

    fn begin(&mut self, ring: &mut Ring) {
        if !self.begun {
            self.begun = true;
            self.core.begin_turn(ring);
        }
    }
}

impl Handler for CoreHandler {
    fn on_event(&mut self, ring: &mut Ring, event: Event) {
        self.begin(ring);
        self.core.on_event(ring, event);
    }

    fn turn_end(&mut self, ring: &mut Ring) -> Turn {
        self.begin(ring);
        self.begun = false;
        match self.core.end_turn(ring) {
            None => Turn::Idle,
            Some(due) => Turn::Until(due),
        }
    }

    fn has_mail(&self) -> bool {
        self.core.has_mail()
    }
}
