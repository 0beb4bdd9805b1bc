//! The sleeping tasks of a core, by deadline.
//!
//! The core loop wakes the due ones once per turn and never sleeps past the earliest.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::clock;

#[derive(Default)]
pub(super) struct Timers {
    waiting: RefCell<BTreeMap<(Duration, u64), Waker>>,
    next: std::cell::Cell<u64>,
}

impl Timers {
    /// The earliest deadline.
    pub(super) fn earliest(&self) -> Option<Duration> {
        let waiting = self.waiting.borrow();
        waiting
            .first_key_value()
            .map(|((deadline, _), _)| *deadline)
    }

    /// Wakes every task whose deadline is at or before `now`.
    pub(super) fn fire(&self, now: Duration) {
        loop {
            let due = {
                let mut waiting = self.waiting.borrow_mut();
                match waiting.first_entry() {
                    Some(entry) if entry.key().0 <= now => entry.remove(),
                    _ => return,
                }
            };
            due.wake();
        }
    }
}

/// Completes at its deadline.
pub(super) struct Sleep {
    timers: Rc<Timers>,
    deadline: Duration,
    id: Option<u64>,
}

impl Sleep {
    pub(super) fn new(timers: Rc<Timers>, duration: Duration) -> Self {
        Self {
            timers,
            deadline: clock::now().saturating_add(duration),
            id: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if clock::now() >= self.deadline {
            return Poll::Ready(());
        }
        let id = self.id.unwrap_or_else(|| {
            let id = self.timers.next.get();
            self.timers.next.set(id.wrapping_add(1));
            id
        });
        self.id = Some(id);
        let waker = cx.waker().clone();
        let key = (self.deadline, id);
        self.timers.waiting.borrow_mut().insert(key, waker);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.timers
                .waiting
                .borrow_mut()
                .remove(&(self.deadline, id));
        }
    }
}
