//! Counting the runnable tasks of a core.
//!
//! glommio does not say whether it has anything to run. So each task is wrapped: its waker notes
//! *became runnable* before it passes the wake on, and each poll notes *no longer*. The counts tell
//! the core loop whether to enter the scheduler at all, and whether it may sleep.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

/// The two kinds of task, as the core loop tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// In the loop's own task queue: run in every turn.
    Urgent,
    /// In a task queue with shares.
    Background,
}

/// Runnable tasks. Only this core's thread changes them; they are atomic because wakers must be
/// `Send`, and relaxed because of that.
#[derive(Debug, Default)]
pub(super) struct Runnable {
    urgent: AtomicUsize,
    background: AtomicUsize,
}

impl Runnable {
    fn of(&self, queue: Queue) -> &AtomicUsize {
        match queue {
            Queue::Urgent => &self.urgent,
            Queue::Background => &self.background,
        }
    }

    pub(super) fn urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed) > 0
    }

    pub(super) fn background(&self) -> bool {
        self.background.load(Ordering::Relaxed) > 0
    }
}

struct Signal {
    runnable: AtomicBool,
    queue: Queue,
    counts: Arc<Runnable>,
    /// glommio's own waker of the task: the same for all its life.
    inner: OnceLock<Waker>,
}

impl Signal {
    fn set(&self) {
        if !self.runnable.swap(true, Ordering::Relaxed) {
            let count = self.counts.of(self.queue);
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        if self.runnable.swap(false, Ordering::Relaxed) {
            let count = self.counts.of(self.queue);
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set();
        if let Some(inner) = self.inner.get() {
            inner.wake_by_ref();
        }
    }
}

/// A task whose wakes are counted.
pub(super) struct Counted<F> {
    task: Pin<Box<F>>,
    signal: Arc<Signal>,
    waker: Waker,
}

impl<F: Future> Counted<F> {
    /// Wraps a task that is about to be scheduled, hence runnable.
    pub(super) fn new(task: F, queue: Queue, counts: Arc<Runnable>) -> Self {
        let signal = Arc::new(Signal {
            runnable: AtomicBool::new(false),
            queue,
            counts,
            inner: OnceLock::new(),
        });
        signal.set();
        let waker = Waker::from(Arc::clone(&signal));
        Self {
            task: Box::pin(task),
            signal,
            waker,
        }
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let inner = this.signal.inner.get_or_init(|| cx.waker().clone());
        debug_assert!(inner.will_wake(cx.waker()), "a task keeps its waker");
        this.signal.clear();
        let mut cx = Context::from_waker(&this.waker);
        this.task.as_mut().poll(&mut cx)
    }
}

impl<F> Drop for Counted<F> {
    fn drop(&mut self) {
        self.signal.clear();
    }
}
