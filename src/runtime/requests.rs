//! File requests between the tasks that wait for them and the ring that carries them out.
//!
//! A task's request is queued here, never put into the ring directly: the ring may be in use by the
//! handler at that moment. The core loop moves the queue into the ring once per turn and brings the
//! results back. A request outlives the future that waits for it: dropping that future abandons
//! the answer, not the operation, whose buffer stays alive in the ring.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringbolt_ring::{FileBuf, FileOp, FileOutcome, Ring};
use slab::Slab;

/// Requests with the kernel at a time; the rest wait in the queue. Their number is bounded by the
/// tasks that made them.
const IN_FLIGHT_MAX: usize = 1024;

/// What came of a request: the outcome or the error number, and the buffer of a read or write.
pub(super) type Answer = (Result<FileOutcome, i32>, Option<Box<dyn FileBuf>>);

enum Slot {
    Waiting(Option<Waker>),
    Answered(Answer),
    Abandoned,
}

#[derive(Default)]
pub(super) struct Requests {
    queue: RefCell<VecDeque<(usize, FileOp)>>,
    slots: RefCell<Slab<Slot>>,
}

impl Requests {
    /// Starts a request; the future brings its answer.
    pub(super) fn start(self: &Rc<Self>, op: FileOp) -> Request {
        let key = self.slots.borrow_mut().insert(Slot::Waiting(None));
        self.queue.borrow_mut().push_back((key, op));
        Request {
            requests: Rc::clone(self),
            key: Some(key),
        }
    }

    /// Moves queued requests into the ring. Returns whether any were.
    pub(super) fn pour(&self, ring: &mut Ring) -> bool {
        let mut queue = self.queue.borrow_mut();
        let mut any = false;
        while ring.files_in_flight() < IN_FLIGHT_MAX
            && let Some((key, op)) = queue.pop_front()
        {
            ring.file(key as u64, op);
            any = true;
        }
        any
    }

    /// Hands an answer to the task that waits for it.
    pub(super) fn answer(&self, token: u64, answer: Answer) {
        let waker = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(token as usize) else {
                return;
            };
            match slot {
                Slot::Waiting(waker) => {
                    let waker = waker.take();
                    *slot = Slot::Answered(answer);
                    waker
                }
                Slot::Abandoned | Slot::Answered(_) => {
                    slots.remove(token as usize);
                    None
                }
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Requests that are queued or with the kernel.
    pub(super) fn pending(&self) -> usize {
        self.slots.borrow().len()
    }
}

/// A request under way.
pub(super) struct Request {
    requests: Rc<Requests>,
    /// `None` once the answer was taken.
    key: Option<usize>,
}

impl Future for Request {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let Some(key) = self.key else {
            return Poll::Pending;
        };
        let mut slots = self.requests.slots.borrow_mut();
        match slots.get_mut(key) {
            Some(Slot::Waiting(waker)) => {
                // The log looks at its writes in every turn of the loop.
                if !waker
                    .as_ref()
                    .is_some_and(|known| known.will_wake(cx.waker()))
                {
                    *waker = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
            Some(Slot::Answered(_)) => {}
            Some(Slot::Abandoned) | None => return Poll::Pending,
        }
        let Slot::Answered(answer) = slots.remove(key) else {
            return Poll::Pending;
        };
        drop(slots);
        self.key = None;
        Poll::Ready(answer)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let Some(key) = self.key else {
            return;
        };
        let mut slots = self.requests.slots.borrow_mut();
        match slots.get_mut(key) {
            Some(slot @ Slot::Waiting(_)) => *slot = Slot::Abandoned,
            Some(Slot::Answered(_)) => drop(slots.remove(key)),
            Some(Slot::Abandoned) | None => {}
        }
    }
}
