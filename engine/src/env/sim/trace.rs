//! What happened, as a hash (to prove that a replay is the same run) and on request as lines.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Receives one line for each event of a traced run.
pub type TraceSink = Rc<dyn Fn(&str)>;

/// The events of a simulation.
#[derive(Default)]
pub struct Trace {
    hash: Cell<u64>,
    sink: RefCell<Option<TraceSink>>,
}

impl Trace {
    /// Hands every event to `sink` as a line of text, or stops doing so.
    pub fn set_sink(&self, sink: Option<TraceSink>) {
        *self.sink.borrow_mut() = sink;
    }

    /// A hash of everything that has happened: equal for equal runs.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash.get()
    }

    /// Folds `word` into the hash; `line` is only called when somebody reads the lines.
    pub fn event(&self, line: impl FnOnce() -> String, word: u64) {
        let mixed = (self.hash.get().rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.hash.set(mixed ^ (mixed >> 29));
        let sink = self.sink.borrow().clone();
        if let Some(sink) = sink {
            sink(&line());
        }
    }
}
