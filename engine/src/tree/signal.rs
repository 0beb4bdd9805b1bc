//! Waiting for one another on one core: a condition to wait for, and a gate to pass one at a time.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Wakes those who wait for something to change.
#[derive(Default)]
pub(crate) struct Signal {
    generation: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Something changed: everybody looks again.
    pub(crate) fn notify(&self) {
        self.generation.set(self.generation.get().wrapping_add(1));
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for waker in waiting {
            waker.wake();
        }
    }

    /// How often something has changed.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Waits until `condition` holds, looking now and after each [`Signal::notify`].
    pub(crate) async fn wait_until(&self, condition: impl Fn() -> bool) {
        poll_fn(|cx| {
            if condition() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|w| w.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Lets one task through at a time.
#[derive(Default)]
pub(crate) struct Gate {
    taken: Cell<bool>,
    signal: Signal,
}

/// Held while inside a [`Gate`].
pub(crate) struct Pass(Rc<Gate>);

impl Gate {
    /// Waits until nobody is inside, and goes in.
    pub(crate) async fn pass(self: &Rc<Self>) -> Pass {
        self.signal.wait_until(|| !self.taken.get()).await;
        self.taken.set(true);
        Pass(Rc::clone(self))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.taken.set(false);
        self.0.signal.notify();
    }
}
