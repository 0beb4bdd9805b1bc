//! Segments that are kept for a reader although tables have all of them.
//!
//! Whoever copies a partition to a replica far behind takes a [`Hold`] first: from then on no segment
//! with a newer entry is recycled, however long the copy takes, so that the replica can go on from the
//! log. What is held counts towards no limit of the log's but one of its own: beyond
//! [`HELD_SEGMENTS_MAX`] segments, or when the disk is full, holds are given up.

use std::rc::Rc;

use super::handle::{Inner, Log};
use super::state::State;
use crate::env::Env;

/// Segments that are held at most.
pub const HELD_SEGMENTS_MAX: usize = 64;

/// Keeps what the log has from some moment on.
pub struct Hold<E: Env> {
    inner: Rc<Inner<E>>,
    number: u64,
}

/// The holds of a log.
#[derive(Debug, Default)]
pub(super) struct Holds {
    newest: u64,
    /// Each by its number: the header of the first segment that it keeps.
    from: Vec<(u64, u64)>,
    /// What some of them have kept may be recycled now.
    pub(super) released: bool,
}

impl<E: Env> Log<E> {
    /// Keeps every segment that tables do not have whole now, and those after it, until the hold is
    /// dropped or given up.
    #[must_use]
    pub fn hold(&self) -> Hold<E> {
        let number = self.inner.state.borrow_mut().hold();
        Hold {
            inner: Rc::clone(&self.inner),
            number,
        }
    }

    /// Ends all holds: there is something that needs the space more. Segments are recycled the next time.
    pub fn give_up_holds(&self) {
        self.inner.state.borrow_mut().give_up_holds();
    }

    /// Whether a hold has ended since segments were recycled last.
    #[must_use]
    pub fn has_released(&self) -> bool {
        self.inner.state.borrow().holds.released
    }
}

impl<E: Env> Drop for Hold<E> {
    fn drop(&mut self) {
        let mut state = self.inner.state.borrow_mut();
        state
            .holds
            .from
            .retain(|(number, _)| *number != self.number);
        state.holds.released = true;
    }
}

impl<F> State<F> {
    fn hold(&mut self) -> u64 {
        let first = self
            .chain
            .get(self.held)
            .map_or(0, |segment| segment.sequence);
        self.holds.newest += 1;
        self.holds.from.push((self.holds.newest, first));
        self.holds.newest
    }

    /// Whether a segment is held that ends before the header of this number.
    pub(super) fn is_held(&self, next: u64) -> bool {
        self.holds.from.iter().any(|(_, from)| *from < next)
    }

    /// Ends all holds: what they kept is recycled the next time.
    pub(super) fn give_up_holds(&mut self) {
        self.holds.released |= !self.holds.from.is_empty();
        self.holds.from.clear();
    }
}
