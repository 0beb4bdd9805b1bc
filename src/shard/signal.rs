//! A one-shot value from the core loop to a task on the same core.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

enum State<T> {
    Empty,
    Waiting(Waker),
    Full(T),
}

/// Both ends of a one-shot: clone it, give one to whoever will [`Signal::set`] it.
pub(super) struct Signal<T>(Rc<RefCell<State<T>>>);

impl<T> Clone for Signal<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Signal<T> {
    pub(super) fn new() -> Self {
        Self(Rc::new(RefCell::new(State::Empty)))
    }

    pub(super) fn set(&self, value: T) {
        let before = self.0.replace(State::Full(value));
        if let State::Waiting(waker) = before {
            waker.wake();
        }
    }

    pub(super) async fn wait(self) -> T {
        poll_fn(|context| match self.0.replace(State::Empty) {
            State::Full(value) => Poll::Ready(value),
            State::Empty | State::Waiting(_) => {
                *self.0.borrow_mut() = State::Waiting(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}
